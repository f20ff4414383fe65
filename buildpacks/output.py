"""What is kept of a tool's output: its beginning as data, its end as words for a person."""

from __future__ import annotations

import re
from collections import deque

from attrs import define, field

CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[@-_]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
COMPLAINT = re.compile(r" ! +(\S.*)")
LINE_BYTES = 400


def plain(line: bytes) -> str:
    """One line as text, without colour and control codes and without trailing space."""
    return CONTROL.sub("", line.decode("utf-8", "replace")).rstrip()


@define
class Head:
    """Keeps the first `limit` bytes."""

    limit: int
    data: bytes = b""

    def feed(self, chunk: bytes) -> None:
        self.data += chunk[: self.limit - len(self.data)]


@define
class Tail:
    """Keeps the last lines that are not blank, each cut at 400 bytes."""

    keep: int = 10
    _lines: deque[str] = field(init=False)
    _rest: bytes = b""

    def __attrs_post_init__(self) -> None:
        self._lines = deque(maxlen=self.keep)

    def feed(self, chunk: bytes) -> None:
        *whole, rest = re.split(rb"[\r\n]+", self._rest + chunk)
        self._rest = rest[:LINE_BYTES]
        for line in whole:
            self._add(line)

    def _add(self, line: bytes) -> None:
        if text := plain(line[:LINE_BYTES]):
            self._lines.append(text)

    def lines(self) -> tuple[str, ...]:
        """The lines so far, oldest first, the unfinished one included."""
        last = plain(self._rest)
        return (*self._lines, last)[-self.keep :] if last else tuple(self._lines)

    def complaint(self) -> str:
        """The text of the last line that begins with ` ! `, as packs print an error, else ''."""
        found = (COMPLAINT.fullmatch(line) for line in reversed(self.lines()))
        return next((match[1] for match in found if match), "")
