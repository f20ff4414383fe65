"""What all tests share, and how they are spread over the workers of a run."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

ALONE = {"hosting", "many", "phleet", "scarcity", "survival", "watching"}
"""Modules whose voyages have a ship each: they need not stay together."""

LONG = (
    "runtime", "install", "cloud_init", "headquarters", "living", "load", "update", "many",
    "phleet", "apps", "clients", "lxc_network", "urls", "python", "remotes", "acme", "refusals",
    "ssh_admiral", "node", "guard_process", "ships", "who", "browser", "certificates", "cloud",
)  # fmt: skip
"""Modules of which some worker has half a minute to do or more, the longest first. The first of all
makes the base of containers, if there is none yet."""

LATER = 16
"""By so many places what needs that base is put off, for else all workers would wait for it."""


class Spread(LoadScopeScheduling):  # type: ignore[misc]
    """Gives a worker at once what shares a ship, and otherwise keeps to the order."""

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)


def unit(nodeid: str) -> str:
    """What a test is to be run together with, by one worker.

    A module, or what is made under one runtime of it; a voyage with a ship of its own is alone.
    """
    path, _, test = nodeid.partition("::")
    if not is_voyage(nodeid):
        return path
    if Path(path).stem.removeprefix("test_") in ALONE:
        return nodeid
    shared = str(Path(path).parent) if "/advisories/" in path else path
    return f"{shared} lxc" if "[lxc" in test else shared


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Spread:
    config.option.loadscopereorder = False  # the order below is a better one
    return Spread(config, log)


def pytest_collection_finish() -> None:
    """What all tests are made of lasts: nobody looks through it for garbage any more."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long comes first, so that in the end no worker waits for another."""
    items.sort(key=lambda item: turn(item.nodeid))


def turn(nodeid: str) -> tuple[int, bool, bool]:
    """When a test is begun: the least first."""
    name = Path(nodeid.partition("::")[0]).stem.removeprefix("test_")
    long = LONG.index(name) if name in LONG else len(LONG)
    long += LATER if "[lxc" in nodeid and name in LONG else 0
    return long, not is_voyage(nodeid), unit(nodeid) == nodeid


def is_voyage(nodeid: str) -> bool:
    return nodeid.startswith(("tests/voyages/", "tests/overlay/"))


@pytest.fixture(autouse=True, scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Trial's `mktemp` makes directories where the process is: not in the work tree."""
    here = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("trial"))
    yield
    os.chdir(here)
