"""Whoever reads a stream: gets what there is room for, and everybody else waits for no one."""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import LoopingCall
from zope.interface import implementer

from containers.watching import Waiters
from receiver.web.sse import BEAT, TYPE

HEARTBEAT = 15.0  # seconds
AT_ONCE = 1 << 14  # bytes


@implementer(IPushProducer)
@define(eq=False)
class Reader:
    """One request whose answer goes on. What it does not take fills its socket, and no more: who
    writes looks at `full`, and waits for `room`."""

    reactor: Any
    request: Any
    full: bool = False
    gone: bool = False
    _unsent: bytearray = field(factory=bytearray)
    _waiting: Waiters = field(factory=Waiters)
    _beating: LoopingCall | None = None

    def begin(self) -> None:
        """Send the headers, and a sign of life now and then."""
        self.request.setHeader("Content-Type", TYPE)
        self.request.setHeader("X-Accel-Buffering", "no")  # for a proxy before ours
        self.request.registerProducer(self, True)
        self.request.write(b"retry: 2000\n\n")
        self._beating = LoopingCall(self._beat)
        self._beating.clock = self.reactor
        self._beating.start(HEARTBEAT, now=False)

    def end(self) -> None:
        """It has left, or is to: nothing is written any more."""
        self.gone = True
        if self._beating is not None and self._beating.running:
            self._beating.stop()

    def write(self, data: bytes) -> None:
        """Send `data`, with the next `flush` at the latest."""
        self._unsent += data
        if len(self._unsent) >= AT_ONCE:
            self.flush()

    def flush(self) -> None:
        data, self._unsent = bytes(self._unsent), bytearray()
        if data and not self.gone:
            self.request.write(data)

    def room(self) -> Deferred[None]:
        """Fires once there is room."""
        room = self._waiting.wait()
        if not self.full:
            self._waiting.go_on()
        return room

    def pauseProducing(self) -> None:
        self.full = True

    def resumeProducing(self) -> None:
        self.full = False
        self.flush()
        if not self.full:
            self._waiting.go_on()

    def stopProducing(self) -> None:
        self.end()

    def _beat(self) -> None:
        if not self.full:
            self.write(BEAT)
            self.flush()
