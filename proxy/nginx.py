"""The one interface of this room: how the world reaches a service, and where that leads."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping
from pathlib import Path

from attrs import evolve
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxy.control import ControlError, table_text
from proxy.distribution import SYSTEM_PATHS, Run, find_distribution, worker_user
from proxy.engine import Engine, Patience
from proxy.files import write_whole
from proxy.render import Instance
from proxy.reshape import Reshaping, adding, removing
from proxy.routes import CONTAINER, Backend, ProxyError, Route, matches

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
    Every method raises `ProxyError`: one line for a person, and what served before serves on.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        prefix: Path,
        *,
        http_port: int,
        run: Run,
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
        )
        self._table = self._instance.prefix / "backends"
        self._backends: dict[str, Backend] = {}
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

    async def start(self, table: Mapping[Route, Backend]) -> dict[str, ProxyError]:
        """Serve exactly `table`: adopt the nginx that runs here, else start one.

        Nothing is reloaded that is right already. Returns why for each service whose route could
        not be had (normally none); all others are served.
        """
        found = await find_distribution(self._run, self._search)
        instance = evolve(self._instance, modules=found.modules)
        engine = Engine(self._reactor, instance, found.nginx, self._run, self._patience)
        engine.prepare()
        reshaping = Reshaping(self._reactor, instance, engine)
        self._backends = {route.service: backend for route, backend in table.items()}
        self._write_table()
        running = await engine.serving()
        if running is not None:
            await self._align(engine)
        refused = await reshaping.begin(table, running)
        self._started = engine, reshaping
        return refused

    async def publish(self, route: Route, backend: Backend) -> None:
        """Return when new requests for `route` go to `backend`, and to nothing else.

        A route that is known already is switched without a reload. When this fails, or is
        cancelled, traffic goes where it went before.
        """
        engine, reshaping = self._running()
        reshaping.structure.with_route(route)
        before = self._backends.get(route.service)
        shaped = reshaping.structure.routes.get(route.service)
        try:
            await self._set(engine, route.service, backend)
            if reshaping.busy or shaped != route:
                await reshaping.change(adding(route))
        except Exception:
            await self._undo(route.service, shaped, before)
            raise

    async def withdraw(self, service: str) -> None:
        """Return when `service` answers 404; its open requests may go on."""
        engine, reshaping = self._running()
        await reshaping.change(removing(service))
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
        backend = self._backends.get(service)
        if backend is not None and backend.container == container and backend.asleep != asleep:
            await self._set(engine, service, evolve(backend, asleep=asleep))

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

    async def _undo(self, service: str, shaped: Route | None, before: Backend | None) -> None:
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

    def _write_table(self) -> None:
        try:
            write_whole(self._table, table_text(self._backends))
        except OSError as error:
            raise ProxyError(f"cannot write nginx's table: {error}") from error

    async def _set(self, engine: Engine, service: str, backend: Backend | None) -> None:
        """First the file, then nginx: one that starts in between reads what is to be."""
        if backend is None:
            self._backends.pop(service, None)
        else:
            self._backends[service] = backend
        self._write_table()
        try:
            await self._tell(engine, service)
        except ControlError:
            await engine.revive(self._running()[1].generation)
            await self._tell(engine, service)

    async def _tell(self, engine: Engine, service: str) -> None:
        backend = self._backends.get(service)
        if backend is None:
            await engine.control.delete(service)
        else:
            await engine.control.put(service, backend)

    async def _align(self, engine: Engine) -> None:
        """Tell an adopted nginx the table, as far as it knows another one."""
        known = await engine.control.backends()
        for service in known.keys() | self._backends.keys():
            if known.get(service) != self._backends.get(service):
                await self._tell(engine, service)
