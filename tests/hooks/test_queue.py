"""The queue of deploys."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from hooks.errors import Superseded
from hooks.queue import Queue


class Berths(SynchronousTestCase):
    def setUp(self) -> None:
        self.free = 100
        self.queue = Queue(2, lambda: self.free)
        self.events: list[str] = []
        self.kept: list[object] = []

    def deploy(
        self, service: str, name: str, light: bool = False, memory: int = 0
    ) -> tuple[Deferred[None], Deferred[None]]:
        """A deploy that holds its berth until the second of its deferreds fires."""
        work: Deferred[None] = Deferred()

        async def hold() -> None:
            ahead = lambda n: self.events.append(f"{name}:{n}")  # noqa: E731
            async with self.queue.berth(service, ahead, light=light, memory=memory):
                self.events.append(name)
                await work

        holding = Deferred.fromCoroutine(hold())
        self.kept.append((holding, work))  # a coroutine that nobody holds would be closed
        return holding, work

    def test_one_at_a_time_per_service(self) -> None:
        """A second deploy of a service waits for the first, and hears its place."""
        _, first = self.deploy("a", "one")
        self.deploy("a", "two")
        self.assertEqual(self.events, ["one", "two:1"])
        first.callback(None)
        self.assertEqual(self.events, ["one", "two:1", "two"])

    def test_so_many_at_once_on_the_ship(self) -> None:
        """A third service waits while two are deployed; places move up."""
        _, first = self.deploy("a", "a")
        self.deploy("b", "b")
        self.deploy("c", "c")
        self.deploy("d", "d")
        first.callback(None)
        self.assertEqual(self.events, ["a", "b", "c:2", "d:3", "c", "d:2"])

    def test_memory_is_counted_once(self) -> None:
        """What would not fit beside what runs waits for it, and is not overtaken; alone, it runs
        however little is free."""
        _, first = self.deploy("a", "a", memory=60)
        _, second = self.deploy("b", "b", memory=50)
        self.deploy("c", "c", memory=10)
        self.assertEqual(self.events, ["a", "b:1", "c:2"])
        self.free = 40
        first.callback(None)
        self.assertEqual(self.events[3:], ["b", "c:1"])
        self.free = 60
        self.deploy("d", "d", light=True)
        self.assertEqual(self.events[5:], ["c", "d"])
        second.callback(None)

    def test_a_service_that_waits_for_itself_holds_up_nobody(self) -> None:
        """The next service overtakes one whose own deploy is still on."""
        self.deploy("a", "one")
        self.deploy("a", "two")
        self.deploy("b", "b")
        self.assertIn("b", self.events)

    def test_what_is_light_waits_for_its_service_alone(self) -> None:
        """It needs no place among the deploys and takes none from them, but never runs beside a
        deploy of its own service."""
        _, first = self.deploy("a", "a")
        self.deploy("b", "b")
        self.deploy("c", "light", light=True)
        self.deploy("a", "own", light=True)
        self.deploy("d", "d")
        self.assertEqual(self.events, ["a", "b", "light", "own:3", "d:4"])
        first.callback(None)
        self.assertEqual(self.events[5:], ["own", "d"])

    def test_superseding_ends_the_wait_with_a_reason(self) -> None:
        """A newer push takes the place of one that waits, and it is told by whom."""
        self.deploy("a", "one")
        second, _ = self.deploy("a", "two")
        self.queue.supersede("a", "1234567 of ann")
        self.failureResultOf(second, Superseded)
        self.assertEqual(self.queue.waiting, ())

    def test_a_failed_deploy_frees_its_berth(self) -> None:
        """Whatever ends a deploy, the next one starts."""
        first, work = self.deploy("a", "one")
        self.deploy("a", "two")
        work.errback(ValueError())
        self.failureResultOf(first, ValueError)
        self.assertIn("two", self.events)

    def test_a_cancelled_wait_leaves_no_place_behind(self) -> None:
        """Who leaves the queue does not hold up those behind."""
        _, work = self.deploy("a", "one")
        second, _ = self.deploy("a", "two")
        self.deploy("a", "three")
        second.cancel()
        self.failureResultOf(second)
        work.callback(None)
        self.assertEqual(self.events[-1], "three")
