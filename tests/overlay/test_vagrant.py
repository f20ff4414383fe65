"""The Vagrantfile, as Vagrant itself reads it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.containers.lxc import CHECKOUT

pytestmark = pytest.mark.skipif(shutil.which("vagrant") is None, reason="without vagrant")


def validated(home: Path, settings: Mapping[str, str]) -> tuple[int, str]:
    """What `vagrant validate` says, with these settings in the workstation's environment."""
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "VAGRANT_HOME": str(home / "v")}
    done = subprocess.run(
        ["vagrant", "validate", "--ignore-provider"],
        cwd=CHECKOUT,
        env={**env, "VAGRANT_DOTFILE_PATH": str(home / "d"), **settings},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


def test_it_is_valid(tmp_path: Path) -> None:
    """Vagrant finds nothing wrong with it, whatever is told to it, there and in ~/.starphleet."""
    (tmp_path / "key.pub").write_text("a key")
    (tmp_path / ".starphleet").write_text('export STARPHLEET_PUBLIC_KEY="${HOME}/key.pub"\n')
    told = {
        "STARPHLEET_HEADQUARTERS": "https://example.com/hq.git#main",
        "STARPHLEET_SHIP_NAME": "flagship",
        "STARPHLEET_VAGRANT_MEMSIZE": "2048",
        "BOX_NAME": "generic/debian12",
    }
    assert validated(tmp_path, told) == (0, validated(tmp_path, {})[1])


def test_it_is_told(tmp_path: Path) -> None:
    """What the file ~/.starphleet of the workstation says counts, unless the environment does."""
    (tmp_path / ".starphleet").write_text("export STARPHLEET_VAGRANT_MEMSIZE=lots\n")
    status, said = validated(tmp_path, {})
    assert status != 0
    assert 'invalid value for Integer(): "lots"' in said
    assert validated(tmp_path, {"STARPHLEET_VAGRANT_MEMSIZE": "4096"})[0] == 0
