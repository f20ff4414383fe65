"""Where the traffic of each service goes, and who may use it: nginx is told one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from attrs import evolve
from twisted.internet.defer import DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from proxy.engine import Engine
from proxy.guarding import Guarding
from proxy.protection import Protection
from proxy.routes import CONTAINER, Backend, ProxyError, matches
from proxy.table import Entry, Table


class Traffic:
    """What is wanted of each service is in `file`, and nginx has it when a method returns.

    Every method raises `ProxyError`, before `open` and after `close` for that alone.
    """

    def __init__(self, reactor: IReactorTime, file: Path, guarding: Guarding) -> None:
        self._reactor = reactor
        self._guarding = guarding
        self._table = Table(file)
        self._telling = DeferredLock()
        self._engine: Engine | None = None

    def begin(self, entries: Mapping[str, Entry]) -> None:
        """Just these, for an nginx that starts, or that is aligned."""
        self._table.begin(entries)

    async def align(self, engine: Engine, *, patiently: bool = False) -> None:
        """Tell an adopted nginx all that it does not know; see `Table`."""
        await self._table.align(engine.control, patiently=patiently)

    def open(self, engine: Engine) -> None:
        """nginx is there to be told, from now on."""
        self._engine = engine

    def close(self) -> None:
        """It is no affair of ours any more."""
        self._engine = None

    def get(self, service: str) -> Entry | None:
        return self._table.get(service)

    async def lead(self, service: str, entry: Entry | None) -> None:
        """From now on traffic for `service` goes there, or nowhere. A guard is there before what
        it guards, and goes after it."""
        if entry is not None and entry.backend.guarded:
            await self._guard(service, entry.protection)
            await self._put(service, entry)
        else:
            await self._put(service, entry)
            await self._guard(service, None)

    def asleep(self) -> frozenset[str]:
        """The services that the first request wakes."""
        return self._table.asleep()

    async def lull(self, service: str, container: str, asleep: bool) -> None:
        """From now on the first request for `service` has it woken, or none any more; nothing if
        its traffic does not go to `container`."""
        await self._change(service, container, lambda led: evolve(led, asleep=asleep))

    async def hold(self, service: str, container: str, starting: bool) -> None:
        """From now on requests for `service` wait until it listens, or go there at once; nothing
        if its traffic does not go to `container`."""
        await self._change(service, container, lambda led: evolve(led, starting=starting))

    async def open_requests(self, container: str) -> int:
        """Requests, streams and websockets that are on their way to `container` or open there."""
        engine, name = self._running(), matches("container name", CONTAINER, container)
        return await engine.told(lambda: engine.control.open_requests(name))

    async def last_used(self, container: str) -> float:
        """When `container` was last asked for something, in epoch seconds; 0 for never."""
        engine, name = self._running(), matches("container name", CONTAINER, container)
        return await engine.told(lambda: engine.control.last_used(name))

    async def drain(self, container: str, wait: float) -> int:
        """Wait until nothing is open to `container`, at most `wait` seconds; what still is."""
        deadline = self._reactor.seconds() + wait
        pause = 0.01
        while (still := await self.open_requests(container)) > 0:
            left = deadline - self._reactor.seconds()
            if left <= 0:
                break
            await deferLater(self._reactor, min(pause, left))
            pause = min(0.25, pause * 1.5)
        return still

    async def _change(
        self, service: str, container: str, change: Callable[[Backend], Backend]
    ) -> None:
        self._running()
        led = self._table.get(service)
        if led is None or led.backend.container != container:
            return
        changed = evolve(led, backend=change(led.backend))
        if changed == led and self._table.is_told(service):
            return
        try:
            self._table.put(service, changed, anyway=True)
        finally:  # also on a full disk: it leads where it led
            await self._tell(service)

    async def _guard(self, service: str, protection: Protection | None) -> None:
        engine = self._running()
        if await self._guarding.protect(service, protection):
            await engine.told(engine.control.forget)

    async def _put(self, service: str, entry: Entry | None) -> None:
        """First the file, then nginx: one that starts in between reads what is to be."""
        self._running()
        self._table.put(service, entry)
        await self._tell(service)

    async def _tell(self, service: str) -> None:
        """One after the other: what is told last is what was wanted last."""
        engine = self._running()
        async with self._telling:
            await engine.told(lambda: self._table.tell(engine.control, service))

    def _running(self) -> Engine:
        if self._engine is None:
            raise ProxyError("the proxy is not started")
        return self._engine
