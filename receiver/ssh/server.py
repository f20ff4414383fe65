"""The listening end: who gets a connection, and what all connections share."""

# Conch is mostly without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.conch.ssh.common import NS
from twisted.conch.ssh.factory import SSHFactory
from twisted.conch.ssh.keys import Key as SSHKey
from twisted.conch.ssh.transport import DISCONNECT_TOO_MANY_CONNECTIONS, MSG_DISCONNECT
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, ITCPTransport
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from containers.watching import Waiters
from receiver.ssh.ciphers import Clear
from receiver.ssh.interface import Account, Entry, Key, Record
from receiver.ssh.keys import KeyDirectory
from receiver.ssh.keys import host_key as read_host_key
from receiver.ssh.packets import VERSION, Reactor
from receiver.ssh.timers import Timers
from receiver.ssh.transport import Transport

REFUSALS = 50  # that are told why at a time; any more are cut off without a word
REFUSAL_SECONDS = 2.0


class Refusal(Protocol):
    """Tells a client why it gets no connection, in words its ssh prints, and closes."""

    transport: ITCPTransport

    def __init__(self, factory: ShipSSHFactory, why: str) -> None:
        self._factory = factory
        self._why = why
        self._timers = Timers(factory.reactor)

    def connectionMade(self) -> None:
        if self._factory.refusing >= REFUSALS:
            self._factory.refusing += 1
            self.transport.abortConnection()
            return
        self._factory.refusing += 1
        code = struct.pack(">L", DISCONNECT_TOO_MANY_CONNECTIONS)
        message = bytes((MSG_DISCONNECT,)) + code + NS(self._why.encode()) + NS(b"")
        self.transport.write(VERSION + b"\r\n" + Clear().seal(0, message))
        # Closing both ways at once would reset the connection under what was written.
        self.transport.loseWriteConnection()
        self._timers.start("linger", REFUSAL_SECONDS, self.transport.abortConnection)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._factory.refusing -= 1
        self._timers.stop_all()


class ShipSSHFactory(SSHFactory):
    """Makes the transports; made by `ssh_factory`."""

    noisy = False
    _log = Logger()

    def __init__(
        self,
        reactor: Reactor,
        *,
        host_key: SSHKey,
        keys: KeyDirectory,
        accounts: Mapping[str, Account],
        login_timeout: float,
        per_address: int,
        total: int,
        keepalive: float,
        record: Record,
    ) -> None:
        self.reactor = reactor
        self.accounts = dict(accounts)
        self.record = record
        self.login_timeout = login_timeout
        self.keepalive = keepalive
        self.refusing = 0
        self._keys = keys
        self._per_address = per_address
        self._total = total
        self._from: Counter[str] = Counter()
        self._emptied = Waiters()
        self.privateKeys = {b"ssh-ed25519": host_key}
        self.publicKeys = {b"ssh-ed25519": host_key.public()}

    @property
    def connections(self) -> int:
        """How many are open now."""
        return self._from.total()

    def key_for(self, account: str, blob: bytes) -> Key | None:
        """Whose key may log in as `account`, if this is one and there is such an account."""
        asked = self.accounts.get(account)
        key = self._keys.find(blob) if asked is not None else None
        return key if asked is not None and key is not None and asked.admits(key) else None

    def buildProtocol(self, addr: IAddress | None) -> Any:
        peer = str(getattr(addr, "host", ""))
        if why := self._full(peer):
            self._log.warn("{peer}: refused: {why}", peer=peer, why=why)
            return Refusal(self, why)
        self._from[peer] += 1
        transport = Transport(self.reactor, peer)
        transport.factory = self
        return transport

    def _full(self, peer: str) -> str:
        """Why one more connection is too many, or nothing."""
        if self._from[peer] >= self._per_address:
            return f"too many connections from {peer}, at most {self._per_address}"
        if self._from.total() >= self._total:
            return f"too many connections, at most {self._total}; try again in a minute"
        return ""

    def gone(self, peer: str) -> None:
        """A transport that `buildProtocol` made is closed."""
        self._from[peer] -= 1
        if not self._from[peer]:
            del self._from[peer]
        self._tell_if_empty()

    def empty(self) -> Deferred[None]:
        """Fires once nobody is connected."""
        emptied = self._emptied.wait()
        self._tell_if_empty()
        return emptied

    def _tell_if_empty(self) -> None:
        if not self._from:
            self._emptied.go_on()


def _unrecorded(entry: Entry) -> None:
    """Where nobody keeps an audit log."""


def ssh_factory(
    reactor: Reactor,
    *,
    host_key: Path,
    keys: Sequence[Path],
    rooms: Mapping[str, Account],
    login_timeout: float = 60,
    per_address: int = 100,
    total: int = 400,
    keepalive: float = 30,
    record: Record = _unrecorded,
) -> ShipSSHFactory:
    """The SSH server, ready for `listenTCP`.

    `host_key` is a file, made when missing; `keys` the directories of users' keys; `rooms` what
    each account leads to; `record` takes what was done. Seconds for `login_timeout` (from connect
    to login) and `keepalive`. Raises `ValueError` for a host key that cannot be used.
    """
    return ShipSSHFactory(
        reactor,
        host_key=read_host_key(host_key),
        keys=KeyDirectory(*keys),
        accounts=rooms,
        login_timeout=login_timeout,
        per_address=per_address,
        total=total,
        keepalive=keepalive,
        record=record,
    )
