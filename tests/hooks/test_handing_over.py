"""What a queue of deploys does while another process of the ship is about to take over."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from hooks.errors import HandedOver
from hooks.queue import Queue


class HandingOver(SynchronousTestCase):
    def setUp(self) -> None:
        self.queue = Queue(2, lambda: 0)
        self.told: list[int] = []
        self.ends: dict[str, Deferred[None]] = {}

    def deploy(self, service: str, *, light: bool = False) -> Deferred[None]:
        async def berth() -> None:
            async with self.queue.berth(service, self.told.append, light=light):
                self.ends[service] = Deferred()
                await self.ends[service]

        return Deferred.fromCoroutine(berth())

    def end(self, service: str) -> None:
        self.ends.pop(service).callback(None)

    def test_held_it_lets_nothing_begin_but_what_is_light(self) -> None:
        """What runs goes on, and what takes no time may begin; who waits is told."""
        running = self.deploy("a")
        self.queue.hold("why")
        waiting, light = self.deploy("b"), self.deploy("c", light=True)
        self.assertEqual(self.queue.running, {"a", "c"})
        self.assertEqual(self.told[-1], 2)
        self.end("a")
        self.end("c")
        self.successResultOf(running)
        self.successResultOf(light)
        self.assertNoResult(waiting)

    def test_released_it_goes_on(self) -> None:
        """After a release whoever waited begins."""
        self.queue.hold("why")
        waiting = self.deploy("a")
        self.assertEqual(self.queue.running, frozenset())
        self.queue.release()
        self.assertEqual(self.queue.running, {"a"})
        self.end("a")
        self.successResultOf(waiting)

    def test_those_who_wait_hear_that_it_is_held(self) -> None:
        """Their place is told again when it is held, for the words that go with it are others."""
        self.deploy("a")
        self.deploy("a")
        before = len(self.told)
        self.queue.hold("why")
        self.assertEqual(len(self.told), before + 1)

    def test_idle_is_when_nothing_runs(self) -> None:
        """`idle` waits for what runs, the light ones too, and for nothing that waits."""
        self.queue.hold("why")
        self.successResultOf(Deferred.fromCoroutine(self.queue.idle()))
        self.deploy("a", light=True)
        idle = Deferred.fromCoroutine(self.queue.idle())
        self.deploy("b")
        self.assertNoResult(idle)
        self.end("a")
        self.successResultOf(idle)

    def test_dismissed_everybody_is_to_ask_again(self) -> None:
        """Who waits and who comes is told so, by an error of its own."""
        self.queue.hold("why")
        waiting = self.deploy("a")
        self.queue.dismiss()
        self.failureResultOf(waiting, HandedOver)
        self.failureResultOf(self.deploy("b"), HandedOver)
