"""The log files that services write into, on their way into the journal. Everything here blocks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import define, frozen

from containers.log import punch
from hooks.journal.lines import WEB, Line
from hooks.say import plain

AT_ONCE = 32 << 10  # bytes that are read at once
UNENDED = 16 << 10  # bytes of a line without an end that are taken as one
FAR = 1 << 40  # bytes; file systems have an end at some 16 of these
_OF_A_JOB = re.compile(r"\[([^\]\s]{1,100})\] ?")


@define(eq=False)
class Source:
    """The log file `path` of a container, which is named by its release; `jobs` are the names that
    may stand before a line. It was read to `at`, looked through when it was `seen` bytes long, and
    the disk has what is before `given` back."""

    path: Path
    service: str
    release: str
    jobs: frozenset[str] = frozenset()
    at: int = 0
    seen: int = 0
    given: int = 0

    def grown(self) -> float | None:
        """When it was last written to, in epoch seconds, if there is something new in it."""
        try:
            now = self.path.stat()
        except FileNotFoundError:
            return None
        return now.st_mtime if now.st_size != self.seen else None


@frozen
class Taken:
    """Lines in `read` bytes, up to the byte `at`, of a file that was `size` bytes long. `whole` is
    whether nothing but the beginning of a line may be left of it."""

    lines: list[Line]
    read: int
    at: int
    size: int
    whole: bool


def take(source: Source, time: float, *, last: bool = False) -> Taken:
    """The next lines of `source`, which are of `time`; `last` takes one without an end too.

    A file that was cut short is read from its start.
    """
    with _opened(source) as fd:
        size = os.fstat(fd).st_size
        at = source.at if size >= source.at else 0
        data = os.pread(fd, AT_ONCE, at)
    lines = list(_lines(source, data, at, time, ended=last and at + len(data) >= size))
    end = at if not lines or lines[-1].at is None else lines[-1].at
    return Taken(lines, len(data), end, max(size, at + len(data)), len(data) < AT_ONCE)


def leave_out(source: Source) -> int:
    """Go on at the end of the file; how many bytes are not read."""
    with _opened(source) as fd:
        left = os.fstat(fd).st_size - source.at
    source.at += left
    return left


def give_back(source: Source) -> None:
    """Give the disk back what was read. The file keeps its length, and what is written meanwhile;
    only one that says it is very long, or on a disk without holes, is cut to nothing, at a moment
    when all of it is read."""
    with _opened(source) as fd:
        if source.at < FAR and punch(fd, source.at):
            source.given = source.at
        elif os.fstat(fd).st_size <= source.at:
            os.ftruncate(fd, 0)
            source.at = source.seen = source.given = 0


@contextmanager
def _opened(source: Source) -> Iterator[int]:
    fd = os.open(source.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _lines(source: Source, data: bytes, at: int, time: float, *, ended: bool) -> Iterator[Line]:
    *whole, rest = data.split(b"\n")
    for raw in whole:
        at += len(raw) + 1
        yield _line(source, raw, at, time)
    if rest and (ended or len(rest) >= UNENDED):
        yield _line(source, rest, at + len(rest), time)


def _line(source: Source, raw: bytes, at: int, time: float) -> Line:
    """Of a line with carriage returns (a bar of progress) what stood last."""
    text = raw.decode("utf-8", "replace").rstrip("\r").rpartition("\r")[2]
    process, content = of_job(plain(text), source.jobs)
    return Line(time, source.service, source.release, process, content, at)


def of_job(content: str, jobs: frozenset[str]) -> tuple[str, str]:
    """The process that a line is of, and the line without the job's name before it."""
    match = _OF_A_JOB.match(content) if jobs and content.startswith("[") else None
    if match is not None and match[1] in jobs:
        return match[1], content[match.end() :]
    return WEB, content
