"""Who may deploy when: one at a time per service, so many at once on the ship, first come first."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from attrs import define, field
from twisted.internet.defer import Deferred

from hooks.errors import Superseded

Ahead = Callable[[int], None]
"""Takes how many deploys must end or start before this one may start; told at each change."""


@define(eq=False)
class _Waiting:
    service: str
    ahead: Ahead
    light: bool
    turn: Deferred[None] = field(factory=Deferred)
    told: int | None = None


class Queue:
    """The berths of a ship: `at_once` deploys run, the others wait in order of arrival.

    What is `light` takes no time worth counting, and waits for its own service alone.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._running: dict[str, _Waiting] = {}
        self._waiting: list[_Waiting] = []

    @property
    def waiting(self) -> tuple[str, ...]:
        """Services that wait, in order."""
        return tuple(entry.service for entry in self._waiting)

    @property
    def running(self) -> frozenset[str]:
        return frozenset(self._running)

    @asynccontextmanager
    async def berth(
        self, service: str, ahead: Ahead, *, light: bool = False
    ) -> AsyncIterator[None]:
        """Hold the one berth of `service`; raises `Superseded` if `supersede` came first."""
        entry = _Waiting(service, ahead, light)
        self._waiting.append(entry)
        self._advance()
        try:
            await entry.turn
        except BaseException:
            if entry in self._waiting:
                self._waiting.remove(entry)
            self._advance()
            raise
        try:
            yield
        finally:
            del self._running[service]
            self._advance()

    def supersede(self, service: str, by: str) -> None:
        """End the waiting of whoever waits for `service`: a newer push, `by`, takes its place."""
        for entry in [entry for entry in self._waiting if entry.service == service]:
            self._waiting.remove(entry)
            entry.turn.errback(Superseded(f"superseded by {by} before its turn came"))

    def _room(self) -> bool:
        return sum(not one.light for one in self._running.values()) < self._at_once

    def _advance(self) -> None:
        for entry in list(self._waiting):
            if entry.service not in self._running and (entry.light or self._room()):
                self._waiting.remove(entry)
                self._running[entry.service] = entry
                entry.turn.callback(None)
        for place, entry in enumerate(list(self._waiting)):
            ahead = place + len(self._running)
            if entry.told != ahead:
                entry.told = ahead
                entry.ahead(ahead)
