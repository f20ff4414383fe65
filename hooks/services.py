"""What serves: how it is started, watched, brought back, and how it ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.logger import Logger

from containers.interface import Address, Container, ContainerError, Exit, Runtime
from containers.keep import keep
from hooks.attendance import Attendance
from hooks.errors import ShipError, Superseded
from hooks.holding import Holding
from hooks.journal.journal import Journal
from hooks.layout import Layout
from hooks.ledger import Launch, Ledger, Serving
from hooks.limits import over
from hooks.mounts import mounts
from hooks.naming import pushed_refs
from hooks.queue import Queue
from hooks.repository import Git, Repository
from hooks.retiring import Retiring
from hooks.settings import Settings, route
from proxy.nginx import Proxy
from proxy.routes import Backend

SOON = 1.0  # seconds that requests for a service that ended wait for its next start
RESTART_WAIT = 2.0  # seconds that open requests are given when somebody restarts it


@define(eq=False)
class Services:
    """The services of a ship, from the moment they are started until nothing is left of them."""

    reactor: Any
    layout: Layout
    settings: Settings
    ledger: Ledger
    runtime: Runtime
    proxy: Proxy
    git: Git
    queue: Queue
    attendance: Attendance
    journal: Journal
    holding: Holding
    retiring: Retiring
    _keepers: dict[str, Deferred[None]] = field(factory=dict)
    ended: dict[str, str] = field(factory=dict)
    """Why the service in a container ended by itself, until it is started again."""
    restarts: Counter[str] = field(factory=Counter)
    """How often each service ended by itself since this ship started."""
    _visits: Counter[str] = field(factory=Counter)
    _log: Logger = Logger()

    async def start(
        self, container: Container, launch: Launch, had: Address | None = None
    ) -> Address:
        """Start what `launch` says, at the address it `had` if that is free."""
        return await self.runtime.start(
            container,
            launch.argv,
            env=launch.env,
            log=self.layout.service_log(container.name),
            limits=over(self.settings.service_limits, launch.limits),
            mounts=mounts(self.layout, container, launch),
            address=had,
        )

    async def publish(self, serving: Serving) -> None:
        """Send the traffic of the service to `serving`; none, if it is unpublished."""
        leading = route(self.settings, serving.service, serving.place, serving.front)
        if leading is not None and not serving.orphaned:
            starting = self.holding.holds(serving.container)
            leads = evolve(backend(serving), starting=starting)
            await self.proxy.publish(leading, leads, serving.front.protection)
        else:
            await self.proxy.withdraw(serving.service)
        await self.open_ports({serving.service: serving})

    async def open_ports(self, instead: Mapping[str, Serving | None]) -> None:
        """Lead the ports that orders expose to what serves: by the ledger, or `instead`."""
        now = {**(await self.ledger.serving()), **instead}
        await self.runtime.expose(
            {
                port: Address(one.host, port)
                for one in now.values()
                if one is not None and not one.orphaned and not one.stopped
                for port in one.front.exposed
            }
        )

    def watch_over(self, serving: Serving, container: Container) -> None:
        """Start the service again whenever it ends, until it is retired. Its jobs begin."""

        async def restart() -> None:
            try:
                await self._start_again(serving, container)
            except (CancelledError, ContainerError):
                raise
            except Exception as error:  # nginx or the disk: that must not be the last try
                raise ContainerError(f"cannot start {container.name}: {error}") from error

        def on_exit(exit: Exit, delay: float) -> None:
            self.ended[container.name] = exit.how
            self.restarts[serving.service] += 1
            if delay <= SOON:
                Deferred.fromCoroutine(self.holding.begin(serving.service, container))
            self._log.warn(
                "{service} ended ({how}), it is started again in {delay} s",
                service=serving.service,
                how=exit.how,
                delay=delay,
            )

        keeper = keep(self.reactor, self.runtime, container, restart, on_exit=on_exit)
        watching: Deferred[None] = Deferred.fromCoroutine(keeper)
        watching.addErrback(lambda _: None)  # it is cancelled when the service is over
        self._keepers[container.name] = watching
        jobs = [job.name for job in serving.jobs]
        self.journal.follow(container.name, serving.service, jobs)
        self.attend(serving)

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

    def attend(self, serving: Serving) -> None:
        """Run the jobs and the watchdog of what serves now; those of an orphan rest."""
        if serving.orphaned or serving.stopped:
            self.attendance.leave(serving.container)
        else:
            self.attendance.attend(serving)

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
                await self._start_again(serving, container)
        finally:
            self.watch_over(serving, container)

    def retire(self, serving: Serving) -> None:
        """Let what served before drain and go, beside whatever comes next."""
        self._stop_watching(serving.container)
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
                        await self.open_ports({})
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
                await self.publish(orphan)
                self.attend(orphan)

    async def halt(self, serving: Serving) -> None:
        """Stop what serves; its route says that it is not running. `wake` undoes it."""
        self._stop_watching(serving.container)
        self.attendance.leave(serving.container)
        await self.holding.end(serving.container)
        container = self.runtime.find(serving.container)
        if container is not None:
            await self.runtime.stop(container, grace=self.settings.stop_grace)

    async def wake(self, serving: Serving) -> None:
        """Start what `halt` stopped."""
        container = self._container(serving)
        try:
            await self._start_again(serving, container)
        finally:
            self.watch_over(serving, container)

    async def put_to_rest(self, service: str) -> None:
        """Stop the service until somebody starts it; a ship that starts leaves it so."""
        async with self._alone(service) as serving:
            stopped = evolve(serving, stopped=True)
            await self.ledger.keep(stopped)
            await self.publish(stopped)
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
        await self.publish(awake)
        await self.ledger.keep(awake)
        await self.wake(awake)

    async def _restart(self, serving: Serving) -> None:
        container = self._container(serving)
        self._stop_watching(container.name)
        self.attendance.leave(container.name)
        try:
            async with self.holding.until_started(serving.service, container):
                await self.proxy.traffic.drain(container.name, RESTART_WAIT)
                await self.runtime.stop(container, grace=self.settings.stop_grace)
                await self._start_again(serving, container)
        finally:
            self.watch_over(serving, container)

    async def forget(self, serving: Serving) -> None:
        """`serving` is over. The branch of a pushed one goes too, else git would not push its
        commit again.
        """
        await self.ledger.strike(serving.service)
        self.restarts.pop(serving.service, None)
        if serving.place is not None:
            self.layout.looked(serving.service).unlink(missing_ok=True)
            return
        name, refs = pushed_refs(serving.service)
        for ref in refs:
            await Repository(self.layout.repository(name), self.git).forget(ref)

    def let_go(self) -> None:
        """Let what serves go on without us, for another ship process to look after."""
        for name in list(self._keepers):
            self._stop_watching(name)
        self.holding.let_go()
        self.runtime.let_go()

    async def stand_down(self) -> None:
        """Stop what serves, all at once; the ledger keeps it, so the next start brings it back."""
        serving = (await self.ledger.serving()).values()
        await gatherResults([Deferred.fromCoroutine(self._stop(one)) for one in serving])
        await self.retiring.hurry()
        await self.runtime.leave()

    async def _start_again(self, serving: Serving, container: Container) -> None:
        """Start `serving` once more; requests wait until it listens."""
        async with self.holding.until_started(serving.service, container):
            had = await self.ledger.now(serving.service) or serving
            address = await self.start(container, serving.launch, Address(had.host, had.port))
            self.attendance.begun(container.name)
            self.ended.pop(container.name, None)
            await self._lead_to(serving, address)
        self.holding.end_when_it_listens(container, address)

    async def _lead_to(self, serving: Serving, address: Address) -> None:
        """Let the traffic of `serving` follow it, if its port was taken and it serves yet."""
        now = await self.ledger.now(serving.service)
        if now is not None and now.release == serving.release:
            moved = evolve(now, host=address.host, port=address.port)
            if moved != now:
                await self.publish(moved)
                await self.ledger.keep(moved)

    def _container(self, serving: Serving) -> Container:
        container = self.runtime.find(serving.container)
        if container is None:
            raise ShipError(f"the container of {serving.service} is gone; it has to be built again")
        return container

    async def _stop(self, serving: Serving) -> None:
        """A service that will not stop is logged and holds up nobody."""
        self._stop_watching(serving.container)
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

    def _stop_watching(self, name: str) -> None:
        self.attendance.rest(name)
        self.ended.pop(name, None)
        watching = self._keepers.pop(name, None)
        if watching is not None:
            watching.cancel()


def backend(serving: Serving) -> Backend:
    """Where the traffic of `serving` goes, and whether each request has to be looked at before."""
    asks, stopped = serving.front.protection.asks, serving.stopped
    return Backend(serving.container, serving.host, serving.port, guarded=asks, stopped=stopped)
