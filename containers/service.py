"""A started service while this ship process looks after it, whether it started or adopted it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from containers.interface import Exit
from containers.record import Record


class Service:
    """Waits for the end of the main command and tells everyone who asked.

    `gone` is waited for; then `close` puts away what is left of it and says how it ended, which
    `over` is told first of all.
    """

    def __init__(
        self,
        known: Record,
        *,
        gone: Awaitable[None],
        close: Callable[[], Awaitable[Exit]],
        over: Callable[[Exit], None],
    ) -> None:
        self.known = known
        self.stopping = False
        self._gone = gone
        self._close = close
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
        """Put away what is left of it and tell the exit."""
        exit = await self._close()
        self._over(exit)
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(exit)

    async def _watch(self) -> None:
        await self._gone
        # While it is being stopped, the rest of it still has its grace.
        if not self.stopping:
            await self.finish()
