"""What serves: how it is brought back, what people do to it, and how it ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    suppress,
)

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from containers.interface import Container, ContainerError, Runtime
from hooks.attendance import Attendance
from hooks.errors import ShipError, Superseded
from hooks.holding import Holding
from hooks.keeping import Keeping
from hooks.layout import Layout
from hooks.leading import Leading
from hooks.ledger import Ledger, Serving
from hooks.naming import pushed_refs
from hooks.queue import Queue
from hooks.repository import Git, Repository
from hooks.retiring import Retiring
from hooks.settings import Settings
from proxy.nginx import Proxy

RESTART_WAIT = 2.0  # seconds that open requests are given when somebody restarts it


@define(eq=False)
class Services:
    """The services of a ship, from the moment they are started until nothing is left of them."""

    layout: Layout
    settings: Settings
    ledger: Ledger
    runtime: Runtime
    proxy: Proxy
    git: Git
    queue: Queue
    attendance: Attendance
    holding: Holding
    leading: Leading
    keeping: Keeping
    retiring: Retiring
    _visits: Counter[str] = field(factory=Counter)
    _log: Logger = Logger()

    @contextmanager
    def visited(self, container: str) -> Iterator[None]:
        """Somebody runs something beside the service in `container`: it is not idle."""
        self._visits[container] += 1
        try:
            yield
        finally:
            self._visits[container] -= 1
            self._visits += Counter()  # forgets what has none

    def is_visited(self, container: str) -> bool:
        return self._visits[container] > 0

    async def resume(self, serving: Serving) -> None:
        """Let `serving` serve again after the ship was away: adopted when it still runs, else
        started from its container. Nothing is built. `ShipError` when the container is gone."""
        container = self.runtime.find(serving.container)
        if container is None:
            await self.forget(serving)
            await self.proxy.withdraw(serving.service)
            raise ShipError(f"the container {serving.container} is gone; it has to be built again")
        if serving.stopped:
            return
        try:
            if self.runtime.adopt(container) is None:
                await self.keeping.start_again(serving, container)
        finally:
            self.keeping.watch_over(serving, container)

    def retire(self, serving: Serving) -> None:
        """Let what served before drain and go, beside whatever comes next."""
        self.keeping.stop_watching(serving.container)
        self.holding.forget(serving.container)
        container = self.runtime.find(serving.container)
        if container is not None:
            self.retiring.begin(container)

    async def take_down(self, serving: Serving) -> None:
        """End a service: no entry, no route, then no container.

        Does nothing when it is not `serving` any more that serves, once no deploy is on.
        """
        with suppress(Superseded):  # a newer release replaces it instead
            async with self._light_berth(serving.service):
                if await self.ledger.now(serving.service) == serving:
                    await self.forget(serving)
                    try:
                        await self.proxy.withdraw(serving.service)
                        await self.leading.open_ports({})
                    finally:  # nobody knows of it any more
                        self.retire(serving)

    async def orphan(self, service: str, unwanted: Callable[[], bool]) -> None:
        """The orders of `service` are gone: its route goes at once, its container stays.

        Unless it is not `unwanted` any more, once no deploy of it is on.
        """
        with suppress(Superseded):  # a newer release is wanted instead
            async with self._light_berth(service):
                now = await self.ledger.now(service)
                if now is None or now.place is None or now.orphaned or not unwanted():
                    return
                orphan = evolve(now, orphaned=True)
                await self.ledger.keep(orphan)
                await self.leading.publish(orphan)
                self.keeping.attend(orphan)

    async def halt(self, serving: Serving) -> None:
        """Stop what serves; its route says that it is not running. `wake` undoes it."""
        self.keeping.stop_watching(serving.container)
        self.attendance.leave(serving.container)
        await self.holding.end(serving.container)
        container = self.runtime.find(serving.container)
        if container is not None:
            await self.runtime.stop(container, grace=self.settings.stop_grace)

    async def wake(self, serving: Serving) -> None:
        """Start what `halt` stopped."""
        container = self._container(serving)
        try:
            await self.keeping.start_again(serving, container)
        finally:
            self.keeping.watch_over(serving, container)

    async def put_to_rest(self, service: str) -> None:
        """Stop the service until somebody starts it; a ship that starts leaves it so."""
        async with self._alone(service) as serving:
            stopped = evolve(serving, stopped=True)
            await self.ledger.keep(stopped)
            await self.leading.publish(stopped)
            await self.halt(serving)

    async def rouse(self, service: str) -> None:
        """Start the service again that was put to rest."""
        async with self._alone(service) as serving:
            if serving.stopped:
                await self._rouse(serving)

    async def restart(self, service: str) -> None:
        """Stop the service and start it from its container. Requests wait meanwhile; those that it
        has are given a moment to end. One that was put to rest is roused."""
        async with self._alone(service) as serving:
            if serving.stopped:
                await self._rouse(serving)
            else:
                await self._restart(serving)

    async def _rouse(self, serving: Serving) -> None:
        awake = evolve(serving, stopped=False)
        await self.leading.publish(awake)
        await self.ledger.keep(awake)
        await self.wake(awake)

    async def _restart(self, serving: Serving) -> None:
        container = self._container(serving)
        self.keeping.stop_watching(container.name)
        self.attendance.leave(container.name)
        try:
            async with self.holding.until_started(serving.service, container):
                await self.proxy.traffic.drain(container.name, RESTART_WAIT)
                await self.runtime.stop(container, grace=self.settings.stop_grace)
                await self.keeping.start_again(serving, container)
        finally:
            self.keeping.watch_over(serving, container)

    async def forget(self, serving: Serving) -> None:
        """`serving` is over. The branch of a pushed one goes too, else git would not push its
        commit again.
        """
        await self.ledger.strike(serving.service)
        self.keeping.restarts.pop(serving.service, None)
        if serving.place is not None:
            self.layout.looked(serving.service).unlink(missing_ok=True)
            return
        name, refs = pushed_refs(serving.service)
        for ref in refs:
            await Repository(self.layout.repository(name), self.git).forget(ref)

    def let_go(self) -> None:
        """Let what serves go on without us, for another ship process to look after."""
        self.keeping.let_go()
        self.runtime.let_go()

    async def stand_down(self) -> None:
        """Stop what serves, all at once; the ledger keeps it, so the next start brings it back."""
        serving = (await self.ledger.serving()).values()
        await gatherResults([Deferred.fromCoroutine(self._stop(one)) for one in serving])
        await self.retiring.hurry()
        await self.runtime.leave()

    def _container(self, serving: Serving) -> Container:
        container = self.runtime.find(serving.container)
        if container is None:
            raise ShipError(f"the container of {serving.service} is gone; it has to be built again")
        return container

    async def _stop(self, serving: Serving) -> None:
        """A service that will not stop is logged and holds up nobody."""
        self.keeping.stop_watching(serving.container)
        self.attendance.leave(serving.container)
        container = self.runtime.find(serving.container)
        if container is None:
            return
        try:
            await self.runtime.stop(container, grace=self.settings.stop_grace)
        except ContainerError:
            self._log.failure("{name} did not stop", name=serving.container)

    @asynccontextmanager
    async def _alone(self, service: str) -> AsyncIterator[Serving]:
        """What serves as `service` once no deploy of it is on; none begins meanwhile."""
        async with self._light_berth(service):
            serving = await self.ledger.now(service)
            if serving is None:
                raise ShipError(f"{service} serves no more")
            yield serving

    def _light_berth(self, service: str) -> AbstractAsyncContextManager[None]:
        """For what needs the service to itself, but no place among the deploys."""
        return self.queue.berth(service, lambda _: None, light=True)
