"""Jobs by the clock: when one is due, and the schedule of one service while it serves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice
from typing import Any

from attrs import define, field
from cronsim import CronSim, CronSimError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from hooks.standing import Job

KINDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
REBOOT = "@reboot"
LOOK = 60.0  # seconds, at most, between two looks at the clock: somebody may set it
LATE = 90.0  # seconds after which a run counts as missed: the ship was away or the clock was set
COUNTED = 1000  # missed runs that are counted

Run = Callable[[Job], Awaitable[object]]


class Local(tzinfo):
    """The ship's zone with its rules: `datetime.astimezone` gives but the offset of one moment."""

    def utcoffset(self, when: datetime | None) -> timedelta | None:
        return when.replace(tzinfo=None).astimezone().utcoffset() if when else None

    def dst(self, when: datetime | None) -> timedelta | None:
        return None

    def tzname(self, when: datetime | None) -> str | None:
        return when.replace(tzinfo=None).astimezone().tzname() if when else None

    def fromutc(self, when: datetime) -> datetime:
        seconds = when.replace(tzinfo=UTC).timestamp()
        return datetime.fromtimestamp(seconds).replace(tzinfo=self)


def _times(schedule: str, after: datetime) -> Iterator[datetime]:
    """Later than `after` in real time: of an hour that the clock has twice cronsim names but the
    first."""
    for time in CronSim(KINDS.get(schedule, schedule), after):
        if time.timestamp() > after.timestamp():
            yield time


def due(schedule: str, after: datetime) -> datetime | None:
    """The next time that `schedule` names after `after`; `None` when there is none."""
    if schedule == REBOOT:
        return None
    try:
        found: datetime = next(_times(schedule, after))
    except (CronSimError, StopIteration):
        return None
    return found


def missed(schedule: str, after: datetime, until: datetime) -> list[datetime]:
    """The times that `schedule` names after `after`, up to `until`; a thousand at most."""
    if schedule == REBOOT:
        return []
    times = []
    for time in islice(_times(schedule, after), COUNTED):
        if time.timestamp() > until.timestamp():
            break
        times.append(time)
    return times


@define(eq=False)
class Cron:
    """The jobs of one service. `run` runs one to its end, `say` takes a line for the log.

    `looked` is told of each look at the clock: what was due before it was seen to. `now` is local
    time, with its zone.
    """

    reactor: Any
    jobs: Sequence[Job]
    run: Run
    say: Callable[[str], None]
    looked: Callable[[datetime], None]
    now: Callable[[], datetime]
    _running: dict[str, tuple[datetime, Deferred[None]]] = field(factory=dict)
    _log: Logger = Logger()

    async def go(self, since: datetime | None) -> None:
        """Start jobs as they fall due, `@reboot` at once, until cancelled; those that run go on.

        `since` is the last look at the clock, also by another version of the service.
        """
        last = since or self.now()
        for job in self.jobs:
            if job.schedule == REBOOT:
                self._start(job, self.now())
        while True:
            now = self.now()
            for job in self.jobs:
                self._see_to(job, last, now)
            # A clock set back a little must not run a time twice; one set back far is the new time.
            back = last.timestamp() - now.timestamp()
            last = last if 0 <= back <= LATE else now
            self.looked(last)
            await deferLater(self.reactor, self._pause(last))

    def stop(self) -> None:
        """End the jobs that run."""
        for _, running in list(self._running.values()):
            running.cancel()

    def _see_to(self, job: Job, last: datetime, now: datetime) -> None:
        """Start `job` if it fell due since `last`; what is long past is only told."""
        edge = datetime.fromtimestamp(now.timestamp() - LATE, now.tzinfo)
        late = missed(job.schedule, last, edge)
        if late:
            more = " or more" if len(late) == COUNTED else ""
            runs = "run" if len(late) == 1 else "runs"
            self.say(f"[{job.name}] missed {len(late)}{more} {runs} since {late[0]:%F %R}")
        since = max(last, edge, key=datetime.timestamp)
        for time in missed(job.schedule, since, now):
            self._start(job, time)

    def _pause(self, last: datetime) -> float:
        """Seconds until the next look."""
        times = [time for job in self.jobs if (time := due(job.schedule, last)) is not None]
        until = min((time.timestamp() - self.now().timestamp() for time in times), default=LOOK)
        return max(0.01, min(LOOK, until))

    def _start(self, job: Job, time: datetime) -> None:
        if job.name in self._running:
            since = self._running[job.name][0]
            self.say(f"[{job.name}] skipped at {time:%R}: the run of {since:%R} is still on")
            return
        running: Deferred[None] = Deferred.fromCoroutine(self._do(job))
        if not running.called:
            self._running[job.name] = time, running
            running.addBoth(lambda _: self._running.pop(job.name))

    async def _do(self, job: Job) -> None:
        try:
            await self.run(job)
        except CancelledError:
            self.say(f"[{job.name}] ended with the service")
        except Exception as error:
            self.say(f"[{job.name}] {error}")
