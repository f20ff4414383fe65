"""Runs the nginx of one prefix: starts, adopts, reloads, verifies, revives and stops it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from attrs import frozen
from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.interfaces import IReactorFDSet, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from proxy.aside import aside
from proxy.control import Control, ControlError, Worker
from proxy.distribution import Run
from proxy.files import Generations, log_tail, trim_log
from proxy.instance import Instance
from proxy.processes import Family, Process, alive, ended, find, tell
from proxy.routes import ProxyError

RUN_LIMIT = 30.0  # seconds that nginx may take to read a configuration
LOG_LIMIT = 10_000_000  # bytes of error log, and as many of the one before
ORPHAN_WAIT = 2.0  # seconds that workers without a master get to close their port
LOOK = 60.0  # seconds between two looks at the log; a run that lasted longer was a good one
FIRST_PAUSE = 0.25  # seconds before the second start in a row, doubling
LONGEST_PAUSE = 30.0

T = TypeVar("T")


@frozen
class Patience:
    """Seconds: until a new configuration must answer, and until workers must be gone at `stop`.

    `parting` is how long clients with kept-alive connections are warned before a reload. Between
    two reloads there are `apart`.
    """

    verify: float = 10.0
    stop: float = 5.0
    parting: float = 0.1
    apart: float = 1.0


def answers(workers: Sequence[Worker], generation: int) -> bool:
    """Whether every connection from now on meets `generation`."""
    return {worker.generation for worker in workers if worker.serving} == {generation}


class Engine:
    """nginx as a process. Methods that change it take turns; all raise `ProxyError`.

    `generation` is the configuration that serves; 0 if none does.
    """

    def __init__(
        self, reactor: IReactorTime, instance: Instance, nginx: Path, run: Run, patience: Patience
    ) -> None:
        self._reactor = reactor
        self._instance = instance
        self._run = run
        self._patience = patience
        self._argv = [str(nginx), "-p", str(instance.prefix), "-e", "logs/error.log"]
        self._log = instance.prefix / "logs" / "error.log"
        self._turn = DeferredLock()
        self.generations = Generations(instance.prefix)
        self.control = Control(reactor, instance.control)
        self.master: Process | None = None
        self.generation = 0
        self.switches = 0
        self._over = False
        self._said = Logger()

    def prepare(self) -> None:
        """Make the directories of the prefix."""
        for name in ("logs", "temp", "control"):
            (self._instance.prefix / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("hooks", "pages", "guard", "challenges"):  # nginx's workers have to get there
            (self._instance.prefix / name).mkdir(mode=0o711, parents=True, exist_ok=True)
        self._log.touch()
        self.generations.prepare()

    async def test(self, generation: int) -> str:
        """What nginx has against a generation; "" if it would take it."""
        status, output = await self._run(
            [*self._argv, "-t", "-q", "-c", f"generations/{generation}/nginx.conf"], RUN_LIMIT
        )
        return "" if status == 0 else " ".join(output.split()) or f"nginx -t: status {status}"

    async def serving(self) -> int | None:
        """The generation of an nginx of this prefix that runs and answers, adopted; else `None`.

        One that runs and does not answer is ended.
        """
        async with self._turn:
            self.master = (await self._find()).master
            if self.master is None:
                return None
            try:
                found = await self.control.workers()
                self.generation = max((w.generation for w in found if w.serving), default=0)
                return self.generation
            except ControlError:
                tell(self.master, signal.SIGKILL)
                await ended(IReactorFDSet(self._reactor), self.master)
                self.master = None
                return None

    async def switch(self, generation: int) -> None:
        """Make `generation` the one that serves: reload, or start, and see that it answers."""
        async with self._turn:
            since = self._log.stat().st_size
            self.generations.make_current(generation)
            await self._part_politely()
            told = self.master is not None and tell(self.master, signal.SIGHUP)
            if not (told and await self._verify(generation, since)):
                await self._launch(generation, since)
            self.generation = generation
        self.switches += 1
        self.generations.drop_old(generation)

    async def told(self, tell: Callable[[], Awaitable[T]]) -> T:
        """What nginx answers, which is started if it is not there."""
        try:
            return await tell()
        except ControlError:
            await self._revive()
            return await tell()

    async def keep(self) -> None:
        """Start nginx again whenever it dies, until we let go of it; bound its log. Await it
        once."""
        failures = 0
        while not self._over:
            if not await self._gone(LOOK):
                failures = 0
                await self._trim()
                continue
            if failures:
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (failures - 1))
                await deferLater(self._reactor, pause)
            if self._over:
                return
            failures += 1
            try:
                if await self._revive():
                    self._said.warn("nginx was gone and has been started again")
            except CancelledError:
                raise
            except Exception as error:  # a full disk, too: that must not be the last try
                self._said.error("nginx is gone: {error}", error=error)

    def let_go(self) -> None:
        """Whether it runs is for somebody else to see to."""
        self._over = True

    async def rest(self) -> None:
        """Return when nothing is being done to it."""
        async with self._turn:
            pass

    async def stop(self) -> None:
        """Let open requests finish for a while, then end nginx and all that is left of it."""
        async with self._turn:
            await self._stop()

    async def restart(self) -> None:
        """End nginx and start it again with what is current; what is open goes."""
        async with self._turn:
            since = self._log.stat().st_size
            await self._stop()
            await self._launch(self.generations.current, since)

    async def _revive(self) -> bool:
        """Start nginx if it is not running; whether that was needed."""
        async with self._turn:
            if self._over:
                raise ProxyError("the proxy is not started")
            self.master = (await self._find()).master
            if self.master is not None:
                return False
            since = self._log.stat().st_size
            self.generations.make_current(self.generation)
            await self._launch(self.generation, since)
            return True

    async def _gone(self, most: float) -> bool:
        """Wait up to `most` seconds for nginx to end; whether it has."""
        return self.master is None or await self._ended([self.master], most)

    async def _stop(self) -> None:
        for number in (signal.SIGQUIT, signal.SIGTERM, signal.SIGKILL):
            found = await self._find()
            for nginx in found.all:
                if nginx in (found.master, *found.orphans) or number == signal.SIGKILL:
                    tell(nginx, number)
            if await self._ended(found.all, self._patience.stop):
                break
        self.master = None

    async def _ended(self, processes: Sequence[Process], most: float) -> bool:
        deadline = self._reactor.seconds() + most
        for nginx in processes:
            end = Deferred.fromCoroutine(ended(IReactorFDSet(self._reactor), nginx))
            try:
                await end.addTimeout(max(0.0, deadline - self._reactor.seconds()), self._reactor)
            except defer.TimeoutError:
                return False
        return True

    async def _trim(self) -> None:
        """Bound the error log, if there is room for the one before."""
        try:
            await aside(self._reactor, trim_log, self._log, LOG_LIMIT)
        except OSError as error:
            self._said.error("the log of nginx is not bounded: {error}", error=error)

    async def _find(self) -> Family:
        return await aside(self._reactor, find, self._log, self._instance.prefix / "nginx.pid")

    async def _launch(self, generation: int, since: int) -> None:
        self.master = None
        await self._clear((await self._find()).orphans)
        self._instance.control.unlink(missing_ok=True)
        status, output = await self._run([*self._argv, "-c", "current/nginx.conf"], RUN_LIMIT)
        if status != 0:
            said = " ".join(output.split())[-500:]
            raise ProxyError(f"nginx did not start (status {status}): {said}")
        self._instance.control.chmod(0o600)  # nginx makes it for everybody, in our own directory
        await self._verify(generation, since)
        self.master = (await self._find()).master

    async def _clear(self, orphans: Sequence[Process]) -> None:
        """Workers whose master was killed finish what they have, but give up the port at once."""
        for orphan in orphans:
            tell(orphan, signal.SIGQUIT)
        deadline = self._reactor.seconds() + ORPHAN_WAIT
        while orphans and self._reactor.seconds() < deadline:
            try:
                await self.control.workers()
            except ControlError:
                return
            await deferLater(self._reactor, 0.005)
        for orphan in orphans:
            tell(orphan, signal.SIGKILL)

    async def _part_politely(self) -> None:
        """Let busy clients learn from an answer that their connection ends, before it does."""
        with contextlib.suppress(ControlError):  # nobody serves: then there is nobody to lose
            await self.control.close_connections()
            await deferLater(self._reactor, self._patience.parting)

    async def _verify(self, generation: int, since: int) -> bool:
        """Wait until `generation` answers; false if the master that was told so has died."""
        deadline = self._reactor.seconds() + self._patience.verify
        pause, said = 0.002, "its workers did not appear"
        while self._reactor.seconds() < deadline:
            try:
                if answers(await self.control.workers(), generation):
                    return True
            except ControlError as error:
                said = str(error)
            if self.master is not None and not alive(self.master):
                return False
            await deferLater(self._reactor, pause)
            pause = min(0.05, pause * 1.5)
        raise ProxyError(
            f"nginx did not take the new configuration within {self._patience.verify:g} s: "
            f"{log_tail(self._log, since) or said}"
        )
