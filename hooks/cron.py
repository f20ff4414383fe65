"""Jobs by the clock: when one is due, and the schedule of one service while it serves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
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


def due(schedule: str, after: datetime) -> datetime | None:
    """The next time that `schedule` names after `after`; `None` when there is none."""
    if schedule == REBOOT:
        return None
    try:
        found: datetime = next(CronSim(KINDS.get(schedule, schedule), after))
    except (CronSimError, StopIteration):
        return None
    return found


def missed(schedule: str, after: datetime, until: datetime) -> list[datetime]:
    """The times that `schedule` names after `after`, up to `until`; a thousand at most."""
    if schedule == REBOOT:
        return []
    times = []
    for time in islice(CronSim(KINDS.get(schedule, schedule), after), COUNTED):
        if time > until:
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
            last = now if now > last or (last - now).total_seconds() > LATE else last
            self.looked(last)
            await deferLater(self.reactor, self._pause(last))

    def stop(self) -> None:
        """End the jobs that run."""
        for _, running in list(self._running.values()):
            running.cancel()

    def _see_to(self, job: Job, last: datetime, now: datetime) -> None:
        """Start `job` if it fell due since `last`; what is long past is only told."""
        times = missed(job.schedule, last, now)
        late = [time for time in times if (now - time).total_seconds() > LATE]
        if late:
            self.say(f"[{job.name}] missed {len(late)} runs, {late[0]:%F %R} to {late[-1]:%F %R}")
        for time in times[len(late) :]:
            self._start(job, time)

    def _pause(self, last: datetime) -> float:
        """Seconds until the next look."""
        times = [time for job in self.jobs if (time := due(job.schedule, last)) is not None]
        until = min(((time - self.now()).total_seconds() for time in times), default=LOOK)
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
