"""The one interface of this room: how the world reaches a service, and where that leads."""

from __future__ import annotations

import os
import resource
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from attrs import evolve, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxy import operators
from proxy.certificates import Certificate
from proxy.control import ControlError, table_text
from proxy.distribution import SYSTEM_PATHS, Run, find_distribution, worker_user
from proxy.engine import Engine, Patience
from proxy.files import write_whole
from proxy.guard.keeper import Keeper
from proxy.guarding import Guarding
from proxy.protection import Commons, Protection, Sign
from proxy.render import Instance
from proxy.reshape import (
    CERTIFICATES,
    RENEWAL,
    Change,
    Reshaping,
    adding,
    certifying,
    laying,
    removing,
    signing,
)
from proxy.routes import CONTAINER, Backend, ProxyError, Route, RouteTaken, matches
from proxy.structure import Structure, check_named, check_sign

Refusals = dict[str, ProxyError]
"""Why something could not be had, by a service, a file of the operator's, `sign PATH`, or
`certificates`."""

LOOK = 60.0  # seconds between two looks at the log; a run that lasted longer was a good one
FIRST_PAUSE = 0.25  # seconds before the second start in a row, doubling
LONGEST_PAUSE = 30.0


def _open_files() -> int:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)


def _admitted(signs: tuple[Sign, ...]) -> tuple[dict[str, Sign], Refusals]:
    admitted: dict[str, Sign] = {}
    refused: Refusals = {}
    for sign in signs:
        try:
            check_sign(sign)
            if admitted.setdefault(sign.path, sign) is not sign:
                raise RouteTaken(f"{sign.path} leads elsewhere already")
        except ProxyError as error:
            refused[f"sign {sign.path}"] = error
    return admitted, refused


def _hidden(structure: Structure) -> Refusals:
    return {
        f"sign {path}": RouteTaken(f"{path} already leads to {structure.taken[path]}")
        for path in structure.signs
        if path in structure.taken
    }


@frozen
class _Entry:
    """Where a service's traffic goes, and who may use it."""

    backend: Backend
    protection: Protection


def _entry(backend: Backend, protection: Protection) -> _Entry:
    return _Entry(evolve(backend, guarded=backend.guarded or protection.asks), protection)


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
        )
        self._operator = operator
        self._table = self._instance.prefix / "backends"
        self._offline = self._instance.prefix / "offline"
        self._guarding = Guarding(self._instance.prefix)
        worker = self._instance.worker_user
        self._keeper = Keeper(reactor, self._instance.prefix, run, worker.name if worker else "")
        self._entries: dict[str, _Entry] = {}
        self._started: tuple[Engine, Reshaping] | None = None
        self._log = Logger()

    @property
    def hooks(self) -> Path:
        """The unix socket to which what is below /starphleet/hooks/ is led, without that."""
        return self._instance.hooks

    @property
    def wake(self) -> Path:
        """The unix socket on which nginx asks for a service to be woken: its name in a line."""
        return self._instance.hooks.with_name("wake")

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
        self._entries = {route.service: _entry(*led) for route, led in table.items()}
        self._guarding.begin({s: e.protection for s, e in self._entries.items()}, shared)
        self._write_table()
        changes, refused = self._common_changes(shared, certificates or {})
        refused |= await self._begin_guarding()
        running = await engine.serving()
        if running is not None:
            await self._align(engine, patiently=True)
        last = engine.generations.read(engine.generations.current, "operator")
        kept = [laying(name, text) for name, text in last.items()]
        laid, not_read = self._operators_changes(last)
        begun = [*changes, *kept, *laid, *(adding(route) for route in table)]
        refused |= not_read | await reshaping.begin(begun, running)
        if running is not None:
            await self._align(engine)
            await engine.control.forget()
        self._started = engine, reshaping
        return self._said(_hidden(reshaping.structure) | refused)

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
        before = self._entries.get(route.service)
        shaped = reshaping.structure.routes.get(route.service)
        try:
            await self._set(engine, route.service, _entry(backend, protection or Protection()))
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

    async def lull(self, service: str, container: str, asleep: bool) -> None:
        """From now on the first request for `service` has it woken, or none any more; nothing if
        its traffic does not go to `container`."""
        engine, _ = self._running()
        entry = self._entries.get(service)
        if entry is None or entry.backend.container != container or entry.backend.asleep == asleep:
            return
        backend = evolve(entry.backend, asleep=asleep)
        await self._set(engine, service, evolve(entry, backend=backend))

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

    async def stop(self) -> None:
        """Give open requests a moment to finish, then end nginx. The same object may start again.

        Does nothing if it was not started.
        """
        if self._started:
            engine, reshaping = self._started
            self._started = None
            await reshaping.close()
            await engine.stop()
            await self._keeper.stop()

    async def _undo(self, service: str, shaped: Route | None, before: _Entry | None) -> None:
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
        changes: list[Change] = []
        refused: Refusals = {}
        if commons is not None:
            signs, refused = _admitted(commons.signs)
            changes.append(signing(signs))
        if certificates is not None:
            for host in certificates:
                check_named(host)
            changes.append(certifying(certificates))
            if self._instance.https_port is not None and "" not in certificates:
                refused[CERTIFICATES] = ProxyError("no TLS: there is no default certificate")
        return changes, refused

    def _operators_changes(self, last: Mapping[str, str]) -> tuple[list[Change], Refusals]:
        texts, refused = operators.read(self._operator)
        gone = [laying(name, None) for name in last if name not in texts and name not in refused]
        return [*gone, *(laying(name, text) for name, text in texts.items())], refused

    async def _refit(
        self,
        commons: Commons | None,
        certificates: Mapping[str, Certificate] | None,
        *more: Change,
    ) -> Refusals:
        engine, reshaping = self._running()
        changes, refused = self._common_changes(commons, certificates)
        if commons is not None and self._guarding.share(commons):
            await self._told(engine, engine.control.forget)
        laid, not_read = self._operators_changes(reshaping.structure.files)
        refused |= not_read | await reshaping.change(*changes, *laid, *more)
        return self._said(_hidden(reshaping.structure) | refused)

    def _said(self, refused: Refusals) -> Refusals:
        for about, error in refused.items():
            self._log.warn("{about}: {error}", about=about or "nginx", error=error)
        return refused

    def _write_table(self) -> None:
        backends = {service: entry.backend for service, entry in self._entries.items()}
        try:
            write_whole(self._table, table_text(backends))
        except OSError as error:
            raise ProxyError(f"cannot write nginx's table: {error}") from error

    async def _set(self, engine: Engine, service: str, entry: _Entry | None) -> None:
        """A guard is there before what it guards, and goes after it."""
        if entry is not None and entry.backend.guarded:
            await self._guard(engine, service, entry.protection)
            await self._lead(engine, service, entry)
        else:
            await self._lead(engine, service, entry)
            await self._guard(engine, service, None)

    async def _begin_guarding(self) -> Refusals:
        """There is a checker where there is something to check. Without it nobody is let in."""
        try:
            await (self._keeper.start() if self._guarding.needed else self._keeper.stop())
        except ProxyError as error:
            return {"guard": error}
        return {}

    async def _guard(self, engine: Engine, service: str, protection: Protection | None) -> None:
        if protection is not None:
            await self._keeper.start()
        if self._guarding.protect(service, protection):
            await self._told(engine, engine.control.forget)

    async def _lead(self, engine: Engine, service: str, entry: _Entry | None) -> None:
        """First the file, then nginx: one that starts in between reads what is to be."""
        if entry is None:
            self._entries.pop(service, None)
        else:
            self._entries[service] = entry
        self._write_table()
        await self._told(engine, lambda: self._tell(engine, service))

    async def _told(self, engine: Engine, tell: Callable[[], Awaitable[None]]) -> None:
        try:
            await tell()
        except ControlError:
            await engine.revive(self._running()[1].generation)
            await tell()

    async def _tell(self, engine: Engine, service: str) -> None:
        entry = self._entries.get(service)
        if entry is None:
            await engine.control.delete(service)
        else:
            await engine.control.put(service, entry.backend)

    async def _align(self, engine: Engine, *, patiently: bool = False) -> None:
        """Tell an adopted nginx the table, as far as it knows another one.

        One of an older ship may not understand all of it: then it has to wait for the reload.
        """
        known = await engine.control.backends()
        wanted = {service: entry.backend for service, entry in self._entries.items()}
        for service in known.keys() | wanted.keys():
            if known.get(service) != wanted.get(service):
                try:
                    await self._tell(engine, service)
                except ControlError:
                    if not patiently:
                        raise
