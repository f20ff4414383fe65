"""The ship is asked to let another process of it take over: when, how, and back if it must be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from containers.interface import ContainerError
from containers.watching import within
from hooks.errors import Refused, ShipError
from hooks.layout import Layout
from hooks.say import Say
from hooks.settings import Settings, url
from hooks.ship import Ship
from receiver.succession import selfcheck
from receiver.succession.doors import Doors
from receiver.succession.handover import Predecessor, Successor
from receiver.succession.selfcheck import Place

WAITING = "the ship is being updated; it goes on by itself"
ROOM = 32 << 20  # bytes: one that cannot write could not be the ship, nor could we again
BESIDE_A_BUILD = 180.0  # seconds that a deploy may take beyond its build

_log = Logger()

End = bool | Successor | Predecessor
"""How a process stops being the ship: another one is it from then on, else whether what is served
goes on."""


@define(eq=False)
class Relief:
    """One for each time that a process is the ship, which `ending` ends; `env` is a successor's."""

    ship: Ship
    env: Mapping[str, str] = field(repr=False)
    http: Place
    ending: Deferred[End]
    _asked: bool = False

    async def ask(self, interpreter: Path, given: Mapping[str, str], say: Say) -> None:
        """Let the Starphleet of `interpreter` be the ship, with settings `given` for it; return
        when it is for good. `ShipError` says why it is not: then all is as it was."""
        if self._asked or self.ship.queue.held:
            raise Refused("the ship is being updated already")
        self.ship.layout.require_room(ROOM)
        self._asked = True
        try:
            successor = await self._ready(interpreter, given, say)
        except BaseException:
            self._asked = False
            raise
        if self.ending.called:
            raise Refused("the ship is being stopped")
        self.ending.callback(successor)
        await successor.settled

    async def _ready(self, interpreter: Path, given: Mapping[str, str], say: Say) -> Successor:
        """Start it, and wait until nothing is under way here that would be lost."""
        try:
            successor = Successor.begin(self.ship.reactor, interpreter, {**self.env, **given})
        except ContainerError as error:
            raise ShipError(str(error)) from error
        try:
            await successor.ready()
            await self._quiet(say)
            successor.before = await self._answers()
            await self._ended()  # what is light may have begun meanwhile
        except BaseException:
            self.ship.queue.release()
            await successor.back()
            raise
        return successor

    async def _answers(self) -> Mapping[str, str]:
        """What some services answer now, by URL."""
        ship = self.ship
        served = (await ship.ledger.serving()).values()
        urls = [url(ship.settings, one.service, one.place) for one in served if not one.stopped]
        return await selfcheck.answers(ship.reactor, self.http, [each for each in urls if each])

    async def _quiet(self, say: Say) -> None:
        ship = self.ship
        ship.queue.hold(WAITING)
        if running := sorted(ship.queue.running):
            say.header(f"Waiting for what is under way: {', '.join(running)}")
        limit = (ship.settings.build_limits.seconds or 0.0) + BESIDE_A_BUILD
        ended: Deferred[None] = Deferred.fromCoroutine(self._ended())
        if not await within(ship.reactor, ended, limit):
            raise ShipError(f"a deploy that is under way did not end within {limit:g} s")

    async def _ended(self) -> None:
        queue, services = self.ship.queue, self.ship.services
        while queue.running or services.retiring:
            await queue.idle()
            await services.retiring.all_gone()


def places(settings: Settings, bind: str) -> tuple[Place, Place]:
    """Where SSH and HTTP of a ship are reached."""
    return Place.of(bind, settings.ssh_port), Place.of(bind, settings.http_port)


async def taken_over(reactor: Any, successor: Successor, doors: Doors, layout: Layout) -> bool:
    """Hand everything to `successor`, and see that it does what we did. False when it does not:
    then it has given all of it back, and its `failure` says why."""
    try:
        await successor.up(doors.names, doors.descriptors)
        ssh, http = map(Place.read, successor.names)
        await selfcheck.check(reactor, layout.socket, ssh, http, successor.before)
    except Exception as error:
        why = str(error) if isinstance(error, ShipError) else repr(error)
        _log.error("the next process is not taken: {why}", why=why)
        successor.failure = why
        await successor.back()
        return False
    successor.keep()
    _log.info("process {pid} is the ship now", pid=successor.child.pid)
    return True
