"""Started services while this ship process looks after them: what is the same in every runtime."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from containers import marks, record, stopping
from containers.command import require
from containers.interface import Address, Container, ContainerError, Exit, Limits, Mount
from containers.marks import Marked, Runs
from containers.record import Record
from containers.watching import shielded


class Service:
    """Tells everyone who asked how the main command ended.

    `close` puts away what is left of it and says how it ended, which `over` is told first of all.
    """

    def __init__(
        self, known: Record, *, close: Callable[[], Awaitable[Exit]], over: Callable[[Exit], None]
    ) -> None:
        self.known = known
        self.stopping = False
        self._close = close
        self._over = over
        self._waiting: list[Deferred[Exit]] = []

    async def ended(self) -> Exit:
        """How it ended, once it has."""
        waiting: Deferred[Exit] = Deferred()
        self._waiting.append(waiting)
        try:
            return await waiting
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)

    def watch(self, gone: Awaitable[None]) -> None:
        """Finish it when it is `gone` by itself."""
        watched = Deferred.fromCoroutine(self._watch(gone))
        watched.addErrback(lambda failure: Logger().failure("watching a service", failure))

    async def finish(self) -> None:
        """Put away what is left of it and tell the exit."""
        self._tell(await self._close())

    def _tell(self, exit: Exit) -> None:
        self._over(exit)
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(exit)

    async def _watch(self, gone: Awaitable[None]) -> None:
        await gone
        # While it is being stopped, the rest of it still has its grace.
        if self.stopping:
            return
        try:
            await self.finish()
        except (OSError, ContainerError) as error:  # whoever keeps it running is to hear of it
            Logger().failure("what is left of a service was not put away")
            self._tell(Exit(reason=f"what was left of it was not put away: {error}"))


@define(eq=False)
class Services(ABC):
    """Those of the containers below `root`, whether this ship process started or adopted them.

    How one begins and what it leaves is each runtime's own.
    """

    reactor: Any
    root: Path
    runs: Runs
    _running: dict[str, Service] = field(init=False, factory=dict)
    _exits: dict[str, Exit] = field(init=False, factory=dict)
    _starting: dict[str, DeferredLock] = field(init=False, factory=dict)

    def names(self) -> set[str]:
        """Of the containers whose services are looked after."""
        return set(self._running)

    async def start(
        self,
        container: Container,
        argv: Sequence[str],
        env: Mapping[str, str],
        log: Path,
        limits: Limits,
        mounts: Sequence[Mount],
        address: Address | None,
    ) -> Address:
        """As `interface.Runtime` says, after whoever is starting it already."""
        starting = self._starting.setdefault(container.name, DeferredLock())
        async with starting:
            require(container, argv)
            if container.name in self._running:
                raise ContainerError(f"{container.name} is already running")
            try:
                return await self._start(container, argv, env, log, limits, mounts, address)
            except OSError as error:
                raise ContainerError(f"cannot start {container.name}: {error}") from error

    async def exited(self, container: Container) -> Exit:
        """As `interface.Runtime` says."""
        service = self._running.get(container.name)
        if service is not None:
            return await service.ended()
        return self._exits.get(container.name) or record.recorded_exit(container.directory)

    async def stop(self, container: Container, *, grace: float) -> None:
        """As `interface.Runtime` says, also one that nobody looks after."""
        await self._settled(container.name)
        service = self._running.get(container.name)
        known = service.known if service else record.read(container.directory)
        if known is None:
            return
        try:
            if service is not None and grace > 0:
                service.stopping = True
                await self._ask(container, known, grace)
        finally:
            try:
                await shielded(self._put_away(container, known.mark, service))
            except ContainerError:
                if service is not None:  # it lives: its end is still to be told
                    service.stopping = False
                raise

    async def clear(self, container: Container) -> None:
        """Kill all that is left in a container, of which nothing is to be known any more."""
        await self._settled(container.name)
        service = self._running.get(container.name)
        directory = container.directory
        await stopping.kill_all(self.reactor, lambda: marks.members_of_container(directory))
        await self._finish(container, service)
        self._exits.pop(container.name, None)
        self._starting.pop(container.name, None)

    async def sweep(self, keep: set[str]) -> None:
        """Kill what earlier ship processes ran in containers, but for the services of `keep`."""
        known = {name: record.read(self.root / name) for name in keep}
        services = {(self.root / name, one.mark) for name, one in known.items() if one}

        def unwanted(mark: Marked) -> bool:
            ours = mark.directory.parent == self.root and self.runs.are_earlier(mark.run)
            return ours and (mark.directory, mark.run) not in services

        await stopping.kill_all(self.reactor, lambda: marks.members(unwanted))

    def let_go(self) -> None:
        """Put away nothing of those that run: another ship process looks after them."""
        for service in self._running.values():
            service.stopping = True

    @abstractmethod
    async def _start(
        self,
        container: Container,
        argv: Sequence[str],
        env: Mapping[str, str],
        log: Path,
        limits: Limits,
        mounts: Sequence[Mount],
        address: Address | None,
    ) -> Address:
        """Begin one and look after it; of a failure nothing is left."""

    @abstractmethod
    async def _ask(self, container: Container, known: Record, grace: float) -> None:
        """TERM to all of a service, and wait until all of it has ended, at most `grace` seconds."""

    @abstractmethod
    async def _end(self, container: Container, run: str) -> None:
        """Kill what is left of a service."""

    async def _settled(self, name: str) -> None:
        """Wait until nobody is starting it."""
        starting = self._starting.get(name)
        if starting is not None:
            await starting.run(lambda: None)

    def _forget(self, container: Container) -> None:
        """Nothing is left of the service that was started."""
        record.forget(container.directory)

    def _look_after(
        self,
        container: Container,
        known: Record,
        *,
        gone: Awaitable[None],
        close: Callable[[], Awaitable[Exit]],
    ) -> None:
        name = container.name

        def over(exit: Exit) -> None:
            if self._running.get(name) is service:
                del self._running[name]
                self._exits[name] = exit

        self._exits.pop(name, None)
        service = self._running[name] = Service(known, close=close, over=over)
        service.watch(gone)

    async def _put_away(self, container: Container, run: str, service: Service | None) -> None:
        """End what is left of a service and forget that it was started."""
        await self._end(container, run)
        await self._finish(container, service)
        known = record.read(container.directory)
        if known is None or known.mark == run:  # else it was started again meanwhile
            self._forget(container)

    async def _finish(self, container: Container, service: Service | None) -> None:
        if service is not None and self._running.get(container.name) is service:
            await service.finish()
