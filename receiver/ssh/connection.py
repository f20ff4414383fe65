"""The connection service: who may open which channel, how many, and the keep-alive."""

# Conch is mostly without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from twisted.conch.ssh.channel import SSHChannel
from twisted.conch.ssh.common import NS, getNS
from twisted.conch.ssh.connection import (
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_OPEN_CONFIRMATION,
    MSG_CHANNEL_OPEN_FAILURE,
    MSG_CHANNEL_SUCCESS,
    MSG_GLOBAL_REQUEST,
    MSG_REQUEST_FAILURE,
    MSG_REQUEST_SUCCESS,
    OPEN_ADMINISTRATIVELY_PROHIBITED,
    OPEN_RESOURCE_SHORTAGE,
    SSHConnection,
)
from twisted.conch.ssh.transport import DISCONNECT_CONNECTION_LOST, DISCONNECT_PROTOCOL_ERROR
from twisted.internet.interfaces import IDelayedCall

from receiver.ssh.channel import Session
from receiver.ssh.errors import OrderError
from receiver.ssh.flow import Channel
from receiver.ssh.forwarding import Forward, Forwarding
from receiver.ssh.interface import Account, Entry, Login, Record

if TYPE_CHECKING:
    from receiver.ssh.packets import Reactor
    from receiver.ssh.transport import Transport

SESSIONS = 10  # at a time, as sshd's MaxSessions
FORWARDS = 200  # connections at a time
UNANSWERED = 3  # keep-alives before the client counts as gone


class Connection(SSHConnection):
    """What a login may do: open sessions, and forward if the account may. Every other channel and
    global request is refused."""

    transport: Transport
    channels: dict[int, Channel]
    channelsToRemoteChannel: dict[SSHChannel, int]

    def __init__(
        self,
        reactor: Reactor,
        login: Login,
        account: Account,
        *,
        keepalive: float,
        record: Record,
    ) -> None:
        super().__init__()
        self.reactor = reactor
        self.record = record
        self.forwarding = Forwarding(self)
        self._login = login
        self._account = account
        self._keepalive = keepalive
        self._unanswered = 0
        self._timer: IDelayedCall | None = None
        self._taken: set[Channel] = set()

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
        self.forwarding.stop()
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

    def note(self, did: str, ended: str, began: float) -> None:
        """Put something into the audit log."""
        self.record(Entry(self._login, did, ended, began, self.reactor.seconds() - began))

    # Requests about the whole connection

    def ssh_GLOBAL_REQUEST(self, packet: bytes) -> None:
        kind, rest = getNS(packet)
        answer = self._answer(kind, rest[1:])
        if rest[0] and answer is None:
            self.transport.sendPacket(MSG_REQUEST_FAILURE, b"")
        elif rest[0] and answer is not None:
            self.transport.sendPacket(MSG_REQUEST_SUCCESS, answer)

    def _answer(self, kind: bytes, data: bytes) -> bytes | None:
        """What goes with a yes, or `None` for no."""
        if kind == b"tcpip-forward" and self._account.whole:
            return self.forwarding.listen(data)
        if kind == b"cancel-tcpip-forward" and self._account.whole:
            return self.forwarding.unlisten(data)
        return None

    # Channels

    def ssh_CHANNEL_OPEN(self, packet: bytes) -> None:
        kind, rest = getNS(packet)
        remote, window, size = struct.unpack(">3L", rest[:12])
        if kind == b"session" and self._count(Session) < SESSIONS:
            session = Session(self, self._login, self._account, window=window, packet=size)
            self._confirm(session, remote)
        elif kind == b"session":
            self.refuse(remote, OPEN_RESOURCE_SHORTAGE, b"at most %d sessions" % SESSIONS)
        elif kind != b"direct-tcpip" or not self._account.whole:
            self.refuse(remote, OPEN_ADMINISTRATIVELY_PROHIBITED, b"only sessions here")
        elif self._full:
            self.refuse(remote, OPEN_RESOURCE_SHORTAGE, b"at most %d forwardings" % FORWARDS)
        else:
            self.forwarding.connect(
                rest[12:],
                lambda channel: self._confirm(channel, remote),
                remote=remote,
                window=window,
                packet=size,
            )

    def _count(self, kind: type[Channel]) -> int:
        return sum(isinstance(channel, kind) for channel in self.channels.values())

    @property
    def _full(self) -> bool:
        return self._count(Forward) + self.forwarding.connecting >= FORWARDS

    def _confirm(self, channel: Channel, remote: int) -> None:
        """Open a channel that the client asked for."""
        number = self.localChannelID
        self.localChannelID += 1
        channel.id = number  # type: ignore[assignment]
        self.channels[number] = channel
        self.channelsToRemoteChannel[channel] = remote
        self.localToRemoteChannel[number] = remote
        sizes = struct.pack(">4L", remote, number, channel.localWindowSize, channel.localMaxPacket)
        self.transport.sendPacket(MSG_CHANNEL_OPEN_CONFIRMATION, sizes)
        channel.channelOpen(b"")

    def open(self, channel: Channel, extra: bytes) -> bool:
        """Ask the client to take a channel of ours; False when there are too many."""
        if self._full:
            return False
        self.openChannel(channel, extra)
        return True

    def ssh_CHANNEL_OPEN_CONFIRMATION(self, packet: bytes) -> None:
        self._require_unanswered(packet)
        super().ssh_CHANNEL_OPEN_CONFIRMATION(packet)

    def ssh_CHANNEL_OPEN_FAILURE(self, packet: bytes) -> None:
        self._require_unanswered(packet)
        super().ssh_CHANNEL_OPEN_FAILURE(packet)

    def _require_unanswered(self, packet: bytes) -> None:
        channel = self.channels.get(struct.unpack(">L", packet[:4])[0])
        if channel is None or channel in self.channelsToRemoteChannel:
            raise OrderError("an answer to a channel that nobody here opened")

    def refuse(self, remote: int, code: int, why: bytes) -> None:
        payload = struct.pack(">2L", remote, code) + NS(why) + NS(b"")
        self.transport.sendPacket(MSG_CHANNEL_OPEN_FAILURE, payload)

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

    def _counted(self, channel: Channel, size: int, present: int) -> bool:
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
