"""Lines for somebody who may read more slowly than they come."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

ON_THE_WAY = 1 << 20  # bytes that wait in the transport
KEPT = 1000  # lines that wait here


@implementer(IPushProducer)
class Backlog:
    """Passes lines to `send`, which writes to `transport`, as fast as that takes them.

    A build may talk without end, and a pusher's client may stand still: what is not read is not
    to pile up in the ship. The last lines are kept for later, the others are only counted.
    """

    def __init__(self, transport: Any, send: Callable[[str], None]) -> None:
        self._transport = transport
        self._send = send
        self._paused = False
        self._kept: deque[str] = deque(maxlen=KEPT)
        self._lost = 0
        transport.bufferSize = ON_THE_WAY
        transport.registerProducer(self, True)

    def say(self, line: str) -> None:
        if not self._paused:
            self._send(line)
            return
        self._lost += len(self._kept) == KEPT
        self._kept.append(line)

    def end(self) -> None:
        """Send all that is kept; nothing is said after this."""
        self.resumeProducing()
        self._transport.unregisterProducer()

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        kept, lost, self._lost = list(self._kept), self._lost, 0
        self._kept.clear()
        if lost:
            self._send(f"       ({lost} lines left out, they came faster than they were read)")
        for line in kept:
            self._send(line)

    def stopProducing(self) -> None:
        self._paused = True
