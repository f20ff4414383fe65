"""The log file of a service: its end, and a bound on its size."""

from __future__ import annotations

import os
from pathlib import Path

MOST_AT_ONCE = 1 << 20  # bytes that are read of a log that grows
LOOKED_AT = 64 << 10  # bytes from the end in which lines are looked for


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


def since(path: Path, at: int) -> tuple[list[str], int]:
    """The whole lines written after byte `at`, and where they end. A log that was cut short is
    read from its start. No file: no lines. Blocks: call it in a thread.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(at if size >= at else 0)
            begin, data = file.tell(), file.read(MOST_AT_ONCE)
    except FileNotFoundError:
        return [], 0
    whole = data[: data.rfind(b"\n") + 1] or (data if len(data) == MOST_AT_ONCE else b"")
    return whole.decode("utf-8", "replace").splitlines(), begin + len(whole)


def trim(path: Path, most: int) -> None:
    """Cut the oldest lines away so that at most `most` bytes stay. Blocks: call it in a thread.

    The service keeps writing into the same file: its descriptor appends, so truncating is safe.
    What it writes in the instant between the last look and the cut is lost.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    with os.fdopen(fd, "r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if size <= most:
            return
        file.seek(size - most - 1)
        kept = file.read(most + 1)
        kept = kept[kept.find(b"\n") + 1 :] if b"\n" in kept[:-1] else kept[1:]
        while late := file.read(1 << 20):
            kept += late
        file.truncate(0)
        file.write(kept[-most:] if most else b"")
