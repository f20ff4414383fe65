"""The session channel: one command (or a text) joined to one client, and nothing else.

No pty, X11, agent, subsystem; of the environment only a well-formed GIT_PROTOCOL.
"""

# Conch is mostly without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.conch.ssh.channel import SSHChannel
from twisted.conch.ssh.common import getNS
from twisted.conch.ssh.connection import (
    EXTENDED_DATA_STDERR,
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EXTENDED_DATA,
)
from twisted.logger import Logger
from twisted.python.failure import Failure

from receiver.ssh.child import Child, farewell
from receiver.ssh.interface import Command, Login, Room, Words
from receiver.ssh.pipes import Inlet, Outlet

if TYPE_CHECKING:
    from receiver.ssh.connection import Connection

WINDOW = 4 * 1024 * 1024  # bytes the client may send ahead of the child
PACKET = 32 * 1024  # OpenSSH sends no larger ones
LONGEST_COMMAND = 16 * 1024  # bytes

_GIT_PROTOCOL = re.compile(rb"version=[012](:[a-z0-9=:.-]+)?")
_INTERNAL_ERROR = Words("internal error\n", 1)

Step = Callable[[], None]


def git_protocol(name: bytes, value: bytes) -> str | None:
    """The value, if this is the one variable a client may set, and well-formed."""
    if name != b"GIT_PROTOCOL" or len(value) > 256 or not _GIT_PROTOCOL.fullmatch(value):
        return None
    return value.decode("ascii")


class Session(SSHChannel):
    """A session channel of the connection `conn`, for `login`, into `room`."""

    name = b"session"
    _log = Logger()
    conn: Connection

    def __init__(
        self, conn: Connection, login: Login, room: Room, *, window: int, packet: int
    ) -> None:
        super().__init__(
            localWindow=WINDOW,
            localMaxPacket=PACKET,
            remoteWindow=window,
            remoteMaxPacket=max(1, min(packet, PACKET)),
        )
        self.conn = conn
        reactor = conn.reactor
        self._login = login
        self._room = room
        self._git_protocol: str | None = None
        self._begun = False
        self._credit = 0  # bytes drained, not yet given back to the client as window
        self._inlet = Inlet(reactor, self._drained)
        self._out = Outlet(reactor, self.pump)
        self._err = Outlet(reactor, self.pump)
        self._child = Child(reactor, self._child_ended)
        self._farewell: tuple[bytes, bytes] | None = None
        self._over = False  # closed by us or for us

    # What the client asks for

    def requested(self, kind: bytes, data: bytes) -> Step | None:
        """What to do after the client was told yes, or `None` for no."""
        if kind == b"env":
            name, value, _ = getNS(data, 2)
            return self._accept_env(name, value)
        if kind not in (b"exec", b"shell") or self._begun:
            return None
        self._begun = True
        command: bytes | None = getNS(data)[0] if kind == b"exec" else None
        return lambda: self._begin(command)

    def _accept_env(self, name: bytes, value: bytes) -> Step | None:
        accepted = None if self._begun else git_protocol(name, value)
        if accepted is None:
            return None

        def keep() -> None:
            self._git_protocol = accepted

        return keep

    def _begin(self, command: bytes | None) -> None:
        try:
            self._open(self._decide(command))
        except Exception:
            self._log.failure("room {account} failed", account=self._login.account)
            self._open(_INTERNAL_ERROR)

    def _decide(self, command: bytes | None) -> Command | Words:
        if command is None:
            return self._room(self._login, None, self._git_protocol)
        if len(command) > LONGEST_COMMAND:
            return Words(f"a command is at most {LONGEST_COMMAND} bytes long\n")
        try:
            text = command.decode()
        except UnicodeDecodeError:
            return Words("a command must be UTF-8\n")
        if "\0" in text:
            return Words("a command must be free of NUL\n")
        return self._room(self._login, text, self._git_protocol)

    def _open(self, found: Command | Words) -> None:
        if isinstance(found, Command):
            outputs = (self._out, self._err)
            self._child.spawn(self.conn.reactor, found, self._inlet, outputs)
        else:
            self._inlet.close()
            self._err.pending = memoryview(found.text.encode())
            self._farewell = b"exit-status", struct.pack(">L", found.status)
        self.pump()

    # From the client

    def take(self, data: memoryview) -> None:
        """Data of the client's, already counted against the window; see `flush`."""
        self._inlet.feed(data)

    def flush(self) -> None:
        """Pass on what was taken."""
        self._inlet.flush()

    def drop(self, size: int) -> None:
        """Data that nobody wants, already counted against the window."""
        self._drained(size)

    def _drained(self, size: int) -> None:
        self._credit += size
        if self._credit >= WINDOW // 16 and not self._over:
            credit, self._credit = self._credit, 0
            self.conn.adjustWindow(self, credit)

    def eofReceived(self) -> None:
        self._inlet.end()

    # To the client

    def addWindowBytes(self, size: int) -> None:
        self.remoteWindowLeft += size
        self.pump()

    def pump(self) -> None:
        """Send what the client's window and the connection take, read on, or say farewell."""
        if self._over:
            return
        for outlet, header in ((self._out, MSG_CHANNEL_DATA), (self._err, None)):
            while outlet.pending and self.remoteWindowLeft and not self.conn.congested:
                size = min(self.remoteWindowLeft, self.remoteMaxPacket)
                self._send(header, outlet.pending[:size])
                outlet.pending = outlet.pending[size:]
            outlet.want(not outlet.pending and not self.conn.congested)
        if self._farewell is not None and self._out.ended and self._err.ended:
            self._over = True
            self._inlet.close()
            # The status goes first: a client that sees EOF or CLOSE before it reports failure.
            self.conn.sendRequest(self, *self._farewell)
            self.conn.sendEOF(self)
            self.conn.sendClose(self)

    def _send(self, message: int | None, data: memoryview) -> None:
        remote = self.conn.channelsToRemoteChannel[self]
        if message == MSG_CHANNEL_DATA:
            head = struct.pack(">LL", remote, len(data))
        else:
            message = MSG_CHANNEL_EXTENDED_DATA
            head = struct.pack(">LLL", remote, EXTENDED_DATA_STDERR, len(data))
        self.remoteWindowLeft -= len(data)
        self.conn.transport.sendPacket(message, b"".join((head, data)))

    def _child_ended(self, reason: Failure) -> None:
        self._farewell = farewell(reason)
        self.pump()

    # The end

    def closeReceived(self) -> None:
        self._over = True
        if not self.localClosed:
            self.conn.sendClose(self)

    def closed(self) -> None:
        """Both sides have closed, or the connection is lost."""
        finished = self._farewell is not None and self._out.ended and self._err.ended
        self._over = True
        self._inlet.close()
        self._out.close()
        self._err.close()
        if not finished:
            self._child.hang_up()
