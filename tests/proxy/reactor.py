"""The reactor of the tests, and waiting on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet import reactor as the_reactor
from twisted.internet.task import deferLater
from twisted.internet.utils import getProcessOutputAndValue

reactor: Any = the_reactor


async def run(argv: Sequence[str], seconds: float) -> tuple[int, str]:
    """Start a program and wait for it: exit status and merged output."""
    process = getProcessOutputAndValue(argv[0], argv[1:], env={"PATH": "/usr/bin:/bin"})
    out, err, status = await process.addTimeout(seconds, reactor)
    return status, (out + err).decode(errors="replace")


async def until(condition: Any, what: str, most: float = 10.0) -> None:
    """Wait for `condition()` (plain, or a coroutine) to be true."""
    deadline = reactor.seconds() + most
    while True:
        value = condition()
        if hasattr(value, "__await__"):
            value = await value
        if value:
            return
        if reactor.seconds() > deadline:
            raise AssertionError(f"waited {most} s for: {what}")
        await deferLater(reactor, 0.005)
