"""Autorestart: a service that ends by itself is started again, later and later."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from attrs import field, frozen
from twisted.internet.task import deferLater

from containers.interface import Container, ContainerError, Exit, Runtime


@frozen
class Backoff:
    """Seconds to wait before each restart in a row: doubling from `first` up to `most`.

    A run that lasted `steady` seconds counts as good, and the row starts anew.
    """

    first: float = field(default=0.5)
    most: float = field(default=60.0)
    steady: float = field(default=60.0)

    def delay(self, failures: int) -> float:
        return min(self.most, self.first * 2.0 ** max(0, failures - 1))


async def keep(
    reactor: Any,
    runtime: Runtime,
    container: Container,
    restart: Callable[[], Awaitable[object]],
    *,
    backoff: Backoff = Backoff(),
    on_exit: Callable[[Exit, float], None],
) -> None:
    """Watch a started service for ever: cancel it before stopping the service on purpose.

    At each end `on_exit(exit, delay)` is told how it ended and in how many seconds `restart` is
    called, which is to start it again. A `ContainerError` of `restart` counts as an end like any
    other, with the error as its `reason`; any other error is the caller's, and ends the watch.
    """
    failures, failed = 0, ""
    while True:
        since = reactor.seconds()
        ended = await runtime.exited(container)
        steady = reactor.seconds() - since >= backoff.steady
        failures = 1 if steady else failures + 1
        delay = backoff.delay(failures)
        on_exit(Exit(reason=failed) if failed else ended, delay)
        await deferLater(reactor, delay)
        try:
            await restart()
            failed = ""
        except ContainerError as error:
            failed = str(error)
