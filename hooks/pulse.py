"""What is done again and again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater
from twisted.logger import Logger

_log = Logger()


async def every(
    reactor: Any,
    seconds: float,
    work: Callable[[], Awaitable[object]],
    failed: str = "what is done every {seconds:g} s failed",
) -> None:
    """Do `work` after each `seconds`, until cancelled; once that it fails is logged as `failed`,
    and does not end it."""
    while True:
        await deferLater(reactor, seconds)
        try:
            await work()
        except CancelledError:
            raise
        except Exception:
            _log.failure(failed, seconds=seconds)
