"""The one interface of this room: how the world reaches a service, and where that leads."""

from __future__ import annotations

import os
import resource
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from attrs import evolve
from twisted.internet.defer import DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxy import operators
from proxy.certificates import Certificate
from proxy.changes import (
    RENEWAL,
    Change,
    Refusals,
    adding,
    certifying,
    hidden,
    laying,
    removing,
    signing,
)
from proxy.control import ControlError
from proxy.distribution import SYSTEM_PATHS, Run, find_distribution, worker_user
from proxy.engine import Engine, Patience
from proxy.guard.keeper import Keeper
from proxy.guard.private import LINK
from proxy.guarding import Guarding
from proxy.protection import Commons, Crew, Protection
from proxy.render import Instance
from proxy.reshape import Reshaping
from proxy.routes import CONTAINER, Backend, ProxyError, Route, matches
from proxy.table import Entry, Table, entry

LOOK = 60.0  # seconds between two looks at the log; a run that lasted longer was a good one
FIRST_PAUSE = 0.25  # seconds before the second start in a row, doubling
LONGEST_PAUSE = 30.0


def _open_files() -> int:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)


class Proxy:
    """An nginx of the ship's own under `prefix`, which it alone uses.

    It runs detached: it goes on serving when the ship dies, and the next `start` adopts it.
    `run` starts a program, `search` is the PATH on which nginx is looked for. An app may send
    nothing for `silence` seconds; so long do old workers keep their streams after a reload, too.
    `operator` is a directory of `*.conf` for nginx's http; what nginx does not take of it stays as
    it was. For the other options see `Instance`.
    Every method raises `ProxyError`: one line for a person, and what served before serves on.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        prefix: Path,
        *,
        http_port: int,
        run: Run,
        https_port: int | None = None,
        https_redirect: bool = False,
        hsts: int = 0,
        operator: Path | None = None,
        bind: str = "0.0.0.0",  # noqa: S104
        ship: str = "localhost",
        reached: str = "ssh git@ship",
        own_host: str = "",
        proxies: tuple[str, ...] = (),
        silence: int = 3600,
        workers: int | None = None,
        patience: Patience | None = None,
        search: str = SYSTEM_PATHS,
    ) -> None:
        self._reactor = reactor
        self._run = run
        self._search = search
        self._patience = patience or Patience()
        # The modules' place is learnt at the start; all else is refused here when it is wrong.
        self._instance = Instance(
            prefix=prefix.resolve(),
            modules=Path("/modules"),
            ship=ship,
            bind=bind,
            port=http_port,
            worker_user=worker_user(os.geteuid()),
            workers=workers or min(8, os.cpu_count() or 1),
            files=_open_files(),
            patience=silence,
            https_port=https_port,
            https_redirect=https_redirect,
            hsts=hsts,
            reached=reached,
            own_host=own_host,
            proxies=proxies,
        )
        self._operator = operator
        self._table = Table(self._instance.prefix / "backends")
        self._offline = self._instance.prefix / "offline"
        worker = self._instance.worker_user
        keeper = Keeper(reactor, self._instance.prefix, run, worker.name if worker else "")
        self._guarding = Guarding(reactor, self._instance.prefix, keeper)
        self._telling = DeferredLock()
        self._started: tuple[Engine, Reshaping] | None = None
        self._log = Logger()

    @property
    def hooks(self) -> Path:
        """The unix socket to which what is below /starphleet/hooks/ is led, without that."""
        return self._instance.hooks

    @property
    def pages(self) -> Path:
        """The unix socket to which the ship's own pages are led, for its workers to open."""
        return self._instance.prefix / "pages" / "socket"

    @property
    def wake(self) -> Path:
        """The unix socket on which nginx asks for a service to be woken: its name in a line."""
        return self._instance.hooks.with_name("wake")

    @property
    def reloads(self) -> int:
        """How often nginx was given another configuration since this ship started."""
        return self._started[0].switches if self._started else 0

    @property
    def challenges(self) -> Path:
        """The directory whose files answer at `/.well-known/acme-challenge/`, for anybody."""
        return self._instance.prefix / "challenges"

    async def start(
        self,
        table: Mapping[Route, tuple[Backend, Protection]],
        commons: Commons | None = None,
        certificates: Mapping[str, Certificate] | None = None,
    ) -> Refusals:
        """Serve exactly `table`: adopt the nginx that runs here, else start one.

        Nothing is reloaded that is right already. Returns why for each service whose route could
        not be had (normally none), and so on; all others are served.
        """
        found = await find_distribution(self._run, self._search)
        instance = evolve(self._instance, modules=found.modules)
        engine = Engine(self._reactor, instance, found.nginx, self._run, self._patience)
        engine.prepare()
        reshaping = Reshaping(self._reactor, instance, engine, self._patience.apart)
        shared = commons or Commons()
        entries = {route.service: entry(*led) for route, led in table.items()}
        await self._guarding.begin({s: e.protection for s, e in entries.items()}, shared)
        self._table.begin(entries)
        changes, refused = self._common_changes(shared, certificates or {})
        refused |= await self._attended()
        running = await engine.serving()
        if running is not None:
            await self._table.align(engine.control, patiently=True)
        last = engine.generations.read(engine.generations.current, "operator")
        kept = [laying(name, text) for name, text in last.items()]
        laid, not_read = operators.changes(self._operator, last)
        begun = [*changes, *kept, *laid, *(adding(route) for route in table)]
        refused |= not_read | await reshaping.begin(begun, running)
        if running is not None:
            await self._table.align(engine.control)
            await engine.control.forget()
        self._started = engine, reshaping
        return self._said(hidden(reshaping.structure) | refused)

    async def publish(
        self, route: Route, backend: Backend, protection: Protection | None = None
    ) -> None:
        """Return when new requests for `route` go to `backend`, of whom `protection` lets in, and
        to nothing else.

        A route that is known already is switched without a reload. When this fails, or is
        cancelled, traffic goes where it went before.
        """
        engine, reshaping = self._running()
        reshaping.structure.with_route(route)
        before = self._table.get(route.service)
        shaped = reshaping.structure.routes.get(route.service)
        try:
            await self._set(engine, route.service, entry(backend, protection or Protection()))
            if reshaping.concerned(route.service) or shaped != route:
                await reshaping.wish(adding(route))
        except Exception:
            await self._undo(route.service, shaped, before)
            raise

    async def refit(
        self,
        commons: Commons | None = None,
        certificates: Mapping[str, Certificate] | None = None,
    ) -> Refusals:
        """What all share has changed (`None`: not that), or the operator's files have.

        Returns when it serves, and why for what could not be had; of that, the last serves on.
        Nothing is reloaded when nothing of the structure is new.
        """
        return await self._refit(commons, certificates)

    async def muster(self, crew: Crew) -> None:
        """These have keys of the ship; before the start too. What a key that is gone has opened of
        the ship's pages ends."""
        before = self._guarding.crew
        if self._started is None:
            self._guarding.crew = crew
            return
        if crew == before:
            return
        engine, _ = self._started
        await self._guarding.muster(crew)
        await self._told(engine, engine.control.forget)
        if crew.misses(before):
            await self._told(engine, engine.control.cut_off)

    async def link(self, service: str, owner: str, key: str = "") -> str:
        """What in a query lets a browser in to a private `service`, once and within two minutes,
        as `owner`, for as long as this key (a fingerprint; "" for who is on the host) may."""
        self._running()
        return f"{LINK}={await self._guarding.link(service, owner, key)}"

    async def hup(self) -> Refusals:
        """Lay the configuration down and reload, at once and in any case; see `refit`."""
        refused = await self._refit(None, None, RENEWAL)
        if RENEWAL.about in refused:
            raise refused[RENEWAL.about]
        return refused

    async def restart(self) -> Refusals:
        """`hup`, and end and start nginx itself: whatever is open is cut off."""
        refused = await self.hup()
        engine, _ = self._running()
        await engine.restart()
        return refused

    @property
    def online(self) -> bool:
        """Whether the world is to be led here."""
        return not self._offline.exists()

    async def dns(self, online: bool) -> None:
        """Whether the world is to be led here, which `/starphleet/nginx/status` then says."""
        engine, _ = self._running()
        try:
            self._offline.unlink(missing_ok=True) if online else self._offline.touch()
        except OSError as error:
            raise ProxyError(f"cannot write whether the ship is online: {error}") from error
        await self._told(engine, lambda: engine.control.set_online(online))

    async def withdraw(self, service: str) -> None:
        """Return when `service` answers 404; its open requests may go on."""
        engine, reshaping = self._running()
        await reshaping.wish(removing(service))
        await self._set(engine, service, None)

    async def open_requests(self, container: str) -> int:
        """Requests, streams and websockets that are on their way to `container` or open there."""
        engine, _ = self._running()
        return await engine.control.open_requests(matches("container name", CONTAINER, container))

    async def last_used(self, container: str) -> float:
        """When `container` was last asked for something, in epoch seconds; 0 for never."""
        engine, _ = self._running()
        return await engine.control.last_used(matches("container name", CONTAINER, container))

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

    async def keep(self) -> None:
        """Start nginx again whenever it dies, until `stop`; bound its log. Await it once."""
        engine, reshaping = self._running()
        failures = 0
        while self._started:
            if not await engine.gone(LOOK):
                failures = 0
                await engine.trim()
                continue
            if failures:
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (failures - 1))
                await deferLater(self._reactor, pause)
            if not self._started:
                return
            failures += 1
            try:
                if await engine.revive(reshaping.generation):
                    self._log.warn("nginx was gone and has been started again")
            except ProxyError as error:
                self._log.error("nginx is gone: {error}", error=error)

    async def leave(self) -> None:
        """Let nginx and the checker go on without us, for another ship process to adopt."""
        if self._started:
            _, reshaping = self._started
            self._started = None
            await reshaping.close()
            await self._guarding.leave()

    async def stop(self) -> None:
        """Give open requests a moment to finish, then end nginx. The same object may start again.

        Does nothing if it was not started.
        """
        if self._started:
            engine, reshaping = self._started
            self._started = None
            await reshaping.close()
            await engine.stop()
            await self._guarding.stop()

    async def _undo(self, service: str, shaped: Route | None, before: Entry | None) -> None:
        """Back to what was; what of it nginx cannot be told now, it reads when it starts."""
        engine, reshaping = self._running()
        # Without effect unless the publish was cancelled while its pass was under way.
        undone = reshaping.wish(removing(service) if shaped is None else adding(shaped))
        undone.addErrback(self._not_undone, service)
        try:
            await self._set(engine, service, before)
        except ProxyError as error:
            self._log.warn("{service} not put back: {error}", service=service, error=error)

    def _not_undone(self, failure: Failure, service: str) -> None:
        self._log.warn("{service} not put back: {error}", service=service, error=failure.value)

    def _running(self) -> tuple[Engine, Reshaping]:
        if self._started is None:
            raise ProxyError("the proxy is not started")
        return self._started

    def _common_changes(
        self, commons: Commons | None, certificates: Mapping[str, Certificate] | None
    ) -> tuple[list[Change], Refusals]:
        found: list[tuple[Change, Refusals]] = []
        if commons is not None:
            found.append(signing(commons))
        if certificates is not None:
            found.append(certifying(certificates, tls=self._instance.https_port is not None))
        refused = {about: error for _, each in found for about, error in each.items()}
        return [change for change, _ in found], refused

    async def _refit(
        self,
        commons: Commons | None,
        certificates: Mapping[str, Certificate] | None,
        *more: Change,
    ) -> Refusals:
        engine, reshaping = self._running()
        changes, refused = self._common_changes(commons, certificates)
        if commons is not None and await self._guarding.share(commons):
            await self._told(engine, engine.control.forget)
        laid, not_read = operators.changes(self._operator, reshaping.structure.files)
        refused |= not_read | await reshaping.change(*changes, *laid, *more)
        return self._said(hidden(reshaping.structure) | refused)

    def _said(self, refused: Refusals) -> Refusals:
        for about, error in refused.items():
            self._log.warn("{about}: {error}", about=about or "nginx", error=error)
        return refused

    async def _set(self, engine: Engine, service: str, entry: Entry | None) -> None:
        """A guard is there before what it guards, and goes after it."""
        if entry is not None and entry.backend.guarded:
            await self._guard(engine, service, entry.protection)
            await self._lead(engine, service, entry)
        else:
            await self._lead(engine, service, entry)
            await self._guard(engine, service, None)

    async def _attended(self) -> Refusals:
        """Without a checker nobody is let in where it would be asked."""
        try:
            await self._guarding.attend()
        except ProxyError as error:
            return {"guard": error}
        return {}

    async def _guard(self, engine: Engine, service: str, protection: Protection | None) -> None:
        if await self._guarding.protect(service, protection):
            await self._told(engine, engine.control.forget)

    async def _change(
        self, service: str, container: str, change: Callable[[Backend], Backend]
    ) -> None:
        engine, _ = self._running()
        led = self._table.get(service)
        if led is None or led.backend.container != container:
            return
        changed = evolve(led, backend=change(led.backend))
        if changed != led:
            await self._lead(engine, service, changed)

    async def _lead(self, engine: Engine, service: str, entry: Entry | None) -> None:
        """First the file, then nginx: one that starts in between reads what is to be. One after
        the other: what is told last is what was wanted last."""
        self._table.put(service, entry)
        await self._telling.acquire()
        try:
            await self._told(engine, lambda: self._table.tell(engine.control, service))
        finally:
            self._telling.release()

    async def _told(self, engine: Engine, tell: Callable[[], Awaitable[None]]) -> None:
        try:
            await tell()
        except ControlError:
            await engine.revive(self._running()[1].generation)
            await tell()
