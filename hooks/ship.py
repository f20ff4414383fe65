"""The ship: what a deploy can ask of it, each step thin over the room that does the work."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from attrs import define, evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from buildpacks.procfile import web_command
from containers.interface import Address, Container, Exit, Runtime
from containers.log import tail
from containers.watching import in_thread
from hooks.building import Workshop
from hooks.check import Answered, check
from hooks.errors import DeployFailed, Refused
from hooks.layout import Layout
from hooks.ledger import Entry, Launch, Ledger, Serving
from hooks.naming import Release
from hooks.orders import Orders
from hooks.push import Push
from hooks.queue import Queue
from hooks.repository import Git, Repository
from hooks.say import Say
from hooks.services import Services, ended_how
from hooks.settings import Settings, git_address
from proxy.nginx import Proxy

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
    services: Services
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
        """Refuse a push whose branch moved elsewhere while it waited, or cannot be beside those
        that are there, as git itself would.
        """
        if push is None:
            return
        repository = self.repository(push.repository)
        tip = await repository.tip(push.ref)
        if tip is None and (other := await repository.clashing(push.ref)):
            raise Refused(
                f"git has no branch {ascii(push.branch)[1:-1]} beside {ascii(other)[12:-1]}: "
                "push it under another name, git push ship BRANCH:refs/heads/OTHER"
            )
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
        await self.services.gone(name)
        if name in self.runtime.names():
            await self.runtime.destroy(Container(name, self.layout.containers / name))
        self.layout.require_room(self.settings.free_disk)
        return await self.runtime.containerize(name)

    async def build(self, container: Container, orders: Orders, say: Say) -> Launch:
        """Lay the source and let a buildpack make it runnable; how to start what came out."""
        built = await self.workshop.build(container, orders, say)
        command = web_command(orders.processes, built)
        say.header(f"Starting web: {command}")
        argv = await self.workshop.ready(container, command, built)
        return Launch(argv, {**self._told(orders), **orders.environment})

    async def start(self, container: Container, launch: Launch) -> Address:
        return await self.services.start(container, launch)

    async def check(self, container: Container, address: Address, orders: Orders, say: Say) -> None:
        """Wait until the service answers well; `DeployFailed` says what it did instead."""
        ended: Deferred[Exit] = Deferred.fromCoroutine(self.runtime.exited(container))
        seconds = orders.check_seconds
        result = await check(self.reactor, address, orders.healthcheck, seconds, ended)
        asked = f"GET {orders.healthcheck or '/'}"
        ports = await in_thread(self.reactor, self.runtime.listening, container)
        if isinstance(result, Answered) and result.passed and address.port in ports:
            how = (
                "" if orders.healthcheck else " (no HEALTHCHECK is set: anything below 500 will do)"
            )
            say.header(f"Healthy: {asked} answered {result.status}{how}")
            return
        log = tail(self.layout.service_log(container.name), LOG_LINES)
        details = (f"the last {len(log)} lines of its log:", *log) if log else ()
        if isinstance(result, Exit):
            raise DeployFailed(f"the service ended by itself ({ended_how(result)})", details)
        raise DeployFailed(unhealthy(asked, result, address.port, ports, seconds), details)

    async def publish(self, serving: Serving) -> None:
        """Traffic moves here, and only here."""
        await self.services.publish(serving)

    async def put_back(self, service: str, before: Serving | None) -> None:
        """Let traffic go where it went before; a failure is logged, the first error counts."""
        try:
            if before is not None:
                await self.services.publish(before)
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

    def _told(self, orders: Orders) -> Mapping[str, str]:
        """What a service may know about itself."""
        source = f"{git_address(self.settings)}/{orders.repository.path.stem}"
        return {
            "STARPHLEET_DEPLOY_TIME": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "STARPHLEET_DEPLOY_GITURL": f"{source}#{orders.release.commit}",
            "ORDERS_NAME": orders.service,
            "SHIP_NAME": self.settings.host,
        }


def unhealthy(
    asked: str, answered: Answered, port: int, listening: list[int], seconds: float
) -> str:
    """Why a service that still runs is not healthy, in one line."""
    if answered.passed:
        return f"something else on this host answers on $PORT ({port}): push again"
    if answered.status is not None:
        return f"{asked} answered {answered.status} for {seconds:g} s"
    if port in listening:
        return f"the service listens on port {port} but did not answer {asked} within {seconds:g} s"
    ports = ", ".join(map(str, listening)) or "no port"
    return (
        f"nothing listened on $PORT ({port}) within {seconds:g} s; the service listens on {ports}"
    )
