"""A terminal for a session: a pty, of which the server holds one end."""

# Conch is mostly without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import struct
import termios
import tty
from collections.abc import Sequence
from typing import Any

from attrs import define, frozen
from twisted.conch.ssh.common import getNS
from twisted.conch.ttymodes import TTYMODES

_KIND = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_DISABLED = 255  # as SSH has it; Linux has 0
_MODES = {**TTYMODES, 42: (tty.IFLAG, "IUTF8")}  # RFC 8160: Backspace takes a whole character
_BITS = {"IUTF8": 0o40000}  # that `termios` has no name for


@frozen
class Size:
    """Of a window, in characters and pixels."""

    rows: int
    columns: int
    width: int
    height: int


@frozen
class Wanted:
    """The terminal that a client has: its kind, its size, and what it does to characters."""

    term: str
    size: Size
    modes: Sequence[tuple[int, int]]


def read_size(data: bytes) -> Size:
    """Of a window-change request, and in the middle of a pty-req."""
    columns, rows, width, height = (min(each, 0xFFFF) for each in struct.unpack(">4L", data[:16]))
    return Size(rows, columns, width, height)


def read_wanted(data: bytes) -> Wanted:
    """Of a pty-req. A kind that could mean a path is none."""
    kind, rest = getNS(data)
    modes = getNS(rest[16:])[0]
    term = kind.decode() if _KIND.fullmatch(kind) else "dumb"
    return Wanted(term, read_size(rest), tuple(_pairs(modes)))


def _pairs(modes: bytes) -> Sequence[tuple[int, int]]:
    """As RFC 4254, 8: a byte and a number, until a byte that ends it or means nothing."""
    found = []
    while len(modes) >= 5 and 1 <= modes[0] < 160:
        found.append((modes[0], struct.unpack(">L", modes[1:5])[0]))
        modes = modes[5:]
    return found


def with_modes(attributes: Sequence[Any], modes: Sequence[tuple[int, int]]) -> list[Any]:
    """What `tcgetattr` gave, changed as the client says; what Linux does not have is passed over.

    Speeds mean nothing to a pty.
    """
    changed = [*attributes]
    characters = list(attributes[6])
    for mode, value in modes:
        known = _MODES.get(mode)
        if isinstance(known, tuple) and (bits := getattr(termios, known[1], _BITS.get(known[1]))):
            place = known[0]
            changed[place] = (changed[place] | bits) if value else (changed[place] & ~bits)
        elif isinstance(known, str) and hasattr(termios, known):
            characters[getattr(termios, known)] = bytes((0 if value >= _DISABLED else value,))
    changed[6] = characters
    return changed


@define
class Terminal:
    """`ours` and `theirs` are descriptors; `theirs` is closed by whoever gave it to a child."""

    ours: int
    theirs: int

    @classmethod
    def open(cls, wanted: Wanted, uid: int | None) -> Terminal:
        """A new one, which belongs to the user `uid`. Raises `OSError`."""
        terminal = cls(*os.openpty())
        terminal.resize(wanted.size)
        attributes = with_modes(termios.tcgetattr(terminal.theirs), wanted.modes)
        termios.tcsetattr(terminal.theirs, termios.TCSANOW, attributes)
        if uid is not None:
            os.fchown(terminal.theirs, uid, -1)
        return terminal

    @property
    def name(self) -> str:
        return os.ttyname(self.theirs)

    def resize(self, size: Size) -> None:
        """The kernel tells the programs."""
        packed = struct.pack("4H", size.rows, size.columns, size.width, size.height)
        if self.ours >= 0:
            fcntl.ioctl(self.ours, termios.TIOCSWINSZ, packed)

    def signal(self, number: signal.Signals) -> bool:
        """To the programs in the foreground; whether there were any."""
        with contextlib.suppress(OSError):
            if group := os.tcgetpgrp(self.ours):  # 0, nobody, would mean the ship's own
                os.killpg(group, number)
                return True
        return False

    @property
    def end_of_file(self) -> bytes:
        """What somebody at the terminal types to say that nothing more will come."""
        with contextlib.suppress(OSError, termios.error):
            return bytes(termios.tcgetattr(self.ours)[6][termios.VEOF])
        return b""

    def close(self) -> None:
        """The line is cut: the kernel sends SIGHUP to whoever still is at it."""
        if self.ours >= 0:
            os.close(self.ours)
            self.ours = -1
