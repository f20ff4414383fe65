"""Forwardings of one connection: ports both ways, and the client's agent. They end with it."""

# Conch is mostly without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve
from twisted.conch.ssh.common import NS, getNS
from twisted.conch.ssh.connection import OPEN_CONNECT_FAILED
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure

from receiver.ssh.flow import Channel, Ends
from receiver.ssh.interface import Command
from receiver.ssh.line import Line

if TYPE_CHECKING:
    from receiver.ssh.connection import Connection

CONNECT_SECONDS = 20.0
LISTENING = 20  # ports that one connection may have listened on
LOOPBACK = "127.0.0.1"
PRIVILEGED = 1024  # ports below are not listened on


class Forward(Channel):
    """A channel that is joined to a connection of the ship's; `what` is for the audit log."""

    def __init__(self, conn: Connection, line: Line, what: str, **client: int) -> None:
        super().__init__(conn, **client)
        self.what = what
        self.began = conn.reactor.seconds()
        self.line = line
        self.ends = Ends(line, line)
        self._eof_sent = False
        self._eof_received = False
        line.join(self.drained, self.pump)

    def eofReceived(self) -> None:
        self._eof_received = True
        self.line.end()
        self.pump()

    def finish(self) -> None:
        if self.sent and not self._eof_sent:
            self._eof_sent = True
            self.conn.sendEOF(self)
        if self._eof_sent and (self._eof_received or self.line.lost):
            self._over = True
            self.conn.sendClose(self)

    def closed(self) -> None:
        super().closed()
        self.conn.note(self.what, "closed", self.began)

    def openFailed(self, reason: object) -> None:
        """The client does not want what it had asked for."""
        super().closed()
        self.conn.note(self.what, "refused by the client", self.began)


class ToAgent(Forward):
    name = b"auth-agent@openssh.com"


class FromPort(Forward):
    name = b"forwarded-tcpip"


class _Doorway(Factory):
    """Takes connections; each becomes a line that `found` is told of once it is there."""

    noisy = False

    def __init__(self, found: Callable[[Line], None], reactor: Any) -> None:
        self._found = found
        self._reactor = reactor

    def buildProtocol(self, addr: object) -> Line:
        return _Arriving(self._reactor, self._found)


class _Arriving(Line):
    def __init__(self, reactor: Any, found: Callable[[Line], None]) -> None:
        super().__init__(reactor)
        self._found = found

    def connectionMade(self) -> None:
        super().connectionMade()
        self._found(self)


class Forwarding:
    """What one connection forwards. Only for accounts that may; the connection sees to that."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self._reactor = conn.reactor
        self._connecting: set[Deferred[Any]] = set()
        self._ports: dict[tuple[bytes, int], IListeningPort] = {}
        self._agent: Path | None = None
        self._agent_port: Any = None
        self._agent_wanted = False

    # To a host and port of the client's choice

    def connect(self, data: bytes, opened: Callable[[Channel], None], **client: int) -> None:
        """Open what a direct-tcpip message asks for, then `opened`; or refuse it."""
        host, rest = getNS(data)
        (port,) = struct.unpack(">L", rest[:4])
        remote = client.pop("remote")
        what = f"forwarding to {host.decode('ascii', 'replace')[:255]}:{port}"
        line = Line(self._reactor)
        endpoint = HostnameEndpoint(self._reactor, host, port, timeout=CONNECT_SECONDS)
        connecting = connectProtocol(endpoint, line)
        self._connecting.add(connecting)
        began = self._reactor.seconds()

        def connected(_: Line) -> None:
            opened(Forward(self._conn, line, what, **client))

        def failed(failure: Failure) -> None:
            if failure.check(CancelledError) is None:
                why = str(failure.value) or type(failure.value).__name__
                self._conn.refuse(remote, OPEN_CONNECT_FAILED, why.encode()[:300])
                self._conn.note(what, "not connected", began)

        def settled(_: object) -> None:
            self._connecting.discard(connecting)

        connecting.addCallbacks(connected, failed)
        connecting.addBoth(settled)

    @property
    def connecting(self) -> int:
        """How many are under way."""
        return len(self._connecting)

    # From a port of the ship's own

    def listen(self, data: bytes) -> bytes | None:
        """What to answer a tcpip-forward request, or `None` for no. Only ever on the loopback."""
        host, rest = getNS(data)
        (port,) = struct.unpack(">L", rest[:4])
        if 0 < port < PRIVILEGED or port > 0xFFFF or len(self._ports) >= LISTENING:
            return None
        began = self._reactor.seconds()
        try:
            bound = self._bind(host, port)
        except CannotListenError:
            return None
        number: int = bound.getHost().port
        self._ports[host, number] = bound
        self._conn.note(f"listening on {LOOPBACK}:{number}", "begun", began)
        return b"" if port else struct.pack(">L", number)

    def _bind(self, host: bytes, port: int) -> Any:
        doorway: Any = _Doorway(lambda line: self._arrived(line, host), self._reactor)
        return self._reactor.listenTCP(port, doorway, interface=LOOPBACK)

    def unlisten(self, data: bytes) -> bytes | None:
        """As `listen`, of a cancel-tcpip-forward request."""
        host, rest = getNS(data)
        bound = self._ports.pop((host, struct.unpack(">L", rest[:4])[0]), None)
        if bound is None:
            return None
        bound.stopListening()
        return b""

    def _arrived(self, line: Line, host: bytes) -> None:
        there: Any = line.transport.getPeer()
        here: Any = line.transport.getHost()
        # The address goes back as it was asked for: clients find their forwarding by it.
        ends = NS(host) + struct.pack(">L", here.port)
        ends += NS(there.host.encode()) + struct.pack(">L", there.port)
        what = f"a connection to {LOOPBACK}:{here.port}"
        self._open(FromPort(self._conn, line, what), ends)

    def _open(self, channel: Forward, extra: bytes) -> None:
        if not self._conn.open(channel, extra):
            channel.ends.inlet.close()

    # The agent

    def forward_agent(self) -> None:
        """Commands that begin from now on have the client's agent."""
        self._agent_wanted = True

    def with_agent(self, command: Command) -> Command:
        """`command`, and where the client's agent is if it is forwarded. Raises `OSError`."""
        if not self._agent_wanted:
            return command
        if self._agent is None:
            self._agent = self._lay_agent(command.uid)
        return evolve(command, env={**command.env, "SSH_AUTH_SOCK": str(self._agent)})

    def _lay_agent(self, uid: int | None) -> Path:
        directory = Path(tempfile.mkdtemp(prefix="ssh-"))  # mode 0700
        path = directory / "agent"
        doorway: Any = _Doorway(self._asked_agent, self._reactor)
        self._agent_port = self._reactor.listenUNIX(str(path), doorway, mode=0o600)
        if uid is not None:
            os.chown(path, uid, -1)
            os.chown(directory, uid, -1)
        return path

    def _asked_agent(self, line: Line) -> None:
        self._open(ToAgent(self._conn, line, "the client's agent"), b"")

    # The end

    def stop(self) -> None:
        for connecting in list(self._connecting):
            connecting.cancel()
        for bound in self._ports.values():
            bound.stopListening()
        self._ports.clear()
        if self._agent_port is not None:
            self._agent_port.stopReading()
            with contextlib.suppress(OSError):  # who may use its path may have removed that
                self._agent_port.connectionLost(connectionDone)  # before the path goes
        if self._agent is not None:
            shutil.rmtree(self._agent.parent, ignore_errors=True)
