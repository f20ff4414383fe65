"""Server-Sent Events as text: frames, and the ids by which a stream is resumed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from attrs import define, field, frozen

from hooks.errors import Refused

TYPE = "text/event-stream; charset=utf-8"
BEAT = b": still here\n\n"
LONGEST = 1 << 16  # bytes of one frame that is read
SHIP = re.compile(r"[a-z0-9.:\[\]-]{1,253}")
_ID = re.compile(rf"(?:({SHIP.pattern}):)?([0-9]{{1,18}})")

Position = dict[str, int]
"""The newest event that was seen, by ship; "" where a stream is of one ship and does not say."""


def frame(data: str, *, kind: str = "", id: str = "") -> bytes:
    """One event of a line of JSON, which has no newline in it. Of no `kind` it is a message."""
    head = (f"event: {kind}\n" if kind else "") + (f"id: {id}\n" if id else "")
    return f"{head}data: {data}\n\n".encode("utf-8", "replace")


def read_position(text: str) -> Position:
    """`12`, or `ship1:12,ship2:7`; "" is none. `Refused` for what no stream of ours said."""
    found: Position = {}
    for part in text.split(",") if text else ():
        match = _ID.fullmatch(part)
        if match is None:
            raise Refused(f"Last-Event-ID: {ascii(part)[:60]} is none that this stream said")
        found[match[1] or ""] = int(match[2])
    return found


def position_text(position: Mapping[str, int]) -> str:
    """What `read_position` reads."""
    return ",".join(f"{ship}:{id}" if ship else str(id) for ship, id in position.items())


@frozen
class Frame:
    """One event that was read: its kind ("" for a message), and its data."""

    kind: str
    data: str


class Odd(Exception):
    """What comes is no stream of a ship's; the text says how."""


@define
class Frames:
    """Reads frames out of chunks that may end anywhere. `Odd` when one does not end."""

    _rest: bytes = b""
    _kind: str = ""
    _data: list[str] = field(factory=list)
    _size: int = 0

    def take(self, chunk: bytes) -> Iterator[Frame]:
        """The frames that are whole by now."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            if frame := self._line(line):
                yield frame
        if self._size + len(self._rest) > LONGEST:
            raise Odd(f"an event of more than {LONGEST} bytes")

    def _line(self, line: bytes) -> Frame | None:
        text = line.decode("utf-8", "replace").removesuffix("\r")
        if not text:
            return self._whole()
        name, _, value = text.partition(":")
        if name == "event":
            self._kind = value.removeprefix(" ")
        elif name == "data":
            self._data.append(value.removeprefix(" "))
        self._size += len(line)
        return None

    def _whole(self) -> Frame | None:
        kind, data = self._kind, "\n".join(self._data)
        self._kind, self._data, self._size = "", [], 0
        return Frame(kind, data) if data else None
