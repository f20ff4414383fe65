"""Jobs by schedule: when they run, that they do not overlap, and what is told of the others."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from hooks.cron import Cron, Local, due, missed
from hooks.standing import Job

BEGIN = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


class Times(SynchronousTestCase):
    def test_five_fields_and_names(self) -> None:
        """Five fields as cron has them, and the names that it has for some."""
        for schedule, expected in [
            ("* * * * *", "2026-03-01 12:01"),
            ("*/15 * * * *", "2026-03-01 12:15"),
            ("0 9-17 * * MON-FRI", "2026-03-02 09:00"),
            ("0 0 29 2 *", "2028-02-29 00:00"),
            ("@hourly", "2026-03-01 13:00"),
            ("@daily", "2026-03-02 00:00"),
            ("@midnight", "2026-03-02 00:00"),
            ("@weekly", "2026-03-08 00:00"),
            ("@monthly", "2026-04-01 00:00"),
            ("@yearly", "2027-01-01 00:00"),
            ("@annually", "2027-01-01 00:00"),
        ]:
            found = due(schedule, BEGIN)
            assert found is not None
            self.assertEqual(f"{found:%Y-%m-%d %H:%M}", expected, schedule)

    def test_what_never_comes(self) -> None:
        """`@reboot` and a day that no month has are never due."""
        self.assertIsNone(due("@reboot", BEGIN))
        self.assertIsNone(due("0 0 31 2 *", BEGIN))
        self.assertEqual(missed("@reboot", BEGIN, BEGIN + timedelta(days=9)), [])

    def test_missed_times_are_bounded(self) -> None:
        """What was due between two looks, the later one included; never more than a thousand."""
        found = missed("*/10 * * * *", BEGIN, BEGIN + timedelta(minutes=30))
        self.assertEqual([one.minute for one in found], [10, 20, 30])
        self.assertEqual(len(missed("* * * * *", BEGIN, BEGIN + timedelta(days=99))), 1000)

    def test_summer_time(self) -> None:
        """A time that the clock skips is made up for, one that it has twice is due once."""
        spring = datetime(2026, 3, 29, 0, 0, tzinfo=BERLIN)
        self.assertEqual(len(missed("30 2 * * *", spring, spring + timedelta(hours=23))), 1)
        autumn = datetime(2026, 10, 25, 0, 0, tzinfo=BERLIN)
        self.assertEqual(len(missed("30 2 * * *", autumn, autumn + timedelta(hours=23))), 1)


class Nights(SynchronousTestCase):
    def setUp(self) -> None:
        before = os.environ.get("TZ")
        os.environ["TZ"] = "Europe/Berlin"
        time.tzset()

        def back() -> None:
            os.environ.pop("TZ")
            if before is not None:
                os.environ["TZ"] = before
            time.tzset()

        self.addCleanup(back)

    def night(self, begin: datetime, schedule: str) -> list[str]:
        """When a job runs in six hours, in the ship's own zone and looked at as the ship does."""
        clock, zone, ran = Clock(), Local(), list[str]()

        def now() -> datetime:
            return datetime.fromtimestamp(begin.timestamp() + clock.seconds(), zone)

        async def run(job: Job) -> None:
            ran.append(f"{now():%H:%M%z}")

        cron = Cron(clock, [Job("a", schedule)], run, self.fail, lambda _: None, now)
        going = Deferred.fromCoroutine(cron.go(None)).addErrback(lambda _: None)
        clock.pump([10] * 2160)
        going.cancel()
        return ran

    def test_looked_at_again_and_again(self) -> None:
        """A time that the clock skips is made up for, one that it has twice is run once; what runs
        each hour runs each hour."""
        spring = datetime(2026, 3, 28, 23, 0, 1, tzinfo=UTC)
        autumn = datetime(2026, 10, 24, 22, 0, 1, tzinfo=UTC)
        self.assertEqual(self.night(spring, "30 2 * * *"), ["03:00+0200"])
        self.assertEqual(self.night(autumn, "30 2 * * *"), ["02:30+0200"])
        self.assertEqual([len(self.night(day, "@hourly")) for day in (spring, autumn)], [6, 6])


class Runs(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.set_by = timedelta()
        self.ran: list[tuple[str, str]] = []
        self.said: list[str] = []
        self.looks: list[datetime] = []
        self.lasting: list[Deferred[None]] = []
        self.slow = False

    def now(self) -> datetime:
        return BEGIN + timedelta(seconds=self.clock.seconds()) + self.set_by

    async def run_job(self, job: Job) -> None:
        self.ran.append((job.name, f"{self.now():%H:%M}"))
        if self.slow:
            lasting: Deferred[None] = Deferred()
            self.lasting.append(lasting)
            await lasting

    def cron(self, *jobs: Job) -> Cron:
        return Cron(self.clock, jobs, self.run_job, self.said.append, self.looks.append, self.now)

    def go(self, *jobs: Job, since: datetime | None = None) -> Deferred[None]:
        going = Deferred.fromCoroutine(self.cron(*jobs).go(since))
        going.addErrback(lambda _: None)
        self.addCleanup(going.cancel)
        return going

    def wait(self, minutes: float) -> None:
        for _ in range(int(minutes * 60)):
            self.clock.advance(1)

    def test_each_time_once(self) -> None:
        """A job runs at each of its times, once."""
        self.go(Job("a", "*/2 * * * *"), Job("b", "@hourly"))
        self.wait(5)
        self.assertEqual(self.ran, [("a", "12:02"), ("a", "12:04")])
        self.assertEqual(self.said, [])

    def test_at_the_start(self) -> None:
        """`@reboot` runs when the service starts, and never again."""
        self.go(Job("a", "@reboot"))
        self.wait(3)
        self.assertEqual(self.ran, [("a", "12:00")])

    def test_no_overlap(self) -> None:
        """While a run is on, the next one is left out and told; then it runs again."""
        self.slow = True
        self.go(Job("a", "* * * * *"))
        self.wait(2)
        self.assertEqual(self.ran, [("a", "12:01")])
        self.assertEqual(self.said, ["[a] skipped at 12:02: the run of 12:01 is still on"])
        self.lasting.pop().callback(None)
        self.wait(1)
        self.assertEqual(self.ran[1:], [("a", "12:03")])

    def test_what_was_missed_is_told_not_run(self) -> None:
        """After an hour away the runs of that hour are told in one line, and none is made up for
        but the one that has only just been due."""
        self.go(Job("a", "*/10 * * * *"), since=BEGIN - timedelta(hours=1))
        self.assertEqual(self.said, ["[a] missed 5 runs since 2026-03-01 11:10"])
        self.assertEqual(self.ran, [("a", "12:00")])

    def test_a_long_absence(self) -> None:
        """After weeks what was missed is told in one line, and the run just due is run."""
        self.go(Job("a", "* * * * *"), since=BEGIN - timedelta(weeks=3))
        self.assertEqual(self.said, ["[a] missed 1000 or more runs since 2026-02-08 12:01"])
        self.assertEqual(self.ran[-1], ("a", "12:00"))

    def test_a_clock_that_is_set_back(self) -> None:
        """Set back a little, no time runs twice; set back far, the new time counts."""
        self.go(Job("a", "* * * * *"))
        self.wait(1.55)
        self.set_by -= timedelta(seconds=85)  # the next look is before the last
        self.wait(2.3)
        self.assertEqual(self.ran, [("a", "12:01"), ("a", "12:02")])
        self.wait(0.6)
        self.assertEqual(self.ran[2:], [("a", "12:03")])
        self.set_by -= timedelta(hours=1)
        self.wait(2)
        self.assertEqual(self.ran[3:], [("a", "11:05")])

    def test_a_job_that_fails_goes_on(self) -> None:
        """What a run could not do is told, and the next one comes all the same."""

        async def fail(job: Job) -> None:
            raise RuntimeError("no such program")

        cron = self.cron(Job("a", "* * * * *"))
        cron.run = fail
        going = Deferred.fromCoroutine(cron.go(None)).addErrback(lambda _: None)
        self.addCleanup(going.cancel)
        self.wait(2)
        self.assertEqual(self.said, ["[a] no such program"] * 2)

    def test_one_version_hands_over_to_the_next(self) -> None:
        """Of an old version that rests and a new one that begins where it left off, each time is
        one's alone; a run of the old one goes on to its end."""
        old = self.go(Job("old", "* * * * *"))
        self.slow = True
        self.wait(1)
        old.cancel()
        self.slow = False
        self.wait(0.5)
        self.go(Job("new", "* * * * *"), since=self.looks[-1])
        self.wait(1.2)
        self.assertEqual(self.ran, [("old", "12:01"), ("new", "12:02"), ("new", "12:03")])
        self.assertEqual(self.said, [])
        self.lasting.pop().callback(None)

    def test_jobs_end_with_their_service(self) -> None:
        """`stop` ends what runs, and says so."""
        self.slow = True
        cron = self.cron(Job("a", "@reboot"))
        going = Deferred.fromCoroutine(cron.go(None)).addErrback(lambda _: None)
        going.cancel()
        cron.stop()
        self.assertEqual(self.said, ["[a] ended with the service"])
