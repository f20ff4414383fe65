"""Whose turn it is: few at a time in all, few of one host, so that none waits for a dead one."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from attrs import define, field
from twisted.internet.defer import Deferred


@define
class Turns:
    """`each` at a time of one host, `total` in all. A host that is `silent` has one."""

    total: int = 32
    each: int = 8
    silent: set[str] = field(factory=set, init=False)
    _out: Counter[str] = field(factory=Counter, init=False)
    _waiting: list[tuple[str, Deferred[None]]] = field(factory=list, init=False)

    @asynccontextmanager
    async def turn(self, host: str) -> AsyncIterator[None]:
        """Wait for a turn of `host`, and hold it for the block."""
        if not self._room(host):
            waiting: Deferred[None] = Deferred()
            self._waiting.append((host, waiting))
            try:
                await waiting
            except BaseException:
                self._waiting = [one for one in self._waiting if one[1] is not waiting]
                raise
        else:
            self._out[host] += 1
        try:
            yield
        finally:
            self._out[host] -= 1
            self._next()

    def _room(self, host: str) -> bool:
        most = 1 if host in self.silent else self.each
        return self._out[host] < most and self._out.total() < self.total

    def _next(self) -> None:
        full: set[str] = set()
        for host, waiting in list(self._waiting):
            if host in full or waiting.called:  # the turn given last may be over already
                continue
            if self._out.total() >= self.total:
                return
            if not self._room(host):
                full.add(host)
                continue
            self._waiting.remove((host, waiting))
            self._out[host] += 1
            waiting.callback(None)
