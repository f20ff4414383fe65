"""Packets in and out of one connection: framing, batching, congestion, and the last words."""

# Conch is mostly without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import socket
import struct
import traceback
from typing import Any

from twisted.conch.ssh import transport as conch
from twisted.conch.ssh.common import NS
from twisted.internet.interfaces import (
    IPushProducer,
    IReactorFDSet,
    IReactorPluggableNameResolver,
    IReactorProcess,
    IReactorTCP,
    IReactorTime,
    IReactorUNIX,
    ITCPTransport,
)
from twisted.logger import Logger
from zope.interface import implementer

from receiver.ssh.ciphers import Clear, Direction, packet_end
from receiver.ssh.compression import Deflate, Inflate
from receiver.ssh.errors import PeerError
from receiver.ssh.timers import Timers

VERSION = b"SSH-2.0-Starphleet"
BUFFER = 256 * 1024  # bytes of one read, and of unsent output before the sessions pause
BACKLOG = 4 * 1024 * 1024  # bytes of replies that a client may leave unread
BLOCKED = 10_000  # messages that may wait for the end of a key exchange
QUICK_READS = 40  # reads acknowledged at once: half the time of a small push was waiting for that
LINGER = 3.0  # seconds for the last words to be sent
LONGEST_VERSION = 255  # bytes of the client's first line (RFC 4253, 4.2)

_SEQUENCE = 0xFFFFFFFF


class Reactor(
    IReactorTime,
    IReactorProcess,
    IReactorFDSet,
    IReactorTCP,
    IReactorUNIX,
    IReactorPluggableNameResolver,
):
    """What this package asks of the reactor."""


@implementer(IPushProducer)
class PacketTransport(conch.SSHServerTransport):
    """Conch's transport with the packet layer replaced.

    One read is up to 256 KiB and may hold many packets; what they carry for the children is passed
    on once, by `after_read`. A peer that sends nonsense is told so in one line and disconnected.
    """

    transport: ITCPTransport
    ourVersionString = VERSION
    _log = Logger()

    def __init__(self, reactor: Reactor, peer: str) -> None:
        self.reactor = reactor
        self.peer = peer
        self.heard = False  # anything, since somebody last set it False
        self.timers = Timers(reactor)
        self.receiving: Direction = Clear()
        self.sending: Direction = Clear()
        self.inflate: Inflate | None = None
        self.deflate: Deflate | None = None
        self.moved = 0  # bytes both ways since somebody last set it 0
        self._reads = 0
        self._paused = False
        self._backlog = 0
        self._over = False

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self.transport.setTcpKeepAlive(True)
        self.transport.bufferSize = BUFFER  # type: ignore[attr-defined]
        self.transport.registerProducer(self, True)  # type: ignore[attr-defined]
        self.transport.write(self.ourVersionString + b"\r\n")

    @property
    def ends(self) -> str:
        """Both ends of the connection, as SSH_CONNECTION has them."""
        there: Any = self.transport.getPeer()
        here: Any = self.transport.getHost()
        return f"{there.host} {there.port} {here.host} {here.port}"

    # In

    def dataReceived(self, data: bytes) -> None:
        if self._over:
            return
        self.heard = True
        if self._reads < QUICK_READS:
            self._reads += 1
            handle = self.transport.getHandle()  # type: ignore[attr-defined]
            handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        self.buf = self.buf + data if self.buf else data
        try:
            if self.gotVersion or self._take_version():
                self._take_packets()
                self.after_read()
        except PeerError as error:
            self.sendDisconnect(error.code, str(error).encode())
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            self._log.warn(
                "{peer}: malformed message: {error!r} at {file}:{line}",
                peer=self.peer,
                error=error,
                file=where.filename,
                line=where.lineno,
            )
            self.sendDisconnect(conch.DISCONNECT_PROTOCOL_ERROR, b"malformed message")

    def _take_version(self) -> bool:
        line, end, rest = self.buf.partition(b"\n")
        line = line.removesuffix(b"\r")
        strange = end and not line.startswith((b"SSH-2.0-", b"SSH-1.99-"))
        if strange or len(line) > LONGEST_VERSION:
            self.transport.write(
                b"This is an SSH server, and that is no SSH client's greeting.\r\n"
            )
            self.hang_up()
        elif end:
            self.otherVersionString = line
            self.gotVersion = True
            self.buf = rest
        return self.gotVersion

    def _take_packets(self) -> None:
        buffer = self.buf
        view = memoryview(buffer)
        at = 0
        while not self._over:
            end = packet_end(view, at, self.receiving.extra)
            if end is None:
                break
            payload = self.receiving.open(self.incomingPacketSequence, view[at:end])
            self.moved += end - at
            at = end
            self.incomingPacketSequence = (self.incomingPacketSequence + 1) & _SEQUENCE
            self.take(self.inflate(payload) if self.inflate else payload)
        self.buf = buffer[at:] if at else buffer

    def take(self, payload: memoryview) -> None:
        """One message: its number, then its fields."""
        self.dispatchMessage(payload[0], bytes(payload[1:]))

    def after_read(self) -> None:
        """Everything that came in one read has been taken."""

    def sendUnimplemented(self) -> None:
        sequence = (self.incomingPacketSequence - 1) & _SEQUENCE
        self.sendPacket(conch.MSG_UNIMPLEMENTED, struct.pack(">L", sequence))

    # Out

    @property
    def congested(self) -> bool:
        """Sessions are to send nothing now: it could only pile up here."""
        return self._paused or self._over or self._keyExchangeState != self._KEY_EXCHANGE_NONE

    def sendPacket(self, messageType: int, payload: bytes) -> None:
        if self._over:
            return
        exchanging = self._keyExchangeState != self._KEY_EXCHANGE_NONE
        if exchanging and not self._allowedKeyExchangeMessageType(messageType):
            self._blockedByKeyExchange.append((messageType, payload))
            if len(self._blockedByKeyExchange) > BLOCKED:
                self.sendDisconnect(
                    conch.DISCONNECT_PROTOCOL_ERROR, b"too many requests during a key exchange"
                )
            return
        self._send(messageType, payload)

    def _send(self, message: int, payload: bytes) -> None:
        plain = b"".join((bytes((message,)), payload))
        if self.deflate is not None:
            plain = self.deflate(plain)
        packet = self.sending.seal(self.outgoingPacketSequence, plain)
        self.outgoingPacketSequence = (self.outgoingPacketSequence + 1) & _SEQUENCE
        self.moved += len(packet)
        if self._paused:
            self._backlog += len(packet)
            if self._backlog > BACKLOG:
                self._log.info("{peer}: reads no replies; dropped", peer=self.peer)
                self.hang_up()
                self.transport.abortConnection()
                return
        self.transport.write(packet)

    def pauseProducing(self) -> None:
        self._paused = True
        self._backlog = 0

    def resumeProducing(self) -> None:
        self._paused = False
        self.flowing()

    def stopProducing(self) -> None:
        """The connection is lost, and `connectionLost` comes."""

    def flowing(self) -> None:
        """The congestion is over."""

    # The end

    def ssh_DISCONNECT(self, packet: bytes) -> None:
        self.hang_up()

    def sendDisconnect(self, reason: int, desc: bytes) -> None:
        """Say why, and close; a client that does not read it is not waited for."""
        if self._over:
            return
        self._log.info(
            "{peer}: disconnected: {why}", peer=self.peer, why=desc.decode("utf-8", "replace")
        )
        self._send(conch.MSG_DISCONNECT, struct.pack(">L", reason) + NS(desc) + NS(b""))
        self.hang_up()

    def hang_up(self) -> None:
        """Close once what was written is sent, within `LINGER`."""
        if self._over:
            return
        self._over = True
        self.transport.unregisterProducer()  # type: ignore[attr-defined]
        self.transport.loseConnection()
        self.timers.start("linger", LINGER, self.transport.abortConnection)
