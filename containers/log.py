"""The log file of a service: its end, and a bound on what it takes of the disk."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

LOOKED_AT = 64 << 10  # bytes from the end in which lines are looked for

_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # of linux/falloc.h
_libc = ctypes.CDLL(None, use_errno=True)


def tail(path: Path, lines: int = 20) -> list[str]:
    """The last `lines` lines, oldest first; reads only the end of the file. No file: no lines."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LOOKED_AT))
            end = file.read(LOOKED_AT)
    except FileNotFoundError:
        return []
    found = end.decode("utf-8", "replace").splitlines()
    return found[-lines:] if lines > 0 else []


def punch(fd: int, length: int) -> bool:
    """Give the disk back the first `length` bytes of a file, which keeps its size and may be
    written to meanwhile. False where the file system knows no holes."""
    flags = _KEEP_SIZE | _PUNCH_HOLE
    if _libc.fallocate64(fd, flags, ctypes.c_int64(0), ctypes.c_int64(length)) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EOPNOTSUPP, errno.ENOSYS):
        return False
    raise OSError(number, os.strerror(number))
