"""Following a service's log as it grows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from twisted.internet.task import deferLater

PULSE = 0.2  # seconds between two looks at the file
CHUNK = 65536


async def follow(
    reactor: Any,
    log: Path,
    output: Callable[[bytes], None],
    going_on: Callable[[], Awaitable[bool]],
) -> None:
    """Hand what is and what comes to be in `log` to `output`, as long as `going_on` says so.

    A log that was cut short is read from its start.
    """
    position = 0
    while await going_on():
        position = _read(log, position, output)
        await deferLater(reactor, PULSE, lambda: None)
    _read(log, position, output)


def _read(log: Path, position: int, output: Callable[[bytes], None]) -> int:
    try:
        with log.open("rb") as file:
            if file.seek(0, 2) < position:
                position = 0
            file.seek(position)
            data = file.read(CHUNK)
    except FileNotFoundError:
        return position
    if data:
        output(data)
    return position + len(data)
