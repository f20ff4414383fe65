"""The ship: what a deploy can ask of it, each step thin over the room that does the work."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from buildpacks.procfile import web_command
from containers.interface import Address, Container, Exit, Runtime
from containers.keep import keep
from containers.log import tail
from hooks.building import Workshop, start_mount
from hooks.check import Answered, check
from hooks.errors import DeployFailed, Refused, ShipError, Superseded
from hooks.layout import Layout
from hooks.ledger import Entry, Launch, Ledger, Serving
from hooks.naming import Release, pushed_refs
from hooks.orders import Orders
from hooks.push import Push
from hooks.queue import Queue
from hooks.repository import Git, Repository
from hooks.say import Say
from hooks.settings import Settings, git_address, route
from proxy.nginx import Proxy
from proxy.routes import Backend

LOG_LINES = 20  # of a service that failed, shown to who pushed it


@define(eq=False)
class Ship:
    """A host that receives code and runs it: its parts, and the steps of a deploy."""

    reactor: Any
    layout: Layout
    settings: Settings
    ledger: Ledger
    runtime: Runtime
    proxy: Proxy
    workshop: Workshop
    git: Git
    queue: Queue
    _keepers: dict[str, Deferred[None]] = field(factory=dict)
    _retiring: dict[str, Deferred[None]] = field(factory=dict)
    _log: Logger = Logger()

    def repository(self, name: str) -> Repository:
        return Repository(self.layout.repository(name), self.git)

    async def serving(self, service: str) -> Serving | None:
        return (await self.ledger.serving()).get(service)

    @asynccontextmanager
    async def berth(self, orders: Orders, say: Say) -> AsyncIterator[None]:
        """One at a time per service; who waits is told its place at each change."""

        def ahead(count: int) -> None:
            say.header(f"Waiting: {count} ahead")

        async with self.queue.berth(orders.service, ahead):
            yield

    async def admit(self, push: Push | None) -> None:
        """Refuse a push whose branch moved elsewhere while it waited, as git itself would."""
        if push is None:
            return
        repository = self.repository(push.repository)
        tip = await repository.tip(push.ref)
        if tip in (None, push.old, push.new) or await repository.contains(push.new, str(tip)):
            return
        raise Refused(
            f"{push.branch} moved to {str(tip)[:7]} while this push waited, and {push.new[:7]} "
            "does not contain it: git pull, then push again"
        )

    async def settle(self, push: Push | None) -> bool:
        """Move the pushed branch to what was deployed; nothing to do when it is there.

        False when git has to move it: the new ends of a shallow history are its own to register,
        and it insists on doing so.
        """
        if push is None:
            return True
        repository = self.repository(push.repository)
        tip = await repository.tip(push.ref)
        if tip == push.new:
            return True
        if not await repository.is_whole(push.new):
            await repository.point_head(push.ref)
            return False
        await repository.move(push.ref, push.new, tip)
        return True

    async def containerize(self, release: Release) -> Container:
        """An empty container for `release`. What an earlier try left under its name goes first."""
        name = str(release)
        if name in self._retiring:
            await _shared(self._retiring[name])
        if name in self.runtime.names():
            await self.runtime.destroy(Container(name, self.layout.containers / name))
        self.layout.require_room(self.settings.free_disk)
        return await self.runtime.containerize(name)

    async def build(self, container: Container, orders: Orders, say: Say) -> Launch:
        """Lay the source and let a buildpack make it runnable; how to start what came out."""
        await orders.repository.lay(orders.release.commit, container.app, self.layout.scratch)
        built = await self.workshop.build(container, orders, say)
        command = web_command(orders.processes, built)
        say.header(f"Starting web: {command}")
        argv = await self.workshop.ready(container, command, built)
        return Launch(argv, {**self._told(orders), **orders.environment})

    async def start(self, container: Container, launch: Launch) -> Address:
        return await self._start(container, launch, None)

    async def check(self, container: Container, address: Address, orders: Orders, say: Say) -> None:
        """Wait until the service answers well; `DeployFailed` says what it did instead."""
        ended: Deferred[Exit] = Deferred.fromCoroutine(self.runtime.exited(container))
        seconds = orders.check_seconds
        result = await check(self.reactor, address, orders.healthcheck, seconds, ended)
        asked = f"GET {orders.healthcheck or '/'}"
        if isinstance(result, Answered) and result.passed:
            how = (
                "" if orders.healthcheck else " (no HEALTHCHECK is set: anything below 500 will do)"
            )
            say.header(f"Healthy: {asked} answered {result.status}{how}")
            return
        log = tail(self.layout.service_log(container.name), LOG_LINES)
        details = (f"the last {len(log)} lines of its log:", *log) if log else ()
        if isinstance(result, Exit):
            raise DeployFailed(f"the service ended by itself ({ended_how(result)})", details)
        ports = self.runtime.listening(container)
        raise DeployFailed(unhealthy(asked, result, address.port, ports, seconds), details)

    async def publish(self, serving: Serving) -> None:
        """Traffic moves here, and only here."""
        await self.proxy.publish(route(self.settings, serving.service), backend(serving))

    async def put_back(self, service: str, before: Serving | None) -> None:
        """Let traffic go where it went before; a failure is logged, the first error counts."""
        try:
            if before is not None:
                await self.publish(before)
            else:
                await self.proxy.withdraw(service)
        except Exception:
            self._log.failure("the route of {service} was not put back", service=service)

    async def note(self, entry: Entry) -> None:
        """Write down a deploy that failed; a full disk must not hide the reason."""
        try:
            await self.ledger.note(entry)
        except Exception:
            self._log.failure("the ledger did not take the end of {release}", release=entry.release)

    async def discard(self, container: Container) -> None:
        """Remove a container that did not make it."""
        try:
            await self.runtime.destroy(container)
            self.layout.service_log(container.name).unlink(missing_ok=True)
        except Exception:
            self._log.failure("{name} could not be removed", name=container.name)

    def as_serving(self, orders: Orders, launch: Launch, address: Address) -> Serving:
        now = time.time()
        return Serving(
            release=orders.release,
            owner=orders.owner,
            branch=orders.branch,
            launch=launch,
            host=address.host,
            port=address.port,
            since=now,
            expires=now + orders.ttl if orders.ttl is not None else None,
        )

    def renewed(self, serving: Serving, orders: Orders) -> Serving:
        """`serving` with its time to live begun anew."""
        expires = time.time() + orders.ttl if orders.ttl is not None else None
        return evolve(serving, expires=expires)

    async def resume(self, serving: Serving) -> Serving:
        """Let `serving` serve again after the ship was away: adopted when it still runs, else
        started from its release, at the address it had if that is free. Nothing is built."""
        container = self.runtime.find(serving.container)
        if container is None:
            await self.forget(serving)
            raise ShipError(f"the container {serving.container} is gone; push it again")
        address = self.runtime.adopt(container)
        if address is None:
            had = Address(serving.host, serving.port)
            address = await self._start(container, serving.launch, had)
        self.watch_over(serving, container)
        return evolve(serving, host=address.host, port=address.port)

    def watch_over(self, serving: Serving, container: Container) -> None:
        """Start the service again whenever it ends, until it is retired."""

        async def restart() -> None:
            await self._start(container, serving.launch, Address(serving.host, serving.port))

        def on_exit(exit: Exit, delay: float) -> None:
            self._log.warn(
                "{service} ended ({how}), it is started again in {delay} s",
                service=serving.service,
                how=ended_how(exit),
                delay=delay,
            )

        keeper = keep(self.reactor, self.runtime, container, restart, on_exit=on_exit)
        watching: Deferred[None] = Deferred.fromCoroutine(keeper)
        watching.addErrback(lambda _: None)
        self._keepers[container.name] = watching

    def retire(self, serving: Serving) -> None:
        """Drain and remove what served before, beside whatever comes next."""
        name = serving.container

        def ended(result: object) -> None:
            self._retiring.pop(name, None)

        retiring: Deferred[None] = Deferred.fromCoroutine(self._drain_and_remove(serving))
        self._retiring[name] = retiring
        retiring.addBoth(ended)

    async def take_down(self, serving: Serving) -> None:
        """End a service: no entry, no route, then no container.

        Does nothing when it is not `serving` any more that serves, once no deploy is on.
        """
        with suppress(Superseded):  # a newer release replaces it instead
            async with self.queue.berth(serving.service, lambda _: None):
                if await self.serving(serving.service) == serving:
                    await self.forget(serving)
                    await self.proxy.withdraw(serving.service)
                    self.retire(serving)

    async def forget(self, serving: Serving) -> None:
        """`serving` is over. Its branch goes too, else git would not push its commit again."""
        await self.ledger.strike(serving.service)
        name, refs = pushed_refs(serving.service)
        for ref in refs:
            await self.repository(name).forget(ref)

    async def stand_down(self) -> None:
        """Stop what serves, all at once; the ledger keeps it, so the next start brings it back."""
        serving = (await self.ledger.serving()).values()
        await gatherResults([Deferred.fromCoroutine(self._stop(one)) for one in serving])

    async def _stop(self, serving: Serving) -> None:
        """A service that will not stop is logged and holds up nobody."""
        self._stop_watching(serving.container)
        container = self.runtime.find(serving.container)
        if container is None:
            return
        try:
            await self.runtime.stop(container, grace=self.settings.stop_grace)
        except Exception:
            self._log.failure("{name} did not stop", name=serving.container)

    async def _drain_and_remove(self, serving: Serving) -> None:
        self._stop_watching(serving.container)
        container = self.runtime.find(serving.container)
        if container is None:
            return
        try:
            await self.proxy.drain(serving.container, self.settings.drain_wait)
            await self.runtime.stop(container, grace=self.settings.stop_grace)
        except Exception:
            self._log.failure("{name} did not drain", name=serving.container)
        await self.discard(container)

    def _stop_watching(self, name: str) -> None:
        watching = self._keepers.pop(name, None)
        if watching is not None:
            watching.cancel()

    async def _start(self, container: Container, launch: Launch, had: Address | None) -> Address:
        return await self.runtime.start(
            container,
            launch.argv,
            env=launch.env,
            log=self.layout.service_log(container.name),
            limits=self.settings.service_limits,
            mounts=[start_mount(container)],
            address=had,
        )

    def _told(self, orders: Orders) -> Mapping[str, str]:
        """What a service may know about itself."""
        source = f"{git_address(self.settings)}/{orders.repository.path.stem}"
        return {
            "STARPHLEET_DEPLOY_TIME": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "STARPHLEET_DEPLOY_GITURL": f"{source}#{orders.release.commit}",
            "ORDERS_NAME": orders.service,
            "SHIP_NAME": self.settings.host,
        }


def backend(serving: Serving) -> Backend:
    return Backend(serving.container, serving.host, serving.port)


def ended_how(exit: Exit) -> str:
    """`exit status 3`, `signal 9`, or that nobody knows."""
    if exit.reason:
        return exit.reason
    if exit.status is not None:
        return f"exit status {exit.status}"
    return f"signal {exit.signal}" if exit.signal is not None else "nobody saw how"


def unhealthy(
    asked: str, answered: Answered, port: int, listening: list[int], seconds: float
) -> str:
    """Why a service that still runs is not healthy, in one line."""
    if answered.status is not None:
        return f"{asked} answered {answered.status} for {seconds:g} s"
    if port in listening:
        return f"the service listens on port {port} but did not answer {asked} within {seconds:g} s"
    ports = ", ".join(map(str, listening)) or "no port"
    return (
        f"nothing listened on $PORT ({port}) within {seconds:g} s; the service listens on {ports}"
    )


async def _shared(waited: Deferred[None]) -> None:
    """Wait for what others wait for too; its failure is theirs to tell."""
    mine: Deferred[None] = Deferred()

    def pass_on(result: Any) -> Any:
        mine.callback(None)
        return result

    waited.addBoth(pass_on)
    await mine
