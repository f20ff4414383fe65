"""The watchdog: after how many failures a service is started again."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from hooks.errors import Refused
from hooks.standing import Watch
from hooks.watchdog import watch_of, watch_over


class Settings(SynchronousTestCase):
    def test_without_a_check_there_is_no_watch(self) -> None:
        """Nobody said what is healthy, so nobody watches."""
        self.assertIsNone(watch_of({}, None))

    def test_how_often_and_how_long(self) -> None:
        """Ten seconds and three more tries, unless the orders say otherwise."""
        self.assertEqual(watch_of({}, "/up"), Watch("/up", 10.0, 3))
        said = {"HEALTHCHECK_PULSE": "2", "HEALTHCHECK_RETRY_COUNT": "0"}
        self.assertEqual(watch_of(said, "/"), Watch("/", 2.0, 0))

    def test_what_is_no_number_is_refused(self) -> None:
        """The variable that is wrong is named."""
        for name in ("HEALTHCHECK_PULSE", "HEALTHCHECK_RETRY_COUNT"):
            for text in ("x", "-1", "1.5", "²", "100000", "1" * 5000):
                with self.assertRaisesRegex(Refused, f"^{name}: "):
                    watch_of({name: text}, "/")
        with self.assertRaises(Refused):
            watch_of({"HEALTHCHECK_PULSE": "0"}, "/")


class Watching(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.answers: list[bool] = []
        self.asked = 0
        self.restarts: list[str] = []
        self.restarting: Deferred[None] | None = None
        self.going = Deferred.fromCoroutine(
            watch_over(self.clock, Watch("/up", 10.0, 2), self.healthy, self.restart)
        )
        self.going.addErrback(lambda _: None)
        self.addCleanup(self.going.cancel)

    async def healthy(self) -> bool:
        self.asked += 1
        return self.answers.pop(0) if self.answers else False

    async def restart(self, why: str) -> None:
        self.restarts.append(why)
        if self.restarting is not None:
            await self.restarting

    def pulses(self, count: int) -> None:
        for _ in range(count):
            self.clock.advance(10)

    def test_after_so_many_in_a_row(self) -> None:
        """One failure more than the count that is allowed, and the reason is given."""
        self.pulses(2)
        self.assertEqual(self.restarts, [])
        self.pulses(1)
        self.assertEqual(self.restarts, ["GET /up failed 3 times in a row"])

    def test_an_answer_in_between_counts(self) -> None:
        """A good answer begins the count anew, and so does a restart."""
        self.answers = [False, False, True, False, False]
        self.pulses(5)
        self.assertEqual(self.restarts, [])
        self.pulses(1)
        self.assertEqual(len(self.restarts), 1)
        self.pulses(2)
        self.assertEqual(len(self.restarts), 1)

    def test_one_restart_at_a_time(self) -> None:
        """While it is being started again nobody asks it."""
        self.restarting = Deferred()
        self.pulses(9)
        self.assertEqual((self.asked, len(self.restarts)), (3, 1))
        self.restarting.callback(None)
        self.pulses(1)
        self.assertEqual(self.asked, 4)

    def test_a_restart_that_fails_is_not_the_end(self) -> None:
        """It is logged, and the watch goes on."""
        self.restarting = Deferred()
        self.restarting.addErrback(lambda _: None)
        self.pulses(3)

        async def fail(why: str) -> None:
            raise RuntimeError("no")

        going = Deferred.fromCoroutine(
            watch_over(self.clock, Watch("/", 1.0, 0), self.healthy, fail)
        ).addErrback(lambda _: None)
        self.addCleanup(going.cancel)
        before = self.asked
        self.clock.advance(1)
        self.clock.advance(1)
        self.assertGreaterEqual(self.asked, before + 2)
        self.flushLoggedErrors(RuntimeError)
