"""Logging in: by public key only, and as whoever made the signature."""

# Conch is mostly without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.conch.ssh.common import NS, getNS
from twisted.conch.ssh.keys import Key as PublicKey
from twisted.conch.ssh.transport import DISCONNECT_NO_MORE_AUTH_METHODS_AVAILABLE
from twisted.conch.ssh.userauth import (
    MSG_USERAUTH_FAILURE,
    MSG_USERAUTH_PK_OK,
    MSG_USERAUTH_REQUEST,
    SSHUserAuthServer,
)

from receiver.ssh.algorithms import SIGNATURES
from receiver.ssh.interface import Key, Login

if TYPE_CHECKING:
    from receiver.ssh.transport import Transport

ATTEMPTS = 20  # requests of any kind; an agent may hold many keys

_USER_PRESENT = 1


def key_type(blob: bytes) -> bytes:
    """The type that a public key blob names."""
    name: bytes = getNS(blob)[0]
    return name


def verified(blob: bytes, algorithm: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signature` over `message` was made by the key `blob` with exactly `algorithm`.

    A security key must also say that somebody touched it.
    """
    if getNS(signature)[0] != algorithm or algorithm not in SIGNATURES.get(key_type(blob), ()):
        return False
    try:
        key = PublicKey.fromString(blob, type="blob")
        if key.isSecurityKey():
            flags = getNS(signature, 2)[2][:1]
            if not flags or not flags[0] & _USER_PRESENT:
                return False
            message = SSHUserAuthServer._wrapMessageWithSKMetadata(
                signature, message, key.application
            )
        return bool(key.verify(signature, message))
    except Exception:  # whatever is wrong with a key or signature, it is not a login
        return False


class UserAuth(SSHUserAuthServer):
    """The ssh-userauth service, with nothing but publickey.

    A key probe (a request without a signature) is answered and leaves nothing behind: the identity
    is set in one place, from the request whose signature was verified.
    """

    transport: Transport

    def serviceStarted(self) -> None:
        self._requests = 0

    def serviceStopped(self) -> None:
        """Nothing runs here; the login timeout is the transport's."""

    def ssh_USERAUTH_REQUEST(self, packet: bytes) -> None:
        user, service, method, rest = getNS(packet, 3)
        self._requests += 1
        if self._requests > ATTEMPTS:
            self.transport.sendDisconnect(
                DISCONNECT_NO_MORE_AUTH_METHODS_AVAILABLE, b"too many login attempts"
            )
        elif method != b"publickey" or service != b"ssh-connection" or not rest:
            self._refuse()
        else:
            self._publickey(user, rest)

    def _publickey(self, user: bytes, request: bytes) -> None:
        signed = request[0] != 0
        algorithm, blob, rest = getNS(request[1:], 2)
        account = user.decode("ascii", "replace")
        key = self.transport.factory.key_for(account, blob)
        if key is None or algorithm not in SIGNATURES.get(key_type(blob), ()):
            self._refuse()
        elif not signed:
            self.transport.sendPacket(MSG_USERAUTH_PK_OK, NS(algorithm) + NS(blob))
        elif self._proves(user, algorithm, blob, getNS(rest)[0]):
            self._welcome(account, key)
        else:
            self._log.warn("bad signature for a key of {owner}", owner=key.owner)
            self._refuse()

    def _proves(self, user: bytes, algorithm: bytes, blob: bytes, signature: bytes) -> bool:
        assert self.transport.sessionID is not None
        message = b"".join(
            (
                NS(self.transport.sessionID),
                bytes((MSG_USERAUTH_REQUEST,)),
                NS(user),
                NS(b"ssh-connection"),
                NS(b"publickey"),
                b"\1",
                NS(algorithm),
                NS(blob),
            )
        )
        return verified(blob, algorithm, signature, message)

    def _welcome(self, account: str, key: Key) -> None:
        login = Login(account, key, self.transport.peer, self.transport.ends)
        self._log.info(
            "{owner} ({fingerprint}) is here as {account}, from {peer}",
            owner=key.owner,
            fingerprint=key.fingerprint,
            account=account,
            peer=login.peer,
        )
        self.transport.logged_in(login)

    def _refuse(self) -> None:
        self.transport.sendPacket(MSG_USERAUTH_FAILURE, NS(b"publickey") + b"\0")
