"""Who may deploy when: one at a time per service, so many at once on the ship and as the host has
memory for, first come first."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from attrs import define, field
from twisted.internet.defer import Deferred

from containers.watching import Waiters
from hooks.errors import HandedOver, Superseded

_ASK_AGAIN = "another process of the ship has taken over"

Ahead = Callable[[int], None]
"""Takes how many deploys must end or start before this one may start; told at each change."""


@define(eq=False)
class _Waiting:
    service: str
    ahead: Ahead
    light: bool
    memory: int
    turn: Deferred[None] = field(factory=Deferred)
    told: tuple[int, str] | None = None


class Queue:
    """The berths of a ship: `at_once` deploys run, the others wait in order of arrival.

    Several run only as long as the memory that they may come to take, which none of them may have
    taken yet, is `free` (bytes); one alone always may. What is `light` takes no time worth
    counting, and waits for its own service alone.
    """

    def __init__(self, at_once: int, free: Callable[[], int]) -> None:
        self._at_once = at_once
        self._free = free
        self._running: dict[str, _Waiting] = {}
        self._waiting: list[_Waiting] = []
        self._idle = Waiters()
        self._dismissed = False
        self.held = ""

    @property
    def waiting(self) -> tuple[str, ...]:
        """Services that wait, in order."""
        return tuple(entry.service for entry in self._waiting)

    @property
    def running(self) -> frozenset[str]:
        return frozenset(self._running)

    @asynccontextmanager
    async def berth(
        self, service: str, ahead: Ahead, *, light: bool = False, memory: int = 0
    ) -> AsyncIterator[None]:
        """Hold the one berth of `service`, which may come to take so many bytes of `memory`.

        Raises `Superseded` if `supersede` came first.
        """
        if self._dismissed:
            raise HandedOver(_ASK_AGAIN)
        entry = _Waiting(service, ahead, light, memory)
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
            if not self._running:
                self._idle.go_on()

    def hold(self, why: str) -> None:
        """Let nothing begin but what is light, until `release`; `why` is for those who wait."""
        self.held = why
        self._tell()

    def release(self) -> None:
        self.held = ""
        self._advance()

    async def idle(self) -> None:
        """Wait until nothing runs."""
        while self._running:
            await self._idle.wait()

    def dismiss(self) -> None:
        """Somebody else decides from now on: whoever waits, or comes, is to ask again."""
        self._dismissed = True
        waiting, self._waiting = self._waiting, []
        for entry in waiting:
            entry.turn.errback(HandedOver(_ASK_AGAIN))

    def supersede(self, service: str, by: str) -> None:
        """End the waiting of whoever waits for `service`: a newer push, `by`, takes its place."""
        for entry in [entry for entry in self._waiting if entry.service == service]:
            self._waiting.remove(entry)
            entry.turn.errback(Superseded(f"superseded by {by} before its turn came"))

    def _room(self, wanted: int) -> bool:
        running = [one.memory for one in self._running.values() if not one.light]
        if self.held or len(running) >= self._at_once:
            return False
        return not running or sum(running, wanted) <= self._free()

    def _advance(self) -> None:
        full = False
        for entry in list(self._waiting):
            if entry.service in self._running:
                continue
            # Nobody is overtaken by who asks for less, who might never be the last.
            full = full or not (entry.light or self._room(entry.memory))
            if entry.light or not full:
                self._waiting.remove(entry)
                self._running[entry.service] = entry
                entry.turn.callback(None)
        self._tell()

    def _tell(self) -> None:
        for place, entry in enumerate(list(self._waiting)):
            ahead = place + len(self._running)
            if entry.told != (ahead, self.held):
                entry.told = (ahead, self.held)
                entry.ahead(ahead)
