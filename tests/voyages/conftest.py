"""A real ship and a real client for each voyage."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.voyages import harbour as harbour_of
from tests.voyages.base import Base
from tests.voyages.harbour import Harbour

BOTH = {"test_push", "test_survival", "test_load"}
"""The modules whose voyages are made under both runtimes at each run of the tests."""


CONTAINERS = {"test_containers"}
"""Those that are about real containers."""

ON_LOOPBACK = {"test_elsewhere"}
"""Those whose builds fetch from the host's loopback, which a container has no way to."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    name = metafunc.module.__name__.rpartition(".")[2]
    if name in CONTAINERS:
        metafunc.parametrize("runtime", ["lxc"], indirect=True, scope="module")
    elif os.geteuid() == 0 and name not in ON_LOOPBACK and (harbour_of.EVERYTHING or name in BOTH):
        metafunc.parametrize("runtime", ["process", "lxc"], indirect=True, scope="module")


@pytest.fixture(scope="module", autouse=True)
def runtime(request: pytest.FixtureRequest) -> Iterator[str]:
    """The runtime of the ships of a voyage."""
    harbour_of.current_runtime = getattr(request, "param", "process")
    yield harbour_of.current_runtime
    harbour_of.current_runtime = "process"


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where packages that were fetched once are kept for the other voyages."""
    return tmp_path_factory.mktemp("cache")


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
