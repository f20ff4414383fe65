"""What a client can do wrong below its login, each with the code of its SSH disconnect."""

from __future__ import annotations

from typing import ClassVar

from twisted.conch.ssh import transport as conch


class PeerError(Exception):
    """The connection ends, and the client is told the text."""

    code: ClassVar[int] = conch.DISCONNECT_PROTOCOL_ERROR


class FramingError(PeerError):
    """The bytes are no SSH packet: a length or padding that cannot be."""


class OrderError(PeerError):
    """A message at a time when the protocol has no place for it."""


class TamperError(PeerError):
    """The packet was changed on its way, or sealed with another key."""

    code = conch.DISCONNECT_MAC_ERROR


class InflationError(PeerError):
    """Compressed data that is broken, or that grows beyond a packet."""

    code = conch.DISCONNECT_COMPRESSION_ERROR


class DisagreementError(PeerError):
    """The two sides have no algorithm in common; the text says for what, and who has which."""

    code = conch.DISCONNECT_KEY_EXCHANGE_FAILED
