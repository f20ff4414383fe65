"""The host over a day."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet import reactor as the_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from hooks.vitals import KEPT, MINUTE, Sample, Vitals, append, of_day, read, share, write
from tests.hooks.scene import scratch

reactor: Any = the_reactor
NOW = 1_800_000_000.0
SAMPLE = Sample(NOW, 0.25, 3, 4, 5, 10, 0.5)


class Samples(SynchronousTestCase):
    def test_shares_are_between_none_and_all(self) -> None:
        """Also when the clock of the processors stood still or went back."""
        self.assertEqual(share((1.0, 10.0), (2.0, 14.0)), 0.25)
        self.assertEqual(share((1.0, 10.0), (1.0, 10.0)), 0.0)
        self.assertEqual(share((5.0, 10.0), (1.0, 12.0)), 0.0)
        self.assertEqual((SAMPLE.memory, SAMPLE.disk), (0.75, 0.5))

    def test_a_day_is_kept_and_no_more(self) -> None:
        """Neither what is older, nor what a clock that was set back put into the future."""
        times = [NOW - 90000, NOW - 60, NOW, NOW + 7200]
        kept = of_day([evolve(SAMPLE, time=each) for each in times], NOW)
        self.assertEqual([each.time for each in kept], [NOW - 60, NOW])
        many = [evolve(SAMPLE, time=NOW - each) for each in range(2000, 0, -1)]
        self.assertEqual(len(of_day(many, NOW)), KEPT)

    def test_a_torn_line_costs_itself_alone(self) -> None:
        """What a crash left half-written, or somebody else wrote, is left out."""
        path = scratch(self) / "vitals"
        self.assertEqual(read(path), [])
        write(path, [SAMPLE])
        with path.open("a") as file:
            file.write('{"time": 3, "cpu"\n[]\n\xff\n{"time": "x"}\n')
        append(path, evolve(SAMPLE, cpu=0.5))
        self.assertEqual(read(path), [SAMPLE, evolve(SAMPLE, cpu=0.5)])


class Days(TestCase):
    def vitals(self) -> Vitals:
        return Vitals(reactor, self.path, self.path.parent, lambda: self.now)

    def setUp(self) -> None:
        self.path, self.now = scratch(self) / "vitals", NOW

    async def test_each_minute_is_kept_over_a_restart(self) -> None:
        """The first look keeps nothing, each one after a minute does, and a ship that starts has
        them; what it did not see is missing."""
        vitals = self.vitals()
        self.assertIsNone(vitals.now())
        for seconds in (0, 5, 30, 60, 65, 120, 600):
            self.now = NOW + seconds
            await vitals.look()
        self.assertEqual([one.time - NOW for one in vitals.day()], [60, 120, 600])
        now = vitals.now()
        assert now is not None
        self.assertTrue(0 <= now.cpu <= 1 and 0 < now.memory < 1 and now.disk_total > 0)
        again = self.vitals()
        keeping = Deferred.fromCoroutine(again.keep())
        while again.now() is None:
            await deferLater(reactor, 0.01)
        self.assertEqual([one.time - NOW for one in again.day()], [60, 120, 600])
        keeping.addErrback(lambda _: None)
        keeping.cancel()

    async def test_the_file_is_begun_anew_when_it_is_long(self) -> None:
        """It has at most two days in it."""
        vitals = self.vitals()
        await vitals.look()
        vitals._unkept = 2 * KEPT
        write(self.path, [evolve(SAMPLE, time=NOW - 3 * 86400)] * 100)
        self.now = NOW + MINUTE
        await vitals.look()
        self.assertEqual([one.time for one in read(self.path)], [self.now])
