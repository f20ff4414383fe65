"""Which algorithms this server speaks, and what two KEXINIT messages agree on. Pure."""

from __future__ import annotations

import re

from attrs import evolve, frozen
from twisted.conch.ssh.common import getNS

from receiver.ssh.errors import DisagreementError, FramingError

POST_QUANTUM = (b"mlkem768x25519-sha256",)
CLASSICAL = (b"curve25519-sha256", b"curve25519-sha256@libssh.org")
GCM = (b"aes128-gcm@openssh.com", b"aes256-gcm@openssh.com")
CTR = (b"aes256-ctr", b"aes192-ctr", b"aes128-ctr")
MACS = (b"hmac-sha2-256-etm@openssh.com", b"hmac-sha2-512-etm@openssh.com")
DELAYED_ZLIB = b"zlib@openssh.com"
HOST_KEYS = (b"ssh-ed25519",)

STRICT_CLIENT = b"kex-strict-c-v00@openssh.com"
STRICT_SERVER = b"kex-strict-s-v00@openssh.com"
EXT_INFO_CLIENT = b"ext-info-c"

SIGNATURES: dict[bytes, tuple[bytes, ...]] = {
    b"ssh-ed25519": (b"ssh-ed25519",),
    b"sk-ssh-ed25519@openssh.com": (b"sk-ssh-ed25519@openssh.com",),
    b"ecdsa-sha2-nistp256": (b"ecdsa-sha2-nistp256",),
    b"ecdsa-sha2-nistp384": (b"ecdsa-sha2-nistp384",),
    b"ecdsa-sha2-nistp521": (b"ecdsa-sha2-nistp521",),
    b"sk-ecdsa-sha2-nistp256@openssh.com": (b"sk-ecdsa-sha2-nistp256@openssh.com",),
    b"ssh-rsa": (b"rsa-sha2-512", b"rsa-sha2-256"),
}
"""Key type of a user -> the signature algorithms it may log in with: no SHA-1, no DSA."""

SERVER_SIG_ALGS = b",".join(name for names in SIGNATURES.values() for name in names)

Names = tuple[bytes, ...]


@frozen
class Proposal:
    """What a KEXINIT lists, in order of preference. "In" is client to server."""

    kex: Names
    host_keys: Names
    ciphers_in: Names
    ciphers_out: Names
    macs_in: Names
    macs_out: Names
    compressions_in: Names
    compressions_out: Names
    guess_follows: bool = False


OURS = Proposal(
    kex=POST_QUANTUM + CLASSICAL,
    host_keys=HOST_KEYS,
    ciphers_in=GCM + CTR,
    ciphers_out=GCM + CTR,
    macs_in=MACS,
    macs_out=MACS,
    compressions_in=(b"none", DELAYED_ZLIB),
    compressions_out=(b"none", DELAYED_ZLIB),
)


@frozen
class Agreement:
    """The one choice of each kind. `guessed_wrong`: the client's next packet is to be dropped."""

    kex: bytes
    host_key: bytes
    cipher_in: bytes
    cipher_out: bytes
    mac_in: bytes
    mac_out: bytes
    compression_in: bytes
    compression_out: bytes
    guessed_wrong: bool


def read_kexinit(packet: bytes) -> Proposal:
    """The client's proposal, from a KEXINIT without its message number.

    Raises `FramingError` for one that ends early.
    """
    *fields, rest = getNS(packet[16:], 10)
    if len(rest) < 5:
        raise FramingError("a KEXINIT that ends early")
    kex, host_keys, *others = (tuple(field.split(b",")) for field in fields[:8])
    ciphers_in, ciphers_out, macs_in, macs_out, zip_in, zip_out = others
    return Proposal(
        kex=kex,
        host_keys=host_keys,
        ciphers_in=ciphers_in,
        ciphers_out=ciphers_out,
        macs_in=macs_in,
        macs_out=macs_out,
        compressions_in=zip_in,
        compressions_out=zip_out,
        guess_follows=rest[0] != 0,
    )


def answer(theirs: Proposal) -> Proposal:
    """Our lists for this client.

    The client's order decides in SSH, and OpenSSH before 10 puts CTR, eight times as dear, before
    GCM; so a client that has GCM is offered GCM alone, and one that has a post-quantum exchange
    that alone.
    """
    ciphers = tuple(c for c in GCM if c in theirs.ciphers_in and c in theirs.ciphers_out) or CTR
    kex = tuple(k for k in POST_QUANTUM if k in theirs.kex) or CLASSICAL
    return evolve(OURS, kex=kex, ciphers_in=ciphers, ciphers_out=ciphers)


def agree(ours: Proposal, theirs: Proposal) -> Agreement:
    """The first of the client's that we have too, of each kind. Raises `DisagreementError`."""

    def first(what: str, client: Names, server: Names) -> bytes:
        for name in client:
            if name in server:
                return name
        raise DisagreementError(
            f"no common {what}: this server has {_words(server)}, the client {_words(client)}"
        )

    wrong = theirs.kex[0] != ours.kex[0] or theirs.host_keys[0] != ours.host_keys[0]
    return Agreement(
        kex=first("key exchange", theirs.kex, ours.kex),
        host_key=first("host key type", theirs.host_keys, ours.host_keys),
        cipher_in=first("cipher", theirs.ciphers_in, ours.ciphers_in),
        cipher_out=first("cipher", theirs.ciphers_out, ours.ciphers_out),
        mac_in=first("MAC", theirs.macs_in, ours.macs_in),
        mac_out=first("MAC", theirs.macs_out, ours.macs_out),
        compression_in=first("compression", theirs.compressions_in, ours.compressions_in),
        compression_out=first("compression", theirs.compressions_out, ours.compressions_out),
        guessed_wrong=theirs.guess_follows and wrong,
    )


def _words(names: Names) -> str:
    """Names for people and logs, whatever the client put into them."""
    return re.sub(r"[^ -~]", "?", b" ".join(names).decode("latin-1"))[:300]
