"""Requests wait for a service that is started again, instead of being told that it is away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, race
from twisted.logger import Logger

from containers.interface import Address, Container, Runtime
from hooks.check import listens
from proxy.routes import ProxyError
from proxy.traffic import Traffic

PATIENCE = 30.0  # seconds that it may take until it listens; nginx waits as long


@define(eq=False)
class Holding:
    """Whose requests wait. Of what does not lead to the container, nothing does."""

    reactor: Any
    runtime: Runtime
    traffic: Traffic
    _held: dict[str, str] = field(factory=dict)
    """The service, by its container."""
    _looking: dict[str, Deferred[None]] = field(factory=dict)
    """Whether a container listens, once it is started."""
    _log: Logger = Logger()

    def holds(self, container: str) -> bool:
        return container in self._held

    async def begin(self, service: str, container: Container) -> None:
        """Let requests for `service` wait until `end`."""
        self._look_away(container.name)
        self._held[container.name] = service
        await self._tell(service, container.name, True)

    @asynccontextmanager
    async def until_started(self, service: str, container: Container) -> AsyncIterator[None]:
        """Let requests for `service` wait from now on; no longer, if what is done meanwhile
        fails."""
        try:
            await self.begin(service, container)
            yield
        except BaseException:
            await self.end(container.name)
            raise

    def end_when_it_listens(self, container: Container, address: Address) -> None:
        """Let them go on then; also when it ends, or takes too long."""
        self._look_away(container.name)
        looking = Deferred.fromCoroutine(self._look(container, address))
        looking.addErrback(lambda _: None)  # it is cancelled
        self._looking[container.name] = looking

    async def end(self, container: str) -> None:
        """Let them go on, wherever that leads."""
        self._look_away(container)
        service = self._held.pop(container, None)
        if service is not None:
            await self._tell(service, container, False)

    def forget(self, container: str) -> None:
        """Nothing leads to it any more."""
        self._look_away(container)
        self._held.pop(container, None)

    def let_go(self) -> None:
        """Leave it to the next ship process, which sees for itself."""
        self._held.clear()
        for container in list(self._looking):
            self._look_away(container)

    async def _look(self, container: Container, address: Address) -> None:
        ended = Deferred.fromCoroutine(self.runtime.exited(container))
        listening = Deferred.fromCoroutine(listens(self.reactor, address, PATIENCE))
        either: list[Deferred[Any]] = [listening, ended]
        await race(either)
        self._looking.pop(container.name, None)
        await self.end(container.name)

    def _look_away(self, container: str) -> None:
        looking = self._looking.pop(container, None)
        if looking is not None:
            looking.cancel()

    async def _tell(self, service: str, container: str, starting: bool) -> None:
        """A failure is logged: that a service starts matters more."""
        try:
            await self.traffic.hold(service, container, starting)
        except ProxyError as error:
            self._log.warn("{service}: {error}", service=service, error=error)
