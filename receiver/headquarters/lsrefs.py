"""git's protocol version 2, as far as asking for refs needs it (gitprotocol-v2(5))."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from receiver.headquarters.refs import Found

_FLUSH, _DELIMITER = b"0000", b"0001"
_REF = re.compile(rb"([0-9a-f]{40}(?:[0-9a-f]{24})?) (\S+)(.*)")
_PEELED = re.compile(rb" peeled:([0-9a-f]{40}(?:[0-9a-f]{24})?)(?: |$)")
_FORMAT = re.compile(rb"object-format=(sha1|sha256)")


class Odd(Exception):
    """What came is no answer in this protocol."""


def packet(line: bytes) -> bytes:
    return b"%04x" % (len(line) + 4) + line


def packets(data: bytes) -> Iterator[bytes | None]:
    """The lines of `data` without their ends; `None` for what stands between lines."""
    at = 0
    while at < len(data):
        try:
            size = int(data[at : at + 4], 16)
        except ValueError:
            raise Odd("no packet line") from None
        end = at + max(size, 4)
        if size == 3 or size > 65520 or end > len(data):
            raise Odd("a packet line of a wrong length")
        yield data[at + 4 : end].removesuffix(b"\n") if size >= 4 else None
        at = end


def format_of(advertised: bytes) -> bytes:
    """The object format of a server that says it can list refs in version 2, else `Odd`."""
    lines = [line for line in packets(advertised) if line is not None]
    lines = [line for line in lines if not line.startswith(b"# service=")]
    if lines[:1] != [b"version 2"] or not any(line.startswith(b"ls-refs") for line in lines):
        raise Odd("not version 2")
    formats = [match[1] for line in lines if (match := _FORMAT.fullmatch(line))]
    return formats[0] if formats else b"sha1"


def question(names: Sequence[str], object_format: bytes) -> bytes:
    """Asks for the refs that begin with `names`, and for what tags point to."""
    prefixes = [b"ref-prefix " + name.encode() + b"\n" for name in names]
    head = [b"command=ls-refs\n", b"object-format=" + object_format]
    lines = [b"peel\n", *prefixes]
    return _joined(head) + _DELIMITER + _joined(lines) + _FLUSH


def _joined(lines: Iterable[bytes]) -> bytes:
    return b"".join(map(packet, lines))


def answer(data: bytes) -> Found:
    """The refs in the answer to a `question`, with what tags point to under `NAME^{}`."""
    *lines, last = list(packets(data)) or [b""]
    if last is not None:
        raise Odd("an answer without its end")
    found: dict[str, str] = {}
    for line in lines:
        match = _REF.fullmatch(line or b"")
        if match is None:
            if (line or b"").startswith(b"unborn "):
                continue
            raise Odd("a line that is no ref")
        name = match[2].decode("utf-8", "surrogateescape")
        found[name] = match[1].decode()
        if peeled := _PEELED.search(match[3]):
            found[f"{name}^{{}}"] = peeled[1].decode()
    return found
