"""What a pusher reads: Heroku's shape, with nothing in it that could command a terminal."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

HEADER = "-----> "
INDENT = "       "
_LONGEST = 4096  # characters of a line; the rest is cut
_SGR = r"\x1b\[[0-9;:]*m"
_ESCAPE = (
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # operating system commands
    r"|\x1b[PX^_][^\x1b]*(?:\x1b\\)?"  # device control and other strings
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # control sequences
    r"|\x1b[ -/]*[0-~]"  # other escapes
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"  # every other control code but tab
    r"|[\u200e\u200f\u2028-\u202e\u2066-\u2069]"  # what turns or breaks lines
)
_ESCAPES = re.compile(_ESCAPE)
_COLOUR_OR_ESCAPE = re.compile(f"({_SGR})|{_ESCAPE}")

Listen = Callable[[str], None]
"""Takes one finished line, without its end."""


def clean(line: str) -> str:
    """`line` without control codes other than colour, which is switched off at its end."""
    kept = _COLOUR_OR_ESCAPE.sub(lambda match: match[1] or "", line[:_LONGEST])
    return kept + "\x1b[0m" if "\x1b[" in kept and not kept.endswith("\x1b[0m") else kept


def plain(line: str) -> str:
    """`line` without control codes, colour among them."""
    return _ESCAPES.sub("", line[:_LONGEST])


class Say:
    """Turns headers, lines and raw tool output into clean lines, and hands each to `listen`.

    Tool output that begins with `----->` is a header already; the rest is indented. A carriage
    return starts its line anew (progress bars), so only what stood last is said.
    """

    def __init__(self, listen: Listen) -> None:
        self._listen = listen
        self._rest = b""

    def header(self, text: str) -> None:
        self._flush()
        self._listen(clean(HEADER + text))

    def line(self, text: str = "") -> None:
        self._flush()
        self._listen(clean(INDENT + text) if text else "")

    def plain(self, text: str) -> None:
        """A line with nothing before it: the URL, the reason of a failure."""
        self._flush()
        self._listen(clean(text))

    def output(self, data: bytes) -> None:
        """Raw bytes of a tool, in chunks that may end anywhere."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > 4 * _LONGEST:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._tool_line(line)

    def _flush(self) -> None:
        if self._rest:
            line, self._rest = self._rest, b""
            self._tool_line(line)

    def _tool_line(self, raw: bytes) -> None:
        text = raw.decode("utf-8", "replace").rstrip("\r").rpartition("\r")[2]
        headed = text.startswith(HEADER.rstrip())
        self._listen(clean(text if headed or not text else INDENT + text))


def timing(steps: Mapping[str, float], total: float, before: float | None) -> str:
    """`build 0.61 s, start 0.30 s: 0.95 s in all (last push 4.20 s)`. Seconds all."""
    each = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in steps.items())
    against = f" (last push {before:.2f} s)" if before is not None else ""
    return f"{each}: {total:.2f} s in all{against}"
