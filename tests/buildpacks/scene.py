"""What the tests of real builds share: one cache per process, and one way to build and ask."""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from buildpacks.packs import BuildError, Built
from tests.buildpacks.place import Log, Place, Reactor, Service, compiled, start

assert reactor is not None
REACTOR: Reactor = reactor  # type: ignore[assignment]


@functools.cache
def shared_cache() -> Path:
    """A CACHE directory for all tests of this process, so that each wheel is fetched once.

    `conftest.py` removes it.
    """
    return Path(tempfile.mkdtemp(prefix="starphleet-cache-"))


class Scene(TestCase):
    """A test that builds apps in directories of its own and ends what it started."""

    timeout = 240

    def setUp(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="starphleet-build-"))
        self.addCleanup(shutil.rmtree, self.home, ignore_errors=True)
        self.log = Log()

    def place(self, fixture: str = "", *, name: str = "one", kind: type[Place] = Place) -> Place:
        return kind.of(REACTOR, fixture, self.home / name, shared_cache())

    async def built(self, place: Place, variables: Mapping[str, str] | None = None) -> Built:
        """Build it; what was printed by this build alone is in `self.log`."""
        self.log = Log()
        try:
            return await compiled(place, self.log, variables=variables)
        except BuildError as error:
            error.add_note(self.log.text)
            raise

    async def refusal(self, place: Place, variables: Mapping[str, str] | None = None) -> str:
        """The sentence with which a build fails."""
        try:
            await self.built(place, variables)
        except BuildError as error:
            return str(error)
        raise AssertionError(f"the build did not fail:\n{self.log.text}")

    def started(self, place: Place, built: Built) -> Service:
        """Start it; it is stopped when the test ends."""
        service = start(place, built)
        self.addCleanup(lambda: Deferred.fromCoroutine(service.stop()))
        return service
