"""Looking events up in the journal's files, beside whoever writes them. Everything here blocks."""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from attrs import define, field

from hooks.journal.lines import Batch, Event, Wanted, event_of, id_of, is_event
from hooks.journal.ring import segment, segments

AT_ONCE = 4 << 20  # bytes that one reading looks through at most
REMEMBERED = 256  # places in segments, for as many who go on from there


@define(eq=False)
class Reader:
    """Reads the segments in `directory`; a ship may be writing them or not."""

    directory: Path
    _places: OrderedDict[int, tuple[int, int]] = field(factory=OrderedDict)

    def read(self, after: int, wanted: Wanted, most: int = 500, until: int = sys.maxsize) -> Batch:
        """Events after the id `after` up to `until`: at most so many, and no more than are looked
        through at once."""
        while firsts := segments(self.directory):
            try:
                return self._read(firsts, after, wanted, most, until)
            except FileNotFoundError:  # it made room meanwhile
                continue
        return Batch([], after)

    def last(self, count: int, wanted: Wanted) -> list[Event]:
        """The newest events, oldest first."""
        found: list[Event] = []
        for first in reversed(segments(self.directory)):
            if len(found) >= count:
                break
            found += self._backwards(first, wanted, count - len(found))
        return found[::-1]

    def since(self, when: float) -> int:
        """The id after which events are at `when` (epoch seconds) or later."""
        firsts = segments(self.directory)
        starts = [(first, self._began(first)) for first in firsts]
        earlier = [first for first, began in starts if began is not None and began < when]
        if not earlier:
            return firsts[0] - 1 if firsts else 0
        last = earlier[-1] - 1
        for line in self._lines(earlier[-1]):
            event = event_of(line)
            if event.time >= when:
                break
            last = event.id
        return last

    def newest(self) -> int:
        """The id of the newest event, 0 when there is none."""
        for first in reversed(segments(self.directory)):
            ids = [id_of(line) for line in self._lines(first)]
            if ids or first > 1:
                return ids[-1] if ids else first - 1
        return 0

    def _read(self, firsts: list[int], after: int, wanted: Wanted, most: int, until: int) -> Batch:
        marks, began = wanted.marks, firsts[0] - 1
        upto, looked = max(after, began), 0
        events: list[Event] = []
        start = max(0, bisect_right(firsts, upto + 1) - 1)
        for number, at, id, line in self._after(firsts[start:], upto):
            if id > until or len(events) >= most or looked >= AT_ONCE:
                break
            if _may_be(line, marks):
                events.append(event_of(line))
            upto, looked, place = id, looked + len(line), (number, at)
        if looked:
            self._remember(upto, place)
        return Batch(events, upto, max(0, began - after))

    def _after(self, firsts: list[int], upto: int) -> Iterator[tuple[int, int, int, bytes]]:
        """The events after `upto`: the segment, where the next line begins, the id and the line."""
        for number in firsts:
            at = self._place(number, upto)
            with segment(self.directory, number).open("rb") as file:
                file.seek(at)
                for line in file:
                    at += len(line)
                    if not line.endswith(b"\n"):
                        return
                    if is_event(line) and (id := id_of(line)) > upto:
                        yield number, at, id, line

    def _place(self, number: int, after: int) -> int:
        """Where in a segment to look for what comes after the id `after`."""
        known, at = self._places.get(after, (0, 0))
        return at if known == number else 0

    def _remember(self, upto: int, place: tuple[int, int]) -> None:
        self._places[upto] = place
        while len(self._places) > REMEMBERED:
            self._places.popitem(last=False)

    def _backwards(self, first: int, wanted: Wanted, count: int) -> list[Event]:
        """The newest of one segment, newest first."""
        found: list[Event] = []
        marks = wanted.marks
        for line in reversed(list(self._lines(first))):
            if len(found) >= count:
                break
            if _may_be(line, marks):
                found.append(event_of(line))
        return found

    def _began(self, first: int) -> float | None:
        for line in self._lines(first):
            return event_of(line).time
        return None

    def _lines(self, first: int) -> Iterator[bytes]:
        """The whole lines of events; none of a segment that has made room meanwhile."""
        try:
            with segment(self.directory, first).open("rb") as file:
                yield from (line for line in file if is_event(line) and line.endswith(b"\n"))
        except FileNotFoundError:
            return


def _may_be(line: bytes, marks: tuple[bytes, ...]) -> bool:
    return not marks or any(mark in line for mark in marks)
