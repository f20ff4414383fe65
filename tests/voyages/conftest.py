"""A real ship and a real client for each voyage."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from tests.voyages import harbour as harbour_of
from tests.voyages.base import Base
from tests.voyages.harbour import Harbour

CONTAINERS = {"test_containers"}
"""Those that are about real containers."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each voyage is made under both runtimes; one after the other within what shares a ship."""
    if os.geteuid() != 0:
        return
    package, _, name = metafunc.module.__name__.rpartition(".")
    shared = package.endswith("advisories")
    runtimes = _runtimes("advisories" if shared else name)
    scope: Literal["package", "module"] = "package" if shared else "module"
    metafunc.parametrize("runtime", runtimes, indirect=True, scope=scope)


def _runtimes(name: str) -> list[str]:
    return ["lxc"] if name in CONTAINERS else ["process", "lxc"]


@pytest.fixture(scope="session", autouse=True)
def runtime(request: pytest.FixtureRequest) -> Iterator[str]:
    """The runtime of the ships of a voyage."""
    harbour_of.current_runtime = getattr(request, "param", "process")
    yield harbour_of.current_runtime
    harbour_of.current_runtime = "process"


@pytest.fixture
def harbour(runtime: str, tmp_path: Path) -> Iterator[Harbour]:
    """A ship that is up, with one key that may push."""
    with Harbour(tmp_path) as harbour:
        harbour.up()
        yield harbour


@pytest.fixture(scope="module")
def port_of_call(runtime: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harbour]:
    """A ship that the voyages of one module share; each pushes names of its own."""
    with Harbour(tmp_path_factory.mktemp("harbour")) as harbour:
        harbour.up()
        yield harbour


@pytest.fixture(scope="module")
def base(runtime: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Base]:
    """A ship that follows a headquarters, with a quick pulse; each voyage of a module orders
    services of its own."""
    with Harbour(tmp_path_factory.mktemp("harbour"), {"STARPHLEET_PULSE": "1"}) as harbour:
        harbour.up()
        base = Base.new(harbour)
        base.follow()
        yield base
