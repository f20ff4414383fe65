"""The journal: every line of every service and of the ship, in a ring of files.

What comes in is taken in turns, in a thread. Whoever follows reads from a place of its own as fast
as it can, so one that is slow holds up nobody.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.logger import Logger

from containers.watching import Waiters, in_thread
from hooks.journal.intake import Intake, Told, Turn
from hooks.journal.lines import SHIP, Batch, Event, Wanted
from hooks.journal.reading import Reader
from hooks.journal.ring import Ring
from hooks.layout import Layout
from hooks.settings import Settings

IN_THE_JOURNAL = "in_the_journal"  # the key in what the ship logs that comes from the journal
QUIET, BRISK = 1.0, 0.1  # seconds between two turns, and while something comes in
MOST_WAITING = 3 << 20  # bytes that wait for their turn
OF_EACH = 512  # bytes that a line takes up besides its characters
AT_ONCE = 0.01  # seconds in which lines are as good as said at one time
RECENT = 2048  # events kept in memory for those who follow
LAST_TURNS = 16


@define(eq=False)
class Journal:
    """One for each ship. `open` it before anything is logged, `close` it last."""

    reactor: Any
    layout: Layout
    settings: Settings
    _intake: Intake = field(init=False)
    _reader: Reader = field(init=False)
    _recent: deque[Event] = field(init=False, factory=lambda: deque(maxlen=RECENT))
    _waiting: list[Told] = field(init=False, factory=list)
    _size: int = 0
    _left_out: int = 0
    _listening: Waiters = field(init=False, factory=Waiters)
    _turning: DeferredLock = field(init=False, factory=DeferredLock)
    _going: Deferred[None] | None = None
    _timer: Any = None
    _closing: bool = False
    _closed: bool = False
    _trouble: str = ""
    _log: Logger = Logger()

    def __attrs_post_init__(self) -> None:
        ring = Ring(self.layout.journal, self.settings.logs)
        self._intake = Intake(ring, self.settings.service_log)
        self._reader = Reader(self.layout.journal)

    async def open(self) -> None:
        """Go on with what is there. `OSError` when the directory is not to be used."""
        await in_thread(self.reactor, self._intake.open, self.layout.logs)
        self._going = Deferred.fromCoroutine(self._go())

    async def close(self) -> None:
        """Take in what has come so far; nothing comes after that, for another process may write
        then. What is there can still be read."""
        self._closing = True
        self._soon(0)
        if self._going is not None:
            await self._going
        await self.settle()
        self._closed = True
        await self._turning.run(self._intake.ring.close)

    @property
    def newest(self) -> int:
        """The id of the newest event, 0 when there is none."""
        return self._intake.ring.newest

    def write(self, service: str, release: str, process: str, lines: Sequence[str]) -> None:
        """Add lines as of now. They are cleaned and written a moment later, or left out and counted
        when there are too many."""
        if self._closed:
            return
        size = sum(map(len, lines)) + OF_EACH * len(lines)
        if self._size + size > MOST_WAITING:
            self._left_out += len(lines)
            return
        self._size += size
        of, now = (service, release, process), time.time()
        last = self._waiting[-1] if self._waiting else None
        if last is not None and last.of == of and now - last.time < AT_ONCE:
            last.lines.extend(lines)
        else:
            self._waiting.append(Told(now, *of, list(lines)))
        self._soon(BRISK)

    def follow(self, container: str, service: str, jobs: Iterable[str] = ()) -> None:
        """Take what is written into the log file of a container, until its `end`."""
        path = self.layout.service_log(container)
        self._intake.follow(path, service, container, frozenset(jobs))
        self._soon(BRISK)

    async def end(self, container: str) -> None:
        """Take what is left in the log file of a container that runs no more."""
        await self._alone(self._intake.finish, container)

    async def settle(self) -> None:
        """Take in what has come so far, as far as it can be told from what comes now."""
        for _ in range(LAST_TURNS):
            if not await self._turn():
                return

    async def read(self, after: int, wanted: Wanted = Wanted(), most: int = 500) -> Batch:
        """The wanted ones of the events after the id `after`, at most so many.

        They may be none although there are more: go on from `upto`, until it is `newest`.
        """
        newest = self.newest
        if after >= newest:
            return Batch([], newest)
        if self._recent and self._recent[0].id <= after + 1 and self._recent[-1].id == newest:
            return self._recently(after, wanted, most)
        return await in_thread(self.reactor, self._reader.read, after, wanted, most, newest)

    async def coming(self, after: int, wanted: Wanted = Wanted(), most: int = 500) -> Batch:
        """As `read`, but waits until there are some."""
        missed = 0
        while True:
            batch = await self.read(after, wanted, most)
            missed += batch.missed
            if batch.events or missed:
                return Batch(batch.events, batch.upto, missed)
            after = batch.upto
            if after >= self.newest:
                await self.grown()

    async def last(self, count: int, wanted: Wanted = Wanted()) -> list[Event]:
        """The newest of the wanted ones, oldest first."""
        newest = self.newest
        found = await in_thread(self.reactor, self._reader.last, count, wanted)
        return [event for event in found if event.id <= newest]

    async def since(self, when: float) -> int:
        """The id after which events are at `when` (epoch seconds) or later."""
        return await in_thread(self.reactor, self._reader.since, when)

    def grown(self) -> Deferred[None]:
        """Fires at the next event. May be cancelled."""
        return self._listening.wait()

    def _recently(self, after: int, wanted: Wanted, most: int) -> Batch:
        events: list[Event] = []
        upto = after
        for number in range(after + 1 - self._recent[0].id, len(self._recent)):
            if len(events) >= most:
                break
            event = self._recent[number]
            upto = event.id
            if wanted(event):
                events.append(event)
        return Batch(events, upto)

    async def _go(self) -> None:
        busy = False
        while not self._closing:
            await self._pause(BRISK if busy else QUIET)
            try:
                busy = await self._turn()
            except Exception:  # nobody cancels this
                self._log.failure("the journal took nothing in")

    def _pause(self, seconds: float) -> Deferred[None]:
        due: Deferred[None] = Deferred()
        seconds = BRISK if self._waiting else seconds
        self._timer = self.reactor.callLater(seconds, due.callback, None)
        return due

    def _soon(self, seconds: float) -> None:
        """The next turn is in so many seconds, if not sooner."""
        timer = self._timer
        until = self.reactor.seconds() + seconds
        if timer is not None and timer.active() and timer.getTime() > until:
            timer.reset(seconds)

    async def _turn(self) -> bool:
        """Whether there is more to take in."""
        told, self._waiting, self._size = self._waiting, [], 0
        if self._left_out:
            text = f"{self._left_out} lines were left out: too many at once"
            told.append(Told(time.time(), "", "", SHIP, [text]))
            self._left_out = 0
        return await self._alone(self._intake.turn, told)

    def _alone(self, work: Callable[[Any, float], Turn], about: Any) -> Deferred[bool]:
        """Do `work` when no other is on; whether there is more of it. Whoever waits may be
        cancelled, the work is not."""
        if self._closed:
            return succeed(False)
        turning = self._turning.run(in_thread, self.reactor, work, about, time.time())
        done: Deferred[bool] = turning.addCallback(self._took)
        waited: Deferred[bool] = Deferred()
        done.chainDeferred(waited)
        return waited

    def _took(self, turn: Turn) -> bool:
        self._tell(turn.events)
        self._note(turn)
        return turn.busy

    def _tell(self, events: Sequence[Event]) -> None:
        if events:
            self._recent.extend(events)
            self._listening.go_on()

    def _note(self, turn: Turn) -> None:
        """Trouble is said once, in the ship's own log."""
        if turn.trouble and turn.trouble != self._trouble:
            self._log.error("{why}: what is logged is lost", why=turn.trouble)
        elif self._trouble and not turn.trouble:
            self._log.info("{path} can be written again", path=str(self.layout.journal))
        self._trouble = turn.trouble
