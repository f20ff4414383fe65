"""The checker as a process: starts, adopts, replaces, revives and ends it."""

from __future__ import annotations

import fcntl
import signal
import sys
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil
from attrs import frozen
from twisted.internet import defer
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import deferLater
from twisted.logger import Logger

from proxy.distribution import Run
from proxy.guard import store
from proxy.processes import Process, ended, tell
from proxy.routes import ProxyError

START_LIMIT = 30.0  # seconds
STOP_LIMIT = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0  # seconds before one that did not start is tried again


@cache
def digest() -> str:
    """What tells one version of the checker from another."""
    here = Path(__file__).parent
    values = (here.parent / f"{name}.py" for name in ("protection", "ranks"))
    files = [*sorted(here.glob("*.py")), *values]
    return sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:16]


@frozen
class _Found:
    process: Process
    version: str


class Keeper:
    """The checker of one prefix. `user` is who may ask it; "" for ourselves alone.

    It goes on when the ship dies, and the next ship has it. Methods raise `ProxyError`.
    """

    def __init__(self, reactor: Any, prefix: Path, run: Run, user: str) -> None:
        self._reactor = reactor
        self._prefix = prefix
        self._run = run
        argv = [sys.executable, "-P", "-m", "proxy.guard", str(prefix)]
        self._argv = [*argv, *([user] if user else [])]
        self._turn = DeferredLock()
        self._keeping: Deferred[None] | None = None
        self._log = Logger()

    async def start(self) -> None:
        """See that one of this version runs, and goes on doing so. Does nothing the second time."""
        async with self._turn:
            if self._keeping is None:
                process = await self._begin()
                self._keeping = Deferred.fromCoroutine(self._keep(process))
                self._keeping.addErrback(lambda failure: failure.trap(defer.CancelledError))

    async def leave(self) -> None:
        """Let it go on without us; whether it runs is for another to see to."""
        async with self._turn:
            await self._look_away()

    async def stop(self) -> None:
        """End it, whoever started it."""
        async with self._turn:
            await self._look_away()
            found = self._find()
            if found is not None:
                await self._end(found.process)

    async def _look_away(self) -> None:
        keeping, self._keeping = self._keeping, None
        # Nobody launches now; who did last goes on to where it can be cancelled.
        await deferLater(self._reactor, 0)
        if keeping is not None:
            keeping.cancel()

    async def _begin(self) -> Process:
        found = self._find()
        if found is not None and found.version == digest():
            return found.process
        if found is not None:
            await self._end(found.process)
        return await self._launch()

    async def _launch(self) -> Process:
        status, output = await self._run(self._argv, START_LIMIT)
        found = self._find()
        if found is None or (status != 0 and found.version != digest()):
            said = " ".join(output.split())[-300:]
            raise ProxyError(f"what asks for passwords did not start (status {status}): {said}")
        return found.process

    async def _keep(self, process: Process) -> None:
        """Start it again whenever it ends."""
        while True:
            await ended(self._reactor, process)
            self._log.warn("what asks for passwords is gone, and is started again")
            process = await self._launched()

    async def _launched(self) -> Process:
        pause = FIRST_PAUSE
        while True:
            try:
                async with self._turn:
                    return await self._launch()
            except ProxyError as error:
                self._log.error("{error}", error=error)
            await deferLater(self._reactor, pause)
            pause = min(LONGEST_PAUSE, pause * 2)

    def _find(self) -> _Found | None:
        """The one that runs: it holds the lock of its file."""
        try:
            with (store.place(self._prefix) / "pid").open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    pid, version = file.read().split()
                    begun = psutil.Process(int(pid)).create_time()
                    return _Found(Process(int(pid), 0, begun), version)
        except (FileNotFoundError, ValueError, psutil.Error):
            pass
        return None

    async def _end(self, process: Process) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            tell(process, number)
            end: Deferred[None] = Deferred.fromCoroutine(ended(self._reactor, process))
            try:
                await end.addTimeout(STOP_LIMIT, self._reactor)
            except defer.TimeoutError:
                continue
            return
