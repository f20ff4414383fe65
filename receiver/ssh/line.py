"""The far end of a forwarding: a connection that is joined to a channel, with back-pressure."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from receiver.ssh.timers import Timers

LINGER = 3.0  # seconds for what was taken to be sent, once the channel is closed


def _nobody(*_: object) -> None:
    """Before there is a channel."""


@implementer(IHalfCloseableProtocol, IPushProducer)
class Line(Protocol):
    """Both of what `Inlet` and `Outlet` are to a child. `join` says to which channel it belongs;
    until then nothing is read."""

    transport: ITCPTransport

    def __init__(self, reactor: IReactorTime) -> None:
        self._timers = Timers(reactor)
        self._drained: Callable[[int], None] = _nobody
        self._changed: Callable[[], None] = _nobody
        self._reading = False
        self._read_all = False
        self._unwritten = 0  # bytes that wait in the transport
        self._full = False
        self._ending = False
        self._pieces: list[bytes] = []
        self.lost = False
        self.pending = memoryview(b"")

    def join(self, drained: Callable[[int], None], changed: Callable[[], None]) -> None:
        """As of `Inlet` and `Outlet`."""
        self._drained, self._changed = drained, changed

    def connectionMade(self) -> None:
        self.transport.pauseProducing()  # type: ignore[attr-defined]
        self.transport.registerProducer(self, True)  # type: ignore[attr-defined]

    # Towards the connection

    def feed(self, data: memoryview) -> None:
        self._pieces.append(bytes(data))

    def flush(self) -> None:
        pieces, self._pieces = self._pieces, []
        if not pieces:
            return
        self._unwritten += sum(map(len, pieces))
        if not self.lost and not self._ending:
            self.transport.writeSequence(pieces)
        if not self._full:
            self._written()

    def _written(self) -> None:
        written, self._unwritten = self._unwritten, 0
        if written:
            self._drained(written)

    def pauseProducing(self) -> None:
        self._full = True

    def resumeProducing(self) -> None:
        self._full = False
        self._written()

    def stopProducing(self) -> None:
        """The connection is lost, and `connectionLost` comes."""

    def end(self) -> None:
        """Nothing more will come: close that half once everything is written."""
        self.flush()
        self._ending = True
        if not self.lost:
            # A producer that waits would keep the half open.
            self.transport.unregisterProducer()  # type: ignore[attr-defined]
            self.transport.loseWriteConnection()

    # From the connection

    @property
    def ended(self) -> bool:
        """Nothing is left to send, and nothing will come."""
        return self._read_all and not self.pending

    def want(self, reading: bool) -> None:
        reading = reading and not self._read_all
        if reading != self._reading and not self.lost:
            self._reading = reading
            producer = self.transport
            (producer.resumeProducing if reading else producer.pauseProducing)()  # type: ignore[attr-defined]

    def dataReceived(self, data: bytes) -> None:
        self.pending = memoryview(bytes(self.pending) + data)
        self._changed()

    def readConnectionLost(self) -> None:
        self._read_all = True
        self._reading = False
        self._changed()

    def writeConnectionLost(self) -> None:
        """What was to be written is."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True
        self._timers.stop_all()
        self._full = False
        self._written()
        self.readConnectionLost()

    # The end

    def close(self) -> None:
        """The channel is gone: send what was taken, read no more. Harmless when said again."""
        self.join(_nobody, _nobody)
        self.pending = memoryview(b"")
        if not self.lost:
            self.want(False)
            self.transport.unregisterProducer()  # type: ignore[attr-defined]
            self.transport.loseConnection()
            self._timers.start("linger", LINGER, self.transport.abortConnection)
