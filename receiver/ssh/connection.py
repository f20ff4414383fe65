"""The connection service: session channels within their bounds, and the keep-alive."""

# Conch is mostly without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from twisted.conch.ssh.channel import SSHChannel
from twisted.conch.ssh.common import NS, getNS
from twisted.conch.ssh.connection import (
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_OPEN_FAILURE,
    MSG_CHANNEL_SUCCESS,
    MSG_GLOBAL_REQUEST,
    MSG_REQUEST_FAILURE,
    OPEN_ADMINISTRATIVELY_PROHIBITED,
    OPEN_RESOURCE_SHORTAGE,
    SSHConnection,
)
from twisted.conch.ssh.transport import DISCONNECT_CONNECTION_LOST, DISCONNECT_PROTOCOL_ERROR
from twisted.internet.interfaces import IDelayedCall

from receiver.ssh.channel import Session
from receiver.ssh.errors import OrderError
from receiver.ssh.interface import Login, Room

if TYPE_CHECKING:
    from receiver.ssh.packets import Reactor
    from receiver.ssh.transport import Transport

CHANNELS = 10  # at a time, as sshd's MaxSessions
UNANSWERED = 3  # keep-alives before the client counts as gone


class Connection(SSHConnection):
    """What a login may do: open sessions. Every other channel and global request is refused."""

    transport: Transport
    channels: dict[int, Session]
    channelsToRemoteChannel: dict[SSHChannel, int]

    def __init__(self, reactor: Reactor, login: Login, room: Room, *, keepalive: float) -> None:
        super().__init__()
        self.reactor = reactor
        self._login = login
        self._room = room
        self._keepalive = keepalive
        self._unanswered = 0
        self._timer: IDelayedCall | None = None
        self._taken: set[Session] = set()

    @property
    def congested(self) -> bool:
        """Sessions are to send nothing now."""
        return self.transport.congested

    def serviceStarted(self) -> None:
        self._timer = self.reactor.callLater(self._keepalive, self._beat)

    def serviceStopped(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().serviceStopped()

    def _beat(self) -> None:
        """Anything the client sent since the last one counts as an answer."""
        self._timer = None
        self._unanswered = 0 if self.transport.heard else self._unanswered + 1
        self.transport.heard = False
        if self._unanswered >= UNANSWERED:
            self.transport.sendDisconnect(DISCONNECT_CONNECTION_LOST, b"no answer to keep-alives")
            return
        self.transport.sendPacket(MSG_GLOBAL_REQUEST, NS(b"keepalive@openssh.com") + b"\1")
        self._timer = self.reactor.callLater(self._keepalive, self._beat)

    def ssh_REQUEST_SUCCESS(self, packet: bytes) -> None:
        """An answer to a keep-alive, in which only its coming counts."""

    def ssh_REQUEST_FAILURE(self, packet: bytes) -> None:
        """As above: most clients do not know the request and say so."""

    def ssh_GLOBAL_REQUEST(self, packet: bytes) -> None:
        _, rest = getNS(packet)
        if rest[0]:
            self.transport.sendPacket(MSG_REQUEST_FAILURE, b"")

    def ssh_CHANNEL_OPEN(self, packet: bytes) -> None:
        kind, rest = getNS(packet)
        (remote,) = struct.unpack(">L", rest[:4])
        if kind != b"session":
            self._refuse(remote, OPEN_ADMINISTRATIVELY_PROHIBITED, b"only sessions here")
        elif len(self.channels) >= CHANNELS:
            self._refuse(remote, OPEN_RESOURCE_SHORTAGE, b"at most %d sessions" % CHANNELS)
        else:
            super().ssh_CHANNEL_OPEN(packet)

    def ssh_CHANNEL_OPEN_CONFIRMATION(self, packet: bytes) -> None:
        raise OrderError("an answer to a channel that nobody here opened")

    def ssh_CHANNEL_OPEN_FAILURE(self, packet: bytes) -> None:
        raise OrderError("an answer to a channel that nobody here opened")

    def _refuse(self, remote: int, code: int, why: bytes) -> None:
        payload = struct.pack(">2L", remote, code) + NS(why) + NS(b"")
        self.transport.sendPacket(MSG_CHANNEL_OPEN_FAILURE, payload)

    def getChannel(self, kind: bytes, window: int, packet: int, data: bytes) -> Session:
        return Session(self, self._login, self._room, window=window, packet=packet)

    def ssh_CHANNEL_REQUEST(self, packet: bytes) -> None:
        channel = self.channels[struct.unpack(">L", packet[:4])[0]]
        kind, rest = getNS(packet[4:])
        wants_reply, data = rest[0], rest[1:]
        step = channel.requested(kind, data)
        if wants_reply and not channel.localClosed:
            message = MSG_CHANNEL_FAILURE if step is None else MSG_CHANNEL_SUCCESS
            remote = self.channelsToRemoteChannel[channel]
            self.transport.sendPacket(message, struct.pack(">L", remote))
        if step is not None:
            step()

    def data(self, packet: memoryview) -> None:
        """A CHANNEL_DATA message; it goes to the child with the next `flush`."""
        number, size = struct.unpack_from(">LL", packet)
        channel = self.channels[number]
        if self._counted(channel, size, len(packet) - 8):
            channel.take(packet[8:])
            self._taken.add(channel)

    def flush(self) -> None:
        """Pass on what came in since the last time: many packets make one write."""
        while self._taken:
            self._taken.pop().flush()

    def ssh_CHANNEL_EXTENDED_DATA(self, packet: bytes) -> None:
        number, _, size = struct.unpack(">3L", packet[:12])
        channel = self.channels[number]
        if self._counted(channel, size, len(packet) - 12):
            channel.drop(size)

    def _counted(self, channel: Session, size: int, present: int) -> bool:
        if size != present or size > min(channel.localWindowLeft, channel.localMaxPacket):
            self.transport.sendDisconnect(
                DISCONNECT_PROTOCOL_ERROR, b"more data than the window or packet size allows"
            )
            return False
        channel.localWindowLeft -= size
        return True

    def resume(self) -> None:
        """The congestion is over, or has begun."""
        for channel in list(self.channels.values()):
            channel.pump()
