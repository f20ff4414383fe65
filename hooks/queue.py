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
    turn: Deferred[None] = field(factory=Deferred)
    told: int | None = None


class Queue:
    """The berths of a ship: `at_once` deploys run, the others wait in order of arrival."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._running: set[str] = set()
        self._waiting: list[_Waiting] = []

    @property
    def waiting(self) -> tuple[str, ...]:
        """Services that wait, in order."""
        return tuple(entry.service for entry in self._waiting)

    @property
    def running(self) -> frozenset[str]:
        return frozenset(self._running)

    @asynccontextmanager
    async def berth(self, service: str, ahead: Ahead) -> AsyncIterator[None]:
        """Hold the one berth of `service`; raises `Superseded` if `supersede` came first."""
        entry = _Waiting(service, ahead)
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
            self._running.discard(service)
            self._advance()

    def supersede(self, service: str, by: str) -> None:
        """End the waiting of whoever waits for `service`: a newer push, `by`, takes its place."""
        for entry in [entry for entry in self._waiting if entry.service == service]:
            self._waiting.remove(entry)
            entry.turn.errback(Superseded(f"superseded by {by} before its turn came"))

    def _advance(self) -> None:
        for entry in list(self._waiting):
            if len(self._running) < self._at_once and entry.service not in self._running:
                self._waiting.remove(entry)
                self._running.add(entry.service)
                entry.turn.callback(None)
        for place, entry in enumerate(list(self._waiting)):
            ahead = place + len(self._running)
            if entry.told != ahead:
                entry.told = ahead
                entry.ahead(ahead)
