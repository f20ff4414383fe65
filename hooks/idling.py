"""Test services that nobody asks for stand still, until somebody does."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver

from hooks.ledger import Serving
from hooks.ship import Ship


@define(eq=False)
class Idling:
    """Freezes what was not asked for `seconds`; `now` tells the time, in epoch seconds.

    An ordered service never stands still: it may have more to do than to answer.
    """

    ship: Ship
    seconds: float
    now: Callable[[], float] = time.time
    _locks: dict[str, DeferredLock] = field(factory=dict)
    _log: Logger = Logger()

    async def look(self) -> None:
        """Freeze each test service that is idle by now."""
        if not self.ship.runtime.freezes or not self.seconds:
            return
        serving = await self.ship.ledger.serving()
        for name in self._locks.keys() - serving.keys():
            del self._locks[name]
        for one in serving.values():
            if one.place is None and not one.stopped and await self._is_idle(one):
                await self._frozen(one)

    async def wake(self, service: str) -> None:
        """Let `service` go on, and then have its requests come to it."""
        lock = self._lock(service)
        await lock.acquire()
        try:
            serving = await self.ship.serving(service)
            if serving is not None:
                await self._awake(serving)
        finally:
            lock.release()

    async def _is_idle(self, serving: Serving) -> bool:
        if self.ship.services.is_visited(serving.container):
            return False
        since = max(serving.since, await self.ship.proxy.traffic.last_used(serving.container))
        return self.now() - since >= self.seconds

    async def _frozen(self, serving: Serving) -> None:
        lock = self._lock(serving.service)
        await lock.acquire()
        try:
            container = self.ship.runtime.find(serving.container)
            if container is None:
                return
            await self.ship.proxy.traffic.lull(serving.service, serving.container, True)
            # Who was counted before that is on its way; who comes now waits to have it woken.
            if await self.ship.proxy.traffic.open_requests(serving.container):
                await self._awake(serving)
                return
            await self.ship.runtime.freeze(container, True)
            if self.ship.services.is_visited(serving.container):  # by who came meanwhile
                await self._awake(serving)
        finally:
            lock.release()

    async def _awake(self, serving: Serving) -> None:
        container = self.ship.runtime.find(serving.container)
        if container is not None:
            await self.ship.runtime.freeze(container, False)
        await self.ship.proxy.traffic.lull(serving.service, serving.container, False)

    def _lock(self, service: str) -> DeferredLock:
        return self._locks.setdefault(service, DeferredLock())


class _Asked(LineOnlyReceiver):
    """One question of nginx's: the name of a service. The answer is `awake`, once it is."""

    delimiter = b"\n"
    MAX_LENGTH = 512

    def __init__(self, idling: Idling) -> None:
        self._idling = idling
        self._waking: Deferred[None] | None = None

    def lineReceived(self, line: bytes) -> None:
        if self._waking is None:
            service = line.decode("utf-8", "replace")
            self._waking = Deferred.fromCoroutine(self._wake(service))

    async def _wake(self, service: str) -> None:
        assert self.transport is not None
        try:
            await self._idling.wake(service)
            self.transport.write(b"awake\n")
        except Exception:
            Logger().failure("{service} could not be woken", service=service)
        self.transport.loseConnection()


def listen(reactor: Any, path: Path, idling: Idling) -> Any:
    """The socket at `path` on which nginx asks; its workers may be another user than the ship."""
    factory = Factory.forProtocol(lambda: _Asked(idling))
    factory.noisy = False
    return reactor.listenUNIX(str(path), factory, mode=0o666)
