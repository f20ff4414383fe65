"""Ways to a receiver of syslog: datagrams, and streams that know what the other host has."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory
from twisted.internet.protocol import Protocol as Connection
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from containers.watching import in_thread, within
from hooks.journal.lines import Batch
from hooks.say import plain
from receiver.headquarters.https import trusted
from receiver.syslog.messages import Destination, framed

CONNECT = 15  # seconds
SILENT = 60_000  # milliseconds for which a host may acknowledge nothing
LOOKS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1)  # seconds between looks whether all is acknowledged
PACE = 50  # datagrams, after each of which a receiver gets a moment
REFUSAL = 0.05  # seconds in which a host says that nobody listens


class Away(Exception):
    """A receiver is not there, or no more."""


class Broken(Away):
    """A connection ended that was there."""


class Link(Protocol):
    """A way to a receiver that is there."""

    async def send(self, messages: Sequence[bytes]) -> None:
        """Returns once they are there, as far as can be known; `Away` when they may not be."""

    async def unless_lost(self, waited: Deferred[Batch]) -> Batch:
        """What comes of `waited`; `Away` when the link is lost first."""

    def close(self) -> None: ...


@define(eq=False)
class Datagrams:
    """UDP: what does not arrive is nobody's knowledge."""

    reactor: Any
    socket: socket.socket

    @classmethod
    def to(cls, reactor: Any, destination: Destination) -> Datagrams:
        """Blocks while the name is looked up."""
        try:
            (family, kind, proto, _, address), *_ = socket.getaddrinfo(
                destination.host, destination.port, type=socket.SOCK_DGRAM
            )
            found = socket.socket(family, kind, proto)
        except OSError as error:
            raise Away(error.strerror or str(error)) from None
        found.setblocking(False)
        try:
            found.connect(address)
        except OSError as error:
            found.close()
            raise Away(error.strerror or str(error)) from None
        return cls(reactor, found)

    async def send(self, messages: Sequence[bytes]) -> None:
        for number, each in enumerate(messages, 1):
            with suppress(BlockingIOError):  # the host's own queue is full: as good as lost
                self._send(each)
            if number % PACE == 0:
                await deferLater(self.reactor, LOOKS[0])
        await deferLater(self.reactor, REFUSAL)
        refused = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if refused:
            raise Away(os.strerror(refused))

    def _send(self, message: bytes) -> None:
        try:
            self.socket.send(message)
        except BlockingIOError:
            raise
        except OSError as error:
            raise Away(error.strerror or str(error)) from None

    async def unless_lost(self, waited: Deferred[Batch]) -> Batch:
        return await waited

    def close(self) -> None:
        self.socket.close()


async def stream(reactor: Any, destination: Destination, roots: Path | None) -> _Stream:
    """A connection over TCP, under TLS with a certificate that is verified if wanted so."""
    endpoint: Any = HostnameEndpoint(
        reactor, destination.host.encode(), destination.port, timeout=CONNECT
    )
    try:
        if destination.way == "tls":
            trust = await in_thread(reactor, trusted, roots)
            endpoint = wrapClientTLS(optionsForClientTLS(destination.host, trust), endpoint)
        factory = Factory.forProtocol(lambda: _Stream(reactor, destination.way == "tls"))
        made: _Stream = await endpoint.connect(factory)
    except CancelledError:
        raise
    except Exception as error:
        raise Away(_why(error)) from None
    await made.is_up()
    return made


def _why(error: BaseException) -> str:
    """In one line."""
    inner = getattr(error, "reasons", None) or [error]
    text = str(inner[0]).strip().splitlines() or [type(error).__name__]
    return plain(text[0])[:200]


@implementer(IHandshakeListener)
@define(eq=False)
class _Stream(Connection):
    reactor: Any
    secured: bool
    _up: Deferred[None] = field(factory=Deferred)
    _awaited: Deferred[Any] | None = None
    _lost: str = ""

    def connectionMade(self) -> None:
        below = self._socket()
        below.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        below.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT)
        if not self.secured:
            self._up.callback(None)

    def handshakeCompleted(self) -> None:
        self._up.callback(None)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._lost = _why(reason.value) if reason is not None and reason.value else "it is lost"
        if self._awaited is not None:
            self._awaited.cancel()

    async def is_up(self) -> None:
        """Wait until what is written goes out; `Away` when it does not come to that."""
        try:
            there = await self.unless_lost(
                Deferred.fromCoroutine(within(self.reactor, self._up, CONNECT))
            )
        except BaseException:
            self.close()
            raise
        if not there:
            self.close()
            raise Away("no TLS handshake in time")

    async def send(self, messages: Sequence[bytes]) -> None:
        assert self.transport is not None
        self.transport.write(b"".join(map(framed, messages)))
        looks, quiet = iter(LOOKS), 0
        while quiet < 2:  # once may be between two pieces of it
            pause: Deferred[None] = deferLater(self.reactor, next(looks, LOOKS[-1]))
            await self.unless_lost(pause)
            quiet = quiet + 1 if self._acknowledged() else 0

    async def unless_lost(self, waited: Deferred[Any]) -> Any:
        if self._lost:
            waited.addErrback(lambda _: None)
            waited.cancel()
            raise Broken(self._lost)
        self._awaited = waited
        try:
            return await waited
        except CancelledError:
            if self._lost:
                raise Broken(self._lost) from None
            raise
        finally:
            self._awaited = None

    def close(self) -> None:
        transport: Any = self.transport
        if transport is None or self._lost:
            return
        if self._acknowledged():
            transport.loseConnection()
        else:  # whoever does not take it would keep it for ever
            transport.abortConnection()

    def _acknowledged(self) -> bool:
        """Whether the other host has all that was given to the kernel."""
        waiting = fcntl.ioctl(self._socket(), termios.TIOCOUTQ, bytes(4))
        return struct.unpack("i", waiting) == (0,)

    def _socket(self) -> socket.socket:
        """Under TLS the one below it."""
        transport: Any = self.transport
        below = getattr(transport, "transport", transport)
        found: socket.socket = below.getHandle()
        return found
