"""What all tests share, and how they are spread over the workers of a run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

ALONE = {"hosting", "many", "phleet", "scarcity", "survival", "watching"}
"""Modules whose voyages have a ship each: they need not stay together."""


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


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long comes first, so that in the end no worker waits for another."""
    items.sort(key=lambda item: (not is_voyage(item.nodeid), unit(item.nodeid) == item.nodeid))


def is_voyage(nodeid: str) -> bool:
    return nodeid.startswith("tests/voyages/")


@pytest.fixture(autouse=True, scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Trial's `mktemp` makes directories where the process is: not in the work tree."""
    here = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("trial"))
    yield
    os.chdir(here)
