"""The SSH transport of one client: key exchange, and the services that follow it."""

# Conch is mostly without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING

from twisted.conch.ssh import transport as conch
from twisted.conch.ssh.common import NS, getNS
from twisted.conch.ssh.connection import MSG_CHANNEL_DATA
from twisted.conch.ssh.userauth import MSG_USERAUTH_SUCCESS
from twisted.python.failure import Failure

from receiver.ssh import algorithms
from receiver.ssh.algorithms import Agreement, Proposal
from receiver.ssh.ciphers import Direction, direction
from receiver.ssh.compression import Deflate, Inflate
from receiver.ssh.connection import Connection
from receiver.ssh.errors import OrderError
from receiver.ssh.interface import Login
from receiver.ssh.login import UserAuth
from receiver.ssh.packets import PacketTransport, Reactor

if TYPE_CHECKING:
    from receiver.ssh.server import ShipSSHFactory

REKEY_BYTES = 1024**3  # both ways together; AES-GCM's counter is then far from its end
REKEY_SECONDS = 3600.0
KEXINIT_SECONDS = 0.5
KEX_SECONDS = 60.0  # for a client to answer a key exchange that we began

_MSG_KEX_INIT = 30  # the client's half, of every key exchange here


class Phase(Enum):
    """Where the client is in a key exchange."""

    BEFORE = auto()  # the first has not begun
    OPEN = auto()  # none is going on
    AGREED = auto()  # its KEXINIT came, its half of the exchange is due
    KEYED = auto()  # its NEWKEYS is due


def allowed(phase: Phase, message: int, *, strict: bool) -> bool:
    """Whether a client may send `message` now (RFC 4253, 7.1).

    `strict` as of strict-kex in the first exchange: nothing but the exchange itself.
    """
    if phase is Phase.OPEN:
        return message != conch.MSG_NEWKEYS and not 30 <= message <= 49
    due = {
        Phase.BEFORE: conch.MSG_KEXINIT,
        Phase.AGREED: _MSG_KEX_INIT,
        Phase.KEYED: conch.MSG_NEWKEYS,
    }[phase]
    return message == due or (1 <= message <= 4 and not strict)


class Transport(PacketTransport):
    """Conch keeps the mathematics of the key exchange; when and what is decided here."""

    factory: ShipSSHFactory
    service: Connection | UserAuth | None

    def __init__(self, reactor: Reactor, peer: str) -> None:
        super().__init__(reactor, peer)
        self.login: Login | None = None
        self._phase = Phase.BEFORE
        self._first = True  # no key exchange is finished yet
        self._strict = False
        self._ours = algorithms.OURS
        self._agreed: Agreement | None = None
        self._next_receiving: Direction | None = None

    def connectionMade(self) -> None:
        super().connectionMade()
        self.timers.start("login", self.factory.login_timeout, self._login_took_too_long)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._over = True
        self.timers.stop_all()
        if self.service is not None:
            self.service.serviceStopped()
        self.factory.gone(self.peer)

    def _login_took_too_long(self) -> None:
        why = f"login took longer than {self.factory.login_timeout:g} s"
        self.sendDisconnect(conch.DISCONNECT_BY_APPLICATION, why.encode())

    # Messages

    def take(self, payload: memoryview) -> None:
        message = payload[0]
        if not allowed(self._phase, message, strict=self._strict and self._first):
            raise OrderError(f"message {message} out of order")
        if message == MSG_CHANNEL_DATA and isinstance(self.service, Connection):
            self.service.data(payload[1:])
        else:
            super().take(payload)

    def after_read(self) -> None:
        if isinstance(self.service, Connection):
            self.service.flush()
        if self._phase is Phase.BEFORE and self._keyExchangeState == self._KEY_EXCHANGE_NONE:
            self.timers.start("kexinit", KEXINIT_SECONDS, self.sendKexInit)
        self._rekey_when_due()

    def sendPacket(self, messageType: int, payload: bytes) -> None:
        super().sendPacket(messageType, payload)
        if messageType == MSG_CHANNEL_DATA:
            self._rekey_when_due()

    def _send(self, message: int, payload: bytes) -> None:
        super()._send(message, payload)
        if message == MSG_USERAUTH_SUCCESS:
            self._compress_sending()
            self._compress_receiving()

    def flowing(self) -> None:
        if isinstance(self.service, Connection):
            self.service.resume()

    # Key exchange

    def sendKexInit(self) -> None:
        """Begin a key exchange, or answer the client's.

        The first is answered, not begun, so that what is offered can depend on what the client
        has; a client that waits for us gets the whole list after `KEXINIT_SECONDS`.
        """
        self.supportedKeyExchanges = [*self._ours.kex, algorithms.STRICT_SERVER]
        self.supportedPublicKeys = list(self._ours.host_keys)
        self.supportedCiphers = list(self._ours.ciphers_in)
        self.supportedMACs = list(self._ours.macs_in)
        self.supportedCompressions = list(self._ours.compressions_in)
        super().sendKexInit()

    def _rekey_when_due(self) -> None:
        if self.moved >= REKEY_BYTES:
            self._rekey()

    def _rekey(self) -> None:
        idle = self._keyExchangeState == self._KEY_EXCHANGE_NONE
        if idle and self._phase is Phase.OPEN and not self._over:
            self.timers.start("kex", KEX_SECONDS, self._exchange_took_too_long)
            self.sendKexInit()

    def _exchange_took_too_long(self) -> None:
        self.sendDisconnect(conch.DISCONNECT_KEY_EXCHANGE_FAILED, b"no answer to a key exchange")

    def ssh_KEXINIT(self, packet: bytes) -> None:
        if not self._first and self.login is None:
            raise OrderError("new keys before the login")  # each costs us more than them
        theirs = algorithms.read_kexinit(packet)
        self.timers.stop("kexinit")
        self.otherKexInitPayload = bytes((conch.MSG_KEXINIT,)) + packet
        if self._first:
            self._greet(theirs)
        if self._keyExchangeState == self._KEY_EXCHANGE_NONE:
            self._ours = algorithms.answer(theirs)
            self.sendKexInit()
        self._agreed = algorithms.agree(self._ours, theirs)
        self.kexAlg = self._agreed.kex
        self.keyAlg = self._agreed.host_key
        self.ignoreNextPacket = self._agreed.guessed_wrong
        self._keyExchangeState = self._KEY_EXCHANGE_PROGRESSING
        self._phase = Phase.AGREED

    def _greet(self, theirs: Proposal) -> None:
        self._peerSupportsExtensions = algorithms.EXT_INFO_CLIENT in theirs.kex
        self._strict = algorithms.STRICT_CLIENT in theirs.kex
        if self._strict and self.incomingPacketSequence != 1:
            raise OrderError("strict key exchange: KEXINIT was not the first message")

    def _keySetup(self, sharedSecret: bytes, exchangeHash: bytes) -> None:
        """The exchange is done: what we send changes keys now, what we receive at NEWKEYS."""
        assert self._agreed is not None
        if self._first:
            self.sessionID = exchangeHash
        key = partial(self._getKey, sharedSecret=sharedSecret, exchangeHash=exchangeHash)
        agreed = self._agreed
        self._next_receiving = direction(
            agreed.cipher_in, agreed.mac_in, iv=key(b"A"), key=key(b"C"), mac_key=key(b"E")
        )
        self.sendPacket(conch.MSG_NEWKEYS, b"")
        self.sending = direction(
            agreed.cipher_out, agreed.mac_out, iv=key(b"B"), key=key(b"D"), mac_key=key(b"F")
        )
        if self._strict:
            self.outgoingPacketSequence = 0
        self._compress_sending()
        self._phase = Phase.KEYED
        self._let_messages_go()

    def _let_messages_go(self) -> None:
        self._keyExchangeState = self._KEY_EXCHANGE_NONE
        if self._first:
            self.sendExtInfo([(b"server-sig-algs", algorithms.SERVER_SIG_ALGS)])
        blocked, self._blockedByKeyExchange = self._blockedByKeyExchange, []
        for message, payload in blocked:
            self.sendPacket(message, payload)
        self.flowing()

    def _newKeys(self) -> None:
        assert self._next_receiving is not None
        self.receiving, self._next_receiving = self._next_receiving, None
        if self._strict:
            self.incomingPacketSequence = 0
        self._first = False
        self._phase = Phase.OPEN
        self.moved = 0
        self._compress_receiving()
        self.timers.stop("kex")
        self.timers.start("rekey", REKEY_SECONDS, self._rekey)

    def _compress_sending(self) -> None:
        wanted = self._agreed is not None and self._agreed.compression_out != b"none"
        self.deflate = Deflate() if wanted and self.login else None

    def _compress_receiving(self) -> None:
        wanted = self._agreed is not None and self._agreed.compression_in != b"none"
        self.inflate = Inflate() if wanted and self.login else None

    # Services

    def ssh_SERVICE_REQUEST(self, packet: bytes) -> None:
        """Only ssh-userauth, as often as a client likes to ask, until it is logged in."""
        name, _ = getNS(packet)
        if name != b"ssh-userauth" or self.login is not None:
            self.sendDisconnect(conch.DISCONNECT_SERVICE_NOT_AVAILABLE, b"no such service")
            return
        self.sendPacket(conch.MSG_SERVICE_ACCEPT, NS(name))
        if self.service is None:
            self.setService(UserAuth())

    def logged_in(self, login: Login) -> None:
        """Open the connection service to who has proved to be `login`."""
        self.login = login
        self.timers.stop("login")
        self.sendPacket(MSG_USERAUTH_SUCCESS, b"")
        self.setService(
            Connection(
                self.reactor,
                login,
                self.factory.accounts[login.account],
                keepalive=self.factory.keepalive,
                record=self.factory.record,
            )
        )
