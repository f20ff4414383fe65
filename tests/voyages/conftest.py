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

PROCESS_ALONE = {"test_browser", "test_certificates", "test_elsewhere"}
"""Those about what stands before a service, and one whose builds fetch from the host's loopback,
to which a container has no way."""

BEFORE_SERVICES = {
    "advisories", "test_admiral", "test_clients", "test_headquarters", "test_hosting", "test_many",
    "test_phleet", "test_refusals", "test_watching", "test_webhooks",
}  # fmt: skip
"""Those about what comes before a service runs: `make voyages` makes them under both runtimes, the
tests of every day under one, for they would take too long."""

EVERYTHING = bool(os.environ.get("VOYAGES_EVERYTHING"))


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
    if name in CONTAINERS:
        return ["lxc"]
    alone = name in PROCESS_ALONE or (name in BEFORE_SERVICES and not EVERYTHING)
    return ["process"] if alone else ["process", "lxc"]


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
