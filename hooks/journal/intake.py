"""What comes into the journal, one turn after another: what was told it, and services' log files.

Everything here but `follow` blocks, and must be called by one thread at a time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from attrs import define, evolve, field, frozen

from hooks.journal.lines import SHIP, WEB, Event, Line, Read
from hooks.journal.ring import Ring
from hooks.journal.sources import Source, Taken, give_back, leave_out, take
from hooks.say import plain

NOTHING = Taken([], 0, 0, 0, whole=True)
AT_ONCE, OF_EACH = 512 << 10, 128 << 10  # bytes that are read in one turn, and of one log file
BREATH = 0.0005  # seconds after each piece, in which others have the interpreter
SET_BACK = 60.0  # seconds by which the clock may be behind the last event


@frozen
class Told:
    """Lines that the ship itself has for the journal."""

    time: float
    service: str
    release: str
    process: str
    lines: list[str]

    @property
    def of(self) -> tuple[str, str, str]:
        return self.service, self.release, self.process


@frozen
class Turn:
    """What a turn brought, whether more waits, and why something could not be written."""

    events: list[Event]
    busy: bool = False
    trouble: str = ""


@define(eq=False)
class Intake:
    """`most` bytes of a log file may wait to be read; more is left out, and said so."""

    ring: Ring
    most: int
    sources: dict[str, Source] = field(factory=dict)
    _new: list[str] = field(factory=list)
    _dropped: int = 0

    def open(self, logs: Path) -> None:
        """Go on with the log files of the last ship."""
        self.ring.open()
        for release, read in self.ring.read.items():
            path = logs / f"{release}.log"
            self.sources[release] = Source(path, read.service, release, at=read.at)

    def follow(self, path: Path, service: str, release: str, jobs: frozenset[str]) -> None:
        """Take what is written into `path`. Known already, it gets but the names of its jobs."""
        if release in self.sources:
            self.sources[release].jobs |= jobs
            return
        self.sources[release] = Source(path, service, release, jobs)
        self._new.append(release)

    def turn(self, told: Sequence[Told], now: float) -> Turn:
        """Take in what was told, and some more of the log files that grew."""
        events: list[Event] = []
        busy, read = False, 0
        try:
            self._remember_new()
            events += self._take_in(told, now)
            for written, source in self._due():
                if read >= AT_ONCE:
                    return Turn(events, busy=True)
                taken = self._take_some(source, written, now, events)
                busy, read = busy or not taken.whole, read + taken.read
        except OSError as error:
            self._dropped += 0 if events else sum(len(one.lines) for one in told)
            return Turn(events, trouble=f"{self.ring.directory}: {error.strerror}")
        return Turn(events, busy)

    def finish(self, release: str, now: float) -> Turn:
        """Take what is left of a log file that nobody writes into any more, and forget it."""
        source, events = self.sources.get(release), list[Event]()
        if source is None:
            return Turn(events)
        try:
            while not self._take(source, now, now, events, last=True).whole:
                pass
            self.ring.note({release: None})
        except OSError as error:
            return Turn(events, trouble=f"{self.ring.directory}: {error.strerror}")
        finally:
            self.sources.pop(release, None)
        return Turn(events)

    def _remember_new(self) -> None:
        """Were the ship killed now, the next would know whose log files these are."""
        new = [*self._new]
        there = {name: self.sources[name] for name in new if name in self.sources}
        if there:
            self.ring.note({name: Read(one.service, one.at) for name, one in there.items()})
        del self._new[: len(new)]

    def _take_in(self, told: Sequence[Told], now: float) -> list[Event]:
        lines = [
            Line(self._time(one.time, now), one.service, one.release, one.process, plain(text))
            for one in told
            for whole in one.lines
            for text in whole.split("\n")
        ]
        if self._dropped:
            text = f"{self._dropped} lines found no room in the journal"
            lines.insert(0, Line(self._time(now, now), "", "", SHIP, text))
        events = self.ring.append(lines)
        self._dropped = 0
        return events

    def _due(self) -> list[tuple[float, Source]]:
        """Those that grew, what was written longest ago first."""
        grown = [(source.grown(), source) for source in list(self.sources.values())]
        found = [(when, source) for when, source in grown if when is not None]
        return sorted(found, key=lambda one: one[0])

    def _take_some(self, source: Source, written: float, now: float, events: list[Event]) -> Taken:
        """What is `read` in one turn of one file."""
        read, taken = 0, NOTHING
        while read < OF_EACH:
            taken = self._take(source, written, now, events)
            read += taken.read
            if taken.whole:
                break
            time.sleep(BREATH)
        return evolve(taken, read=read)

    def _take(
        self, source: Source, written: float, now: float, events: list[Event], *, last: bool = False
    ) -> Taken:
        when = self._time(min(written, now), now)
        try:
            taken = take(source, when, last=last)
        except FileNotFoundError:
            return NOTHING
        events += self.ring.append(taken.lines)
        source.given = source.given if taken.at >= source.at else 0
        source.at = taken.at
        source.seen = taken.size if taken.whole else -1
        if taken.size - source.at > self.most:
            text = f"{leave_out(source)} bytes are left out: more is written than can be kept"
            line = Line(when, source.service, source.release, WEB, text, source.at)
            events += self.ring.append([line])
        if source.at - source.given > self.most:
            self._give_back(source)
        return taken

    def _give_back(self, source: Source) -> None:
        give_back(source)
        if not source.at:
            self.ring.note({source.release: Read(source.service, 0)})

    def _time(self, time: float, now: float) -> float:
        """Not before the last event, so that times go up as ids do; unless the clock was set back
        so far that they would stand still for long."""
        last = self.ring.time
        return max(time, last) if last < now + SET_BACK else time
