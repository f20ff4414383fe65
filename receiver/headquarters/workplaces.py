"""Ordered services of a workstation: each is served from a working directory, cloned once."""

from __future__ import annotations

import pwd
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from attrs import define, evolve, field, frozen
from twisted.internet.defer import CancelledError, DeferredLock
from twisted.logger import Logger

from containers.watching import in_thread
from hooks.errors import Refused
from hooks.ledger import Serving
from hooks.orders import READ, Orders
from hooks.say import clean
from hooks.ship import Ship
from hooks.standing import StandingOrders
from hooks.working import Away, Look, Working, develops, is_linked, look, place_of, texts
from receiver.headquarters import ordered as phases
from receiver.headquarters.cloning import clone
from receiver.headquarters.ordered import Ordered
from receiver.headquarters.sources import Sources

SETTLING = 0.25  # seconds after which nobody is in the middle of saving
REST = 20  # a tree is left alone for this many times as long as the look at it took


@frozen
class Found:
    """A working directory and what lies there; `owner` is whose it is."""

    working: Working
    commit: str
    owner: str
    texts: Mapping[str, str]


@define(eq=False)
class Workplaces:
    """`found` for each deploy, `changed` to know when there is one to begin."""

    ship: Ship
    sources: Sources
    _locks: dict[Path, DeferredLock] = field(factory=lambda: defaultdict(DeferredLock))
    _read: dict[str, object] = field(factory=dict)
    _after: dict[str, Look] = field(factory=dict)
    _rest: dict[str, float] = field(factory=dict)
    _log: Logger = Logger()

    def has(self, standing: StandingOrders) -> bool:
        """Whether this service is served from a working directory."""
        return develops(standing, self.ship.settings.devmode)

    def place(self, standing: StandingOrders) -> Path:
        """Where its working directory is, or would be."""
        return place_of(self.ship.layout.working, standing.path)

    async def found(self, standing: StandingOrders) -> Found:
        """What lies there now, after it was cloned if there was nothing."""
        place, reactor = self.place(standing), self.ship.reactor
        working = Working(place, is_linked(standing.environment))
        assert standing.source is not None
        async with self._locks[place]:
            if not await in_thread(reactor, place.exists):
                await clone(self.sources, standing.source, place)
        try:
            seen = await in_thread(reactor, look, place)
            self._read[standing.service] = await in_thread(reactor, _read, place)
            self._after.pop(standing.service, None)
            read = await in_thread(reactor, texts, place, READ)
            return Found(working, seen.commit, await in_thread(reactor, _owner, place), read)
        except OSError as error:
            raise Refused(f"{place}: {error.filename}: {error.strerror}") from None

    async def failed(self, one: Ordered) -> None:
        """Remember what lies there after a build that failed, and may have written there."""
        if self._is_linked(one.standing):
            with suppress(Refused, OSError):
                self._after[one.standing.service] = await self._look(one.standing)

    async def changed(self, one: Ordered) -> bool:
        """Whether something was saved that is to be deployed."""
        service, now = one.standing.service, self.ship.reactor.seconds()
        idle = one.phase in (phases.LIVE, phases.FAILED) and self.has(one.standing)
        if not idle or now < self._rest.get(service, 0.0):
            return False
        try:
            return await self._is_changed(one)
        except (Refused, OSError):  # not there, or not to be read, at the moment
            return False
        except CancelledError:
            raise
        except Exception:
            self._log.failure("the working directory of {service}", service=service)
            return False
        finally:
            ended = self.ship.reactor.seconds()
            self._rest[service] = ended + REST * (ended - now)

    async def _is_changed(self, one: Ordered) -> bool:
        service, place = one.standing.service, self.place(one.standing)
        if self._is_linked(one.standing) and one.phase == phases.LIVE:
            return await in_thread(self.ship.reactor, _read, place) != self._read.get(service)
        seen = await self._look(one.standing)
        now = time.time()
        if now - SETTLING < seen.newest <= now:
            return False
        if self._is_linked(one.standing):
            return self._after.setdefault(service, seen) != seen
        return seen.commit != one.commit

    async def _look(self, standing: StandingOrders) -> Look:
        return await in_thread(self.ship.reactor, look, self.place(standing))

    def _is_linked(self, standing: StandingOrders) -> bool:
        try:
            return self.has(standing) and is_linked(standing.environment)
        except Refused:
            return False


def lasting(orders: Orders, serving: Serving | None) -> Orders:
    """`orders`; with the stamp of what serves, where that is linked to the same directory already
    and nothing else about it has changed."""
    working, release = orders.working, orders.release
    if working is None or not working.linked or serving is None:
        return orders
    same = serving.launch.linked and serving.launch.working == str(working.path)
    if not same or serving.release.configuration != release.configuration:
        return orders
    return evolve(orders, release=evolve(release, commit=serving.release.commit))


def _read(place: Path) -> object:
    """The files there that the ship reads, or why it cannot; to be compared. Blocks."""
    try:
        return texts(place, READ)
    except Away:
        raise
    except Refused as error:
        return str(error)


def _owner(place: Path) -> str:
    uid = place.stat().st_uid
    try:
        return clean(pwd.getpwuid(uid).pw_name)
    except KeyError:
        return str(uid)
