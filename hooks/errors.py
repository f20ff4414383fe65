"""What can go wrong with a push, in kinds; the text of each is the line a person reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class ShipError(Exception):
    """Something a person can act on. One line: what failed, where, and what still serves."""


class Refused(ShipError):
    """The input itself is not acceptable; nothing was changed."""


class Superseded(ShipError):
    """A newer push of the same branch took this one's place in the queue."""


class Stopped(ShipError):
    """What is ordered waits until somebody starts the service."""

    def __init__(self) -> None:
        super().__init__("somebody stopped it: starphleet start")


class HandedOver(ShipError):
    """Another process of the ship has taken over before this was done: it is to be asked again."""


class Unreachable(ShipError):
    """Something out there could not be reached or read; it is tried again."""


class DeployFailed(ShipError):
    """A step of the pipeline failed; what served before still serves.

    `details` are lines to print before the reason (the log's end, ports listened on).
    """

    def __init__(self, reason: str, details: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.details = details


class Cancelled(DeployFailed):
    """Somebody ended it."""


@contextmanager
def named(where: str) -> Iterator[None]:
    """Say `where` it was, of what is refused meanwhile."""
    try:
        yield
    except Refused as error:
        raise Refused(f"{where}: {error}") from None
