"""zlib@openssh.com: compression that begins with the login, anew with every key."""

from __future__ import annotations

import zlib

from receiver.ssh.ciphers import LARGEST
from receiver.ssh.errors import InflationError


class Deflate:
    """Outgoing payloads, each flushed."""

    def __init__(self) -> None:
        self._stream = zlib.compressobj(6)

    def __call__(self, payload: bytes) -> bytes:
        return self._stream.compress(payload) + self._stream.flush(zlib.Z_PARTIAL_FLUSH)


class Inflate:
    """Incoming payloads; none may grow beyond the largest packet, however small it comes."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj()

    def __call__(self, payload: memoryview) -> memoryview:
        try:
            plain = self._stream.decompress(payload, LARGEST)
        except zlib.error:
            raise InflationError("broken compressed data") from None
        if self._stream.unconsumed_tail or len(plain) == LARGEST:
            raise InflationError(f"a compressed packet grows beyond {LARGEST} bytes")
        if not plain:
            raise InflationError("an empty compressed packet")
        return memoryview(plain)
