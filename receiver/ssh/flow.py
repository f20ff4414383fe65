"""What all channels have in common: bytes both ways within the windows, with back-pressure."""

# Conch is mostly without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import define
from twisted.conch.ssh.channel import SSHChannel
from twisted.conch.ssh.connection import (
    EXTENDED_DATA_STDERR,
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EXTENDED_DATA,
)

from receiver.ssh.line import Line
from receiver.ssh.pipes import Inlet, Outlet

if TYPE_CHECKING:
    from receiver.ssh.connection import Connection

WINDOW = 4 * 1024 * 1024  # bytes the client may send ahead of what it is joined to
PACKET = 32 * 1024  # OpenSSH sends no larger ones

Step = Callable[[], None]


@define
class Ends:
    """What a channel is joined to: where the client's data goes, and what is sent to it."""

    inlet: Inlet | Line
    out: Outlet | Line
    err: Outlet | None = None


class Channel(SSHChannel):
    """A channel of the connection `conn`. Whoever makes one sets `ends` before any data comes.

    `window` and `packet` are the client's, in bytes; both are learnt later when it is we who open.
    """

    conn: Connection
    ends: Ends

    def __init__(self, conn: Connection, *, window: int = 0, packet: int = PACKET) -> None:
        super().__init__(
            localWindow=WINDOW,
            localMaxPacket=PACKET,
            remoteWindow=window,
            remoteMaxPacket=packet,
        )
        self.conn = conn
        self._credit = 0  # bytes drained, not yet given back to the client as window
        self._open = False  # both sides know of it
        self._over = False  # closed by us or for us

    def channelOpen(self, data: bytes) -> None:
        self.remoteMaxPacket = max(1, min(self.remoteMaxPacket, PACKET))
        self._open = True
        self.pump()

    def requested(self, kind: bytes, data: bytes) -> Step | None:
        """What to do after the client was told yes, or `None` for no."""
        return None

    # From the client

    def take(self, data: memoryview) -> None:
        """Data of the client's, already counted against the window; see `flush`."""
        self.ends.inlet.feed(data)

    def flush(self) -> None:
        """Pass on what was taken."""
        self.ends.inlet.flush()

    def drop(self, size: int) -> None:
        """Data that nobody wants, already counted against the window."""
        self.drained(size)

    def drained(self, size: int) -> None:
        """Bytes of the client's that no longer take memory here."""
        self._credit += size
        if self._credit >= WINDOW // 16 and self._open and not self._over:
            credit, self._credit = self._credit, 0
            self.conn.adjustWindow(self, credit)

    # To the client

    def addWindowBytes(self, size: int) -> None:
        self.remoteWindowLeft += size
        self.pump()

    def pump(self) -> None:
        """Send what the client's window and the connection take, read on, or finish."""
        if self._over or not self._open:
            return
        self._pour(self.ends.out, MSG_CHANNEL_DATA)
        if self.ends.err is not None:
            self._pour(self.ends.err, MSG_CHANNEL_EXTENDED_DATA)
        self.finish()

    def _pour(self, outlet: Outlet | Line, message: int) -> None:
        while outlet.pending and self.remoteWindowLeft and not self.conn.congested:
            size = min(self.remoteWindowLeft, self.remoteMaxPacket)
            self._send(message, outlet.pending[:size])
            outlet.pending = outlet.pending[size:]
        outlet.want(not outlet.pending and not self.conn.congested)

    def _send(self, message: int, data: memoryview) -> None:
        remote = self.conn.channelsToRemoteChannel[self]
        if message == MSG_CHANNEL_DATA:
            head = struct.pack(">LL", remote, len(data))
        else:
            head = struct.pack(">LLL", remote, EXTENDED_DATA_STDERR, len(data))
        self.remoteWindowLeft -= len(data)
        self.conn.transport.sendPacket(message, b"".join((head, data)))

    @property
    def sent(self) -> bool:
        """Nothing is left to send to the client, and nothing will come."""
        return self.ends.out.ended and (self.ends.err is None or self.ends.err.ended)

    def finish(self) -> None:
        """Say what there is to say once everything is sent; called after each sending."""

    # The end

    def closeReceived(self) -> None:
        self._over = True
        if not self.localClosed:
            self.conn.sendClose(self)

    def closed(self) -> None:
        """Both sides have closed, or the connection is lost."""
        self._over = True
        self.ends.inlet.close()
        self.ends.out.close()
        if self.ends.err is not None:
            self.ends.err.close()
