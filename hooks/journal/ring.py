"""The journal's files: segments in a directory, of which the oldest make room for the newest."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from attrs import define, field

from hooks.journal.lines import Event, Line, Read, mark, take_in, written

SUFFIX = ".jsonl"
SEGMENTS = 16  # that the budget is divided into
LEAST, MOST = 64 << 10, 16 << 20  # bytes of one segment


def segments(directory: Path) -> list[int]:
    """The first ids of the segments that are there, oldest first."""
    return sorted(int(path.stem) for path in directory.glob(f"*{SUFFIX}") if path.stem.isdigit())


def segment(directory: Path, first: int) -> Path:
    return directory / f"{first:016d}{SUFFIX}"


@define(eq=False)
class Ring:
    """Writes the segments; of one directory there is one. `read` is how far log files were read.

    Everything here blocks, and must be called by one thread at a time.
    """

    directory: Path
    budget: int
    newest: int = 0
    time: float = 0.0
    read: dict[str, Read] = field(factory=dict)
    _fd: int = -1
    _size: int = 0

    def open(self) -> None:
        """Go on where the last ship ended, whatever ended it: a torn line is cut off."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for first in reversed(segments(self.directory)):
            if self._recover(segment(self.directory, first), first):
                return

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def append(self, lines: Sequence[Line]) -> list[Event]:
        """Write `lines`; the events they have become. `OSError` when nothing was written."""
        events, data = [], []
        for id, line in enumerate(lines, self.newest + 1):
            data.append(written(line, id))
            content, time = line.content, round(line.time, 3)
            events.append(Event(id, time, line.service, line.release, line.process, content))
        if not events:
            return []
        self._write(b"".join(data))
        self.newest, self.time = events[-1].id, events[-1].time
        for line in lines:
            if line.at is not None:
                self.read[line.release] = Read(line.service, line.at)
        return events

    def note(self, read: Mapping[str, Read | None]) -> None:
        """Write down how far log files were read where no event says so."""
        self._write(mark(read))
        for name, one in read.items():
            if one is None:
                self.read.pop(name, None)
            else:
                self.read[name] = one

    def _write(self, data: bytes) -> None:
        if self._fd < 0 or self._size >= self._most:
            self._begin()
        self._put(data)

    def _put(self, data: bytes) -> None:
        """All of it or, on a full disk, nothing."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise
        self._size += len(data)

    def _begin(self) -> None:
        """A new segment, and room for it."""
        self.close()
        path = segment(self.directory, self.newest + 1)
        self._open(path, 0)
        try:
            self._put(mark(self.read))
        except OSError:
            self.close()
            path.unlink(missing_ok=True)
            raise
        self._make_room()

    def _open(self, path: Path, size: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(path, flags, 0o600)
        os.ftruncate(self._fd, size)
        self._size = size

    def _make_room(self) -> None:
        """The newest segment may become full without the budget being passed."""
        *closed, _ = segments(self.directory)
        left = self.budget - self._most
        for first in reversed(closed):
            path = segment(self.directory, first)
            left -= path.stat().st_size
            if left < 0:
                path.unlink()

    @property
    def _most(self) -> int:
        return min(MOST, max(LEAST, self.budget // SEGMENTS))

    def _recover(self, path: Path, first: int) -> bool:
        """Whether the segment is one to go on with; else it is removed."""
        data = path.read_bytes()
        read: dict[str, Read] = {}
        last, time, good = 0, 0.0, 0
        while (end := data.find(b"\n", good) + 1) > 0:
            try:
                id, at = take_in(read, [data[good:end]])
            except (ValueError, KeyError, TypeError):
                break
            last, time, good = id or last, at or time, end
        if not good:
            path.unlink()
            return False
        self.read, self.newest, self.time = read, last or first - 1, time
        self._open(path, good)
        return True
