"""A real ship and a real client for each voyage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.voyages.base import Base
from tests.voyages.harbour import Harbour


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where packages that were fetched once are kept for the other voyages."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def harbour(tmp_path: Path) -> Iterator[Harbour]:
    """A ship that is up, with one key that may push."""
    with Harbour(tmp_path) as harbour:
        harbour.up()
        yield harbour


@pytest.fixture(scope="module")
def port_of_call(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harbour]:
    """A ship that the voyages of one module share; each pushes names of its own."""
    with Harbour(tmp_path_factory.mktemp("harbour")) as harbour:
        harbour.up()
        yield harbour


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Base]:
    """A ship that follows a headquarters, with a quick pulse; each voyage of a module orders
    services of its own."""
    with Harbour(tmp_path_factory.mktemp("harbour"), {"STARPHLEET_PULSE": "1"}) as harbour:
        harbour.up()
        base = Base.new(harbour)
        base.follow()
        yield base
