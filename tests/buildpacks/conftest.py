"""Removes what the tests of one process shared (a worker of xdist runs no atexit)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.buildpacks.scene import shared_cache


@pytest.fixture(scope="session", autouse=True)
def cache_is_removed() -> Iterator[None]:
    yield
    if shared_cache.cache_info().currsize:
        shutil.rmtree(shared_cache(), ignore_errors=True)
