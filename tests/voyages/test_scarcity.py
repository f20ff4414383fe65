"""What a machine may lack: room on the disk, nginx, a free port."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.voyages.apps import web
from tests.voyages.harbour import Harbour

SIZE = 100  # MB


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Harbour]:
    """A ship on a small disk, a file system of the test's own."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    harbour = Harbour(tmp_path / "harbour", {"STARPHLEET_FREE_DISK": "4M"})
    harbour.root.mkdir(parents=True)
    size = f"size={SIZE}m,mode=0755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", harbour.root], check=True)
    try:
        with harbour:
            harbour.up()
            yield harbour
    finally:
        subprocess.run(["umount", "--lazy", harbour.root], check=True)


def fill(harbour: Harbour, leave: int) -> Path:
    """Leave only so many MB free."""
    ballast = harbour.root / "ballast"
    stat = os.statvfs(harbour.root)
    ballast.write_bytes(b"\0" * (stat.f_bavail * stat.f_frsize - leave * 2**20))
    return ballast


def test_a_disk_that_fills_up_in_a_build(small: Harbour) -> None:
    """A build that runs out of disk fails and says so; the old version serves, and with room
    again the same commit can be pushed."""
    app = small.app(web("old"))
    url = app.push("full").url
    ballast = fill(small, 8)
    app.commit({**web("new"), "package.json": '{"name": "big", "version": "1.0.0",'
                ' "scripts": {"build": "dd if=/dev/zero of=big bs=1M count=30"}}\n'})  # fmt: skip
    said = app.push("full", check=False)
    assert said.status != 0
    assert "No space left on device" in said.text
    assert small.get(url).text == "old"
    ballast.unlink()
    app.commit(web("new") | {"package.json": '{"name": "small", "version": "1.0.0"}\n'})
    app.push("full")
    assert small.get(url).text == "new"


def test_a_disk_that_is_full_already(small: Harbour) -> None:
    """Nothing is uploaded when there is no room, and the ship's process is not begun anew: it could
    not go back. What serves goes on serving, and `status` says what is amiss."""
    app = small.app(web("old"))
    url = app.push("full").url
    fill(small, 2)
    app.commit(web("new"))
    said = app.push("full", check=False)
    assert said.status != 0
    assert "no room on the ship's disk: " in said.text
    said = small.starphleet("reload", check=False)
    assert (said.status, "32 MB needed" in said.text) == (1, True)
    assert "no room on the ship's disk: " in small.starphleet("status", "--trouble").text
    assert small.get(url).text == "old"


def test_no_nginx(tmp_path: Path) -> None:
    """A ship without nginx does not start, and names the package."""
    with Harbour(tmp_path / "harbour", {"PATH": "/nowhere"}) as harbour:
        said = harbour.starphleet("ship", check=False)
        harbour.settings.clear()
    assert said.status == 1
    assert said.text.splitlines()[-1].startswith("starphleet: ")
    assert "nginx" in said.text.splitlines()[-1]


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """A ship whose SSH port belongs to another says which, and leaves nothing running."""
    port = free_port()
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with Harbour(tmp_path / "harbour", ssh_port=port) as harbour:
            said = harbour.starphleet("ship", check=False)
            harbour.ssh_port = free_port()
    assert said.status == 1
    assert f"port {port} is taken" in said.text.splitlines()[-1]
