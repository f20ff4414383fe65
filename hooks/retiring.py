"""How what served before goes: it drains and ends, beside whatever comes next."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from containers.interface import Container, Runtime
from hooks.attendance import Attendance
from hooks.journal.journal import Journal
from hooks.layout import Layout
from hooks.settings import Settings
from proxy.traffic import Traffic


@define(eq=False)
class Retiring:
    """What is about to go, by the name of its container."""

    layout: Layout
    settings: Settings
    runtime: Runtime
    traffic: Traffic
    attendance: Attendance
    journal: Journal
    _going: dict[str, Deferred[None]] = field(factory=dict)
    _log: Logger = Logger()

    def begin(self, container: Container) -> None:
        """Let what `container` has open end, stop it and remove it; nobody has to wait."""
        name = container.name

        def ended(result: object) -> None:
            self._going.pop(name, None)

        going: Deferred[None] = Deferred.fromCoroutine(self._drain_and_remove(container))
        self._going[name] = going
        going.addBoth(ended)

    def __bool__(self) -> bool:
        return bool(self._going)

    async def gone(self, name: str) -> None:
        """Wait until the container `name` is gone, if it is about to be."""
        going = self._going.get(name)
        if going is not None:
            waiting: Deferred[None] = Deferred()
            going.addBoth(lambda _: waiting.callback(None))
            await waiting

    async def all_gone(self) -> None:
        """Wait until nothing is about to go."""
        while self._going:
            await self.gone(next(iter(self._going)))

    async def hurry(self) -> None:
        """Cut off what still drains, and wait until it is gone."""
        for name, going in list(self._going.items()):
            going.cancel()
            await self.gone(name)

    async def discard(self, container: Container) -> None:
        """Remove a container and its log; a failure is logged."""
        try:
            await self.runtime.destroy(container)
            await self.journal.end(container.name)
            self.layout.service_log(container.name).unlink(missing_ok=True)
        except Exception:
            self._log.failure("{name} could not be removed", name=container.name)

    async def _drain_and_remove(self, container: Container) -> None:
        try:
            await self.traffic.drain(container.name, self.settings.drain_wait)
            await self.runtime.stop(container, grace=self.settings.stop_grace)
        except Exception:
            self._log.failure("{name} did not drain", name=container.name)
        self.attendance.leave(container.name)
        await self.discard(container)
