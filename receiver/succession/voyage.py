"""A process of the ship, from its start to its end: it may become the ship more than once, and
stays for its guests when another one has taken over."""

from __future__ import annotations

import os
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from hooks.errors import ShipError
from hooks.ship import Ship
from receiver.config import Config
from receiver.succession.doors import Doors
from receiver.succession.handover import Predecessor, Successor
from receiver.succession.relief import End, places
from receiver.succession.systemd import notify
from receiver.updates.versions import Versions, own_version

_log = Logger()


class Guests(Protocol):
    """Where people are connected."""

    def empty(self) -> Deferred[None]:
        """Fires once nobody is."""
        ...


@define(eq=False)
class Voyage:
    """`stop` is as `serve` has it. `before` is whom we take over from, `refused` a successor that
    was not taken, until both are told that we are the ship."""

    reactor: Any
    config: Config
    stop: Deferred[bool]
    before: Predecessor | None = None
    refused: Successor | None = None
    doors: Doors = field(init=False)
    guests: list[Guests] = field(factory=list)
    _unsure: bool = field(init=False)
    _verdict: Deferred[None] | None = None

    def __attrs_post_init__(self) -> None:
        self.doors = Doors(self.reactor)
        self._unsure = self.before is not None

    @property
    def alone(self) -> bool:
        """Whether no other process may have begun what still goes on."""
        return self.before is None and self.refused is None

    def ending(self) -> Deferred[End]:
        """Fires when we are to be the ship no more."""
        ending: Deferred[End] = Deferred()

        def passed_on(going_on: bool) -> bool:
            if not ending.called:
                ending.callback(going_on)
            return going_on

        self.stop.addCallback(passed_on)
        return ending

    def up(self, ship: Ship, ending: Deferred[End]) -> None:
        """We are the ship: tell who waits for that."""
        if self.before is not None and self._unsure:
            self.before.up([str(each) for each in places(self.config.settings, self.config.bind)])
            self._verdict = Deferred.fromCoroutine(self._hear(self.before, ship, ending))
            return
        ship.queue.release()
        notify(self.config.notify, "READY=1")
        refused, self.refused = self.refused, None
        if refused is not None:
            refused.settled.errback(ShipError(refused.failure))

    async def _hear(self, before: Predecessor, ship: Ship, ending: Deferred[End]) -> None:
        """Whether we are to stay the ship."""
        if await before.keeps():
            self._unsure = False
            os.dup2(1, 2)  # what went wrong until now was for our predecessor alone
            ship.queue.release()
            self._choose_own()
        elif not ending.called:
            ending.callback(before)

    def _choose_own(self) -> None:
        """Be what the next ship here is, too."""
        own = own_version()
        try:
            if own is not None:
                Versions.of(self.config.layout).choose(own)
        except OSError as error:
            _log.error("this version is not the current one: {error}", error=error)

    async def retire(self, end: End) -> None:
        """Return when nobody is connected here, nor to a process before us; at once when the ship
        is stopped."""
        if isinstance(end, bool):
            self._stop_others(end)
            return
        waiting = [guest.empty() for guest in self.guests]
        ways: list[Deferred[Any]] = [self.stop]
        if isinstance(end, Successor):
            notify(self.config.notify, f"MAINPID={end.child.pid}")
            end.settled.callback(None)
            if self.stop.called:  # while it was on its way to be the ship
                self.stop.addCallback(end.stop)
            if self.before is not None:
                waiting.append(Deferred.fromCoroutine(self.before.gone()))
            told = Deferred.fromCoroutine(end.told_to_end())
            ways.append(told.addCallback(lambda _: self._stop_others(False)))
        else:
            end.aside()
        await DeferredList([DeferredList(waiting), *ways], fireOnOneCallback=True)

    def _stop_others(self, going_on: bool) -> None:
        if self.before is not None and not going_on:
            self.before.end()
