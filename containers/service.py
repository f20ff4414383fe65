"""A started service while this ship process looks after it, whether it started or adopted it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from containers import record
from containers.interface import Exit
from containers.proc import open_process
from containers.record import Record
from containers.spawn import Child
from containers.watching import readable


class Service:
    """Waits for the end of the main command and tells everyone who asked.

    `child` is None for an adopted one: then the exit is what bubblewrap wrote down, if anything.
    `over` is called with the exit when it has ended and nothing of its group is left.
    """

    def __init__(
        self,
        reactor: Any,
        directory: Path,
        known: Record,
        child: Child | None,
        over: Callable[[Exit], None],
    ) -> None:
        self.known = known
        self.stopping = False
        self._reactor = reactor
        self._directory = directory
        self._child = child
        self._over = over
        self._waiting: list[Deferred[Exit]] = []
        watched = Deferred.fromCoroutine(self._watch())
        watched.addErrback(lambda failure: Logger().failure("watching a service", failure))

    async def ended(self) -> Exit:
        """How it ended, once it has."""
        waiting: Deferred[Exit] = Deferred()
        self._waiting.append(waiting)
        try:
            return await waiting
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)

    async def finish(self) -> None:
        """Reap it and tell the exit. Kills what is left of its group."""
        if self._child is not None:
            await self._child.close()
        told = record.recorded_exit(self._directory)
        exit = told if self._child is None or told != Exit() else self._child.exit
        self._over(exit)
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(exit)

    async def _watch(self) -> None:
        if self._child is not None:
            await self._child.ended()
        else:
            pidfd = open_process(self.known.leader) if self.known.leader else None
            if pidfd is not None:
                gone = readable(self._reactor, pidfd)
                os.close(pidfd)
                await gone
        # While it is being stopped, the rest of it still has its grace.
        if not self.stopping:
            await self.finish()
