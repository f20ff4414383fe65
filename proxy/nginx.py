"""The one interface of this room: how the world reaches a service, and where that leads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import evolve
from twisted.internet.interfaces import IReactorTime
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
from proxy.distribution import SYSTEM_PATHS, Run, find_distribution
from proxy.engine import Engine, Patience
from proxy.guard.keeper import Keeper
from proxy.guard.private import LINK
from proxy.guarding import Guarding
from proxy.instance import Instance
from proxy.protection import Commons, Crew, Protection
from proxy.reshape import Reshaping
from proxy.routes import Backend, ProxyError, Route
from proxy.table import Entry, entry
from proxy.traffic import Traffic


class Proxy:
    """An nginx of the ship's own under the prefix of `instance`, which it alone uses.

    It runs detached: it goes on serving when the ship dies, and the next `start` adopts it.
    `run` starts a program, `search` is the PATH on which nginx is looked for. `operator` is a
    directory of `*.conf` for nginx's http; what nginx does not take of it stays as it was.
    `traffic` is where what is published leads.
    Every method raises `ProxyError`: one line for a person, and what served before serves on.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        instance: Instance,
        *,
        run: Run,
        operator: Path | None = None,
        patience: Patience | None = None,
        search: str = SYSTEM_PATHS,
    ) -> None:
        self._reactor = reactor
        self._run = run
        self._operator = operator
        self._patience = patience or Patience()
        self._search = search
        self.instance = instance
        self._offline = instance.prefix / "offline"
        worker = instance.worker_user
        keeper = Keeper(reactor, instance.prefix, run, worker.name if worker else "")
        self._guarding = Guarding(reactor, instance.prefix, keeper)
        self.traffic = Traffic(reactor, instance.prefix / "backends", self._guarding)
        self._started: tuple[Engine, Reshaping] | None = None
        self._log = Logger()

    @property
    def reloads(self) -> int:
        """How often nginx was given another configuration since this ship started."""
        return self._started[0].switches if self._started else 0

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
        instance = evolve(self.instance, modules=found.modules)
        engine = Engine(self._reactor, instance, found.nginx, self._run, self._patience)
        engine.prepare()
        reshaping = Reshaping(self._reactor, instance, engine, self._patience.apart)
        shared = commons or Commons()
        entries = {route.service: entry(*led) for route, led in table.items()}
        await self._guarding.begin({s: e.protection for s, e in entries.items()}, shared)
        self.traffic.begin(entries)
        changes, refused = self._common_changes(shared, certificates or {})
        refused |= await self._attended()
        running = await engine.serving()
        if running is not None:
            await self.traffic.align(engine, patiently=True)
        last = engine.generations.read(engine.generations.current, "operator")
        kept = [laying(name, text) for name, text in last.items()]
        laid, not_read = operators.changes(self._operator, last)
        begun = [*changes, *kept, *laid, *(adding(route) for route in table)]
        refused |= not_read | await reshaping.begin(begun, running)
        if running is not None:
            await self.traffic.align(engine)
            await engine.control.forget()
        self._started = engine, reshaping
        self.traffic.open(engine)
        return self._said(hidden(reshaping.structure) | refused)

    async def publish(
        self, route: Route, backend: Backend, protection: Protection | None = None
    ) -> None:
        """Return when new requests for `route` go to `backend`, of whom `protection` lets in, and
        to nothing else.

        A route that is known already is switched without a reload. When this fails, or is
        cancelled, traffic goes where it went before.
        """
        _, reshaping = self._running()
        reshaping.structure.with_route(route)
        before = self.traffic.get(route.service)
        shaped = reshaping.structure.routes.get(route.service)
        try:
            await self.traffic.lead(route.service, entry(backend, protection or Protection()))
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
        await engine.told(engine.control.forget)
        if crew.misses(before):
            await engine.told(engine.control.cut_off)

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
        await engine.told(lambda: engine.control.set_online(online))

    async def withdraw(self, service: str) -> None:
        """Return when `service` answers 404; its open requests may go on."""
        _, reshaping = self._running()
        await reshaping.wish(removing(service))
        await self.traffic.lead(service, None)

    async def keep(self) -> None:
        """Start nginx again whenever it dies, until `stop`; bound its log. Await it once."""
        engine, _ = self._running()
        await engine.keep()

    async def leave(self) -> None:
        """Let nginx and the checker go on without us, for another ship process to adopt."""
        if self._started:
            engine, reshaping = self._let_go(*self._started)
            await reshaping.close()
            await engine.rest()
            await self._guarding.leave()

    async def stop(self) -> None:
        """Give open requests a moment to finish, then end nginx. The same object may start again.

        Does nothing if it was not started.
        """
        if self._started:
            engine, reshaping = self._let_go(*self._started)
            await reshaping.close()
            await engine.stop()
            await self._guarding.stop()

    def _let_go(self, engine: Engine, reshaping: Reshaping) -> tuple[Engine, Reshaping]:
        self._started = None
        self.traffic.close()
        engine.let_go()
        return engine, reshaping

    async def _undo(self, service: str, shaped: Route | None, before: Entry | None) -> None:
        """Back to what was; what of it nginx cannot be told now, it reads when it starts."""
        _, reshaping = self._running()
        # Without effect unless the publish was cancelled while its pass was under way.
        undone = reshaping.wish(removing(service) if shaped is None else adding(shaped))
        undone.addErrback(self._not_undone, service)
        try:
            await self.traffic.lead(service, before)
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
            found.append(certifying(certificates, tls=self.instance.https_port is not None))
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
            await engine.told(engine.control.forget)
        laid, not_read = operators.changes(self._operator, reshaping.structure.files)
        refused |= not_read | await reshaping.change(*changes, *laid, *more)
        return self._said(hidden(reshaping.structure) | refused)

    def _said(self, refused: Refusals) -> Refusals:
        for about, error in refused.items():
            self._log.warn("{about}: {error}", about=about or "nginx", error=error)
        return refused

    async def _attended(self) -> Refusals:
        """Without a checker nobody is let in where it would be asked."""
        try:
            await self._guarding.attend()
        except ProxyError as error:
            return {"guard": error}
        return {}
