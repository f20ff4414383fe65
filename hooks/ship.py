"""The ship: what a deploy can ask of it, each step thin over the room that does the work."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from attrs import define, evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from buildpacks.procfile import web_command
from containers.interface import Address, Container, Exit, Limits, Runtime, Wish
from containers.log import tail
from containers.watching import in_thread
from hooks.building import Workshop
from hooks.check import Answered, check, unhealthy
from hooks.errors import DeployFailed, Refused
from hooks.frontdoor import FrontDoor
from hooks.journal.journal import Journal
from hooks.layout import Layout
from hooks.ledger import Entry, Launch, Ledger, Serving
from hooks.limits import available_memory, over, require_memory
from hooks.orders import BASE, Orders
from hooks.push import Push
from hooks.queue import Queue
from hooks.repository import Git, Repository
from hooks.say import Say
from hooks.services import Services
from hooks.settings import Settings, git_address
from hooks.standing import UNPUBLISHED, File
from hooks.vitals import Vitals
from proxy.nginx import Proxy

IDLE = "sleep infinity"  # of a container that is there for its jobs alone
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
    door: FrontDoor
    vitals: Vitals
    journal: Journal
    log: Logger = Logger()

    def repository(self, name: str) -> Repository:
        return Repository(self.layout.repository(name), self.git)

    async def serving(self, service: str) -> Serving | None:
        return await self.ledger.now(service)

    @asynccontextmanager
    async def berth(self, orders: Orders, say: Say) -> AsyncIterator[None]:
        """One at a time per service; who waits is told its place at each change."""

        def ahead(count: int) -> None:
            why = f", and {self.queue.held}" if self.queue.held else ""
            say.header(f"Waiting: {count} ahead{why}")

        memory = self._limits(orders).memory or 0
        async with self.queue.berth(orders.service, ahead, memory=memory):
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

    async def containerize(self, orders: Orders, say: Say) -> Container:
        """An empty container for `orders`, with the files beside them if they are standing ones.

        What an earlier try left under its name goes first.
        """
        name = str(orders.release)
        self._require_open(orders)
        await self.services.retiring.gone(name)
        if name in self.runtime.names():
            await self.runtime.destroy(Container(name, self.layout.containers / name))
        limits = self._limits(orders)
        self.layout.require_room(self.settings.free_disk + (limits.disk or 0))
        require_memory(limits.memory, available_memory())
        container = await self.runtime.containerize(name, self._wish(orders), say.header)
        self.journal.follow(name, orders.service)
        if orders.standing is not None:
            beside = self.layout.beside(name)
            await in_thread(self.reactor, lay_beside, beside, orders.standing.files)
            await in_thread(self.reactor, self.runtime.own, container, [beside])
        return container

    def _limits(self, orders: Orders) -> Limits:
        return over(self.settings.service_limits, orders.limits)

    def _wish(self, orders: Orders) -> Wish:
        limits = self._limits(orders)
        base, ordered = orders.environment.get(BASE, ""), orders.standing is not None
        return Wish(base, orders.bases, ordered, limits.cpus, limits.disk)

    def _require_open(self, orders: Orders) -> None:
        """`Refused` for a port that the ship itself has on its host, or a directory of users that
        nobody knows."""
        own = {self.settings.http_port, self.settings.https_port, self.settings.ssh_port}
        front = orders.front
        wanted = {f"expose {port}": port for port in front.exposed}
        wanted |= {f"PUBLISH_PORT={front.published}": port for port in [front.published] if port}
        for asked, port in wanted.items():
            if port in own:
                raise Refused(f"{orders.service}: {asked}: port {port} is the ship's own")
        server = front.protection.ldap
        if server and server not in self.door.commons.ldap_servers:
            raise Refused(
                f"{orders.service}: LDAP_SERVER: the headquarters has no ldap_servers/{server}"
            )

    async def make_way(self, orders: Orders, before: Serving | None) -> None:
        """Stop what serves before the new version is built, if the orders want it so."""
        if before is not None and _gives_way(before, orders):
            await self.services.halt(before)

    async def give_way(self, orders: Orders, before: Serving | None) -> None:
        """Let what was stopped for a version that failed serve again; a failure is logged, the
        first error counts."""
        if before is not None and _gives_way(before, orders):
            try:
                await self.services.wake(before)
            except Exception:
                self.log.failure("{service} does not serve again", service=before.service)

    async def build(self, container: Container, orders: Orders, say: Say) -> Launch:
        """Lay the source and let a buildpack make it runnable; how to start what came out."""
        built = await self.workshop.build(container, orders, say)
        command = web_command(orders.processes, built) if orders.has_source else IDLE
        say.header(f"Starting web: {command}" if orders.has_source else "Nothing to start but jobs")
        if others := ", ".join(name for name in orders.processes if name != "web"):
            say.header(f"The Procfile's other processes are not started: {others}")
        standing = orders.standing
        argv = await self.workshop.ready(
            container, command, built, standing.jobs if standing else ()
        )
        environment = {**self._told(orders), **orders.environment}
        working = str(orders.working.path) if orders.working else ""
        linked = orders.linked is not None
        return Launch(argv, environment, standing is not None, orders.limits, working, linked)

    async def start(self, container: Container, launch: Launch) -> Address:
        return await self.services.keeping.start(container, launch)

    async def check(self, container: Container, address: Address, orders: Orders, say: Say) -> None:
        """Wait until the service answers well; `DeployFailed` says what it did instead.

        What is unpublished need not answer anybody, unless its orders say which path to check.
        """
        if orders.healthcheck is None and orders.place == UNPUBLISHED:
            return
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
            raise DeployFailed(f"the service ended by itself ({result.how})", details)
        raise DeployFailed(unhealthy(asked, result, address.port, ports, seconds), details)

    async def put_back(self, service: str) -> None:
        """Let traffic go to what serves; a failure is logged, the first error counts."""
        try:
            if (before := await self.serving(service)) is not None:
                await self.services.leading.publish(before)
            else:
                await self.proxy.withdraw(service)
                await self.services.leading.open_ports({service: None})
        except Exception:
            self.log.failure("the route of {service} was not put back", service=service)

    async def note(self, entry: Entry) -> None:
        """Write down a deploy that failed; a full disk must not hide the reason."""
        try:
            await self.ledger.note(entry)
        except Exception:
            self.log.failure("the ledger did not take the end of {release}", release=entry.release)

    def as_serving(self, orders: Orders, launch: Launch, address: Address) -> Serving:
        now = time.time()
        standing = orders.standing
        return Serving(
            release=orders.release,
            owner=orders.owner,
            branch=orders.branch,
            launch=launch,
            host=address.host,
            port=address.port,
            since=now,
            expires=now + orders.ttl if orders.ttl is not None else None,
            place=orders.place,
            standing=standing.identity if standing else "",
            jobs=standing.jobs if standing else (),
            watch=orders.watch,
            front=orders.front,
        )

    def renewed(self, serving: Serving, orders: Orders) -> Serving:
        """`serving` with its time to live begun anew, and as what orders it now, if it was none or
        was stopped."""
        expires = time.time() + orders.ttl if orders.ttl is not None else None
        renewed = evolve(serving, expires=expires, place=orders.place, front=orders.front)
        return evolve(renewed, orphaned=False, stopped=False)

    def _told(self, orders: Orders) -> Mapping[str, str]:
        """What a service may know about itself."""
        told = {
            "STARPHLEET_DEPLOY_TIME": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "ORDERS_NAME": orders.service.lstrip("/"),
            "SHIP_NAME": self.settings.ship_name or self.settings.host,
        }
        if orders.repository is not None:
            source = f"{git_address(self.settings)}/{orders.repository.path.stem}"
            if orders.standing is not None and orders.standing.source is not None:
                source = orders.standing.source.url
            told["STARPHLEET_DEPLOY_GITURL"] = f"{source}#{orders.release.commit}"
        if orders.working is not None and orders.standing is not None:
            told["STARPHLEET_DEPLOY_GITURL"] = str(orders.standing.source)
        return told


def lay_beside(directory: Path, files: Mapping[str, File]) -> None:
    """Write the files beside the orders of a service into `directory`. Blocks."""
    directory.mkdir()
    for name, file in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.data)
        path.chmod(0o500 if file.executable else 0o400)


def _gives_way(before: Serving, orders: Orders) -> bool:
    """Whether it may not run beside the version that is to come; it does not where somebody
    stopped it."""
    return not before.stopped and orders.standing is not None and orders.standing.stop_first
