"""Sealing and opening of SSH packets, one object per direction and key.

Every cipher here leaves the packet length readable and authenticates before it decrypts (AES-GCM,
or AES-CTR with an encrypt-then-MAC HMAC), so that framing is the same for all of them.
"""

from __future__ import annotations

import hmac
import os
import struct
from collections.abc import Callable
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from receiver.ssh.errors import FramingError, TamperError

LARGEST = 256 * 1024  # bytes of one packet, as OpenSSH has it

_LENGTH = struct.Struct(">L")
_KEY_SIZES = {
    b"aes128-gcm@openssh.com": 16,
    b"aes256-gcm@openssh.com": 32,
    b"aes128-ctr": 16,
    b"aes192-ctr": 24,
    b"aes256-ctr": 32,
}
_DIGESTS = {
    b"hmac-sha2-256-etm@openssh.com": ("sha256", 32),
    b"hmac-sha2-512-etm@openssh.com": ("sha512", 64),
}


class Direction(Protocol):
    """One direction's cipher. `extra` is the bytes of a packet that its length field leaves out."""

    extra: int

    def seal(self, sequence: int, payload: bytes) -> bytes:
        """The whole packet that carries `payload`."""
        ...

    def open(self, sequence: int, packet: memoryview) -> memoryview:
        """The payload of a whole packet. Raises `TamperError` or `FramingError`."""
        ...


def packet_end(buffer: memoryview, at: int, extra: int) -> int | None:
    """Where the packet that starts at `at` ends, or `None` if the buffer ends before it does."""
    if len(buffer) - at < 4:
        return None
    (length,) = _LENGTH.unpack_from(buffer, at)
    if not 8 <= length <= LARGEST:
        raise FramingError(f"bad packet length {length}")
    end = at + length + extra
    return end if end <= len(buffer) else None


def _pad(payload: bytes, block: int, counted: int) -> tuple[bytes, bytes]:
    """Length field and padded plaintext; `counted` bytes of the length field are in the blocks."""
    padding = block - (counted + 1 + len(payload)) % block
    if padding < 4:
        padding += block
    plain = b"".join((bytes((padding,)), payload, os.urandom(padding)))
    return _LENGTH.pack(len(plain)), plain


def _strip(plain: memoryview) -> memoryview:
    padding = plain[0]
    if not 4 <= padding <= len(plain) - 2:
        raise FramingError(f"bad padding of {padding} bytes")
    return plain[1 : len(plain) - padding]


class Clear:
    """No cipher: before the first keys."""

    extra = 4

    def seal(self, sequence: int, payload: bytes) -> bytes:
        return b"".join(_pad(payload, 8, 4))

    def open(self, sequence: int, packet: memoryview) -> memoryview:
        if len(packet) % 8:
            raise FramingError("bad packet length")
        return _strip(packet[4:])


class Gcm:
    """AES-GCM as OpenSSH has it (RFC 5647): the nonce is a fixed part and a 64 bit counter.

    The transport changes keys long before the counter could come round.
    """

    extra = 20

    def __init__(self, key: bytes, iv: bytes) -> None:
        self._aes = AESGCM(key)
        self._fixed = iv[:4]
        self._counter = int.from_bytes(iv[4:12], "big")

    def _nonce(self) -> bytes:
        nonce = self._fixed + self._counter.to_bytes(8, "big")
        self._counter = (self._counter + 1) & 0xFFFFFFFFFFFFFFFF
        return nonce

    def seal(self, sequence: int, payload: bytes) -> bytes:
        length, plain = _pad(payload, 16, 0)
        return length + self._aes.encrypt(self._nonce(), plain, length)

    def open(self, sequence: int, packet: memoryview) -> memoryview:
        if (len(packet) - self.extra) % 16:
            raise FramingError("bad packet length")
        try:
            plain = self._aes.decrypt(self._nonce(), packet[4:], packet[:4])
        except InvalidTag:
            raise TamperError("bad authentication tag") from None
        return _strip(memoryview(plain))


class CtrEtm:
    """AES-CTR with an HMAC over sequence number, length and ciphertext."""

    def __init__(self, key: bytes, iv: bytes, mac_key: bytes, digest: str) -> None:
        cipher = Cipher(algorithms.AES(key), modes.CTR(iv[:16]))
        # In counter mode both ways are the same operation.
        self._stream: Callable[[bytes | memoryview], bytes] = cipher.encryptor().update
        self._mac_key = mac_key
        self._digest = digest
        self._tag = len(mac_key)
        self.extra = 4 + self._tag

    def _mac(self, sequence: int, data: bytes | memoryview) -> bytes:
        covered = b"".join((_LENGTH.pack(sequence), data))
        return hmac.digest(self._mac_key, covered, self._digest)

    def seal(self, sequence: int, payload: bytes) -> bytes:
        length, plain = _pad(payload, 16, 0)
        packet = length + self._stream(plain)
        return packet + self._mac(sequence, packet)

    def open(self, sequence: int, packet: memoryview) -> memoryview:
        covered, tag = packet[: -self._tag], packet[-self._tag :]
        if (len(covered) - 4) % 16:
            raise FramingError("bad packet length")
        if not hmac.compare_digest(self._mac(sequence, covered), tag):
            raise TamperError("bad MAC")
        return _strip(memoryview(self._stream(covered[4:])))


def direction(cipher: bytes, mac: bytes, *, iv: bytes, key: bytes, mac_key: bytes) -> Direction:
    """The cipher of one direction, from key material that may be longer than it needs."""
    key = key[: _KEY_SIZES[cipher]]
    if cipher.endswith(b"-gcm@openssh.com"):
        return Gcm(key, iv)
    digest, size = _DIGESTS[mac]
    return CtrEtm(key, iv, mac_key[:size], digest)
