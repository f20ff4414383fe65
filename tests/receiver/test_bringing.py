"""What becomes of an ordered service between its orders and its deploy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from hooks.errors import Superseded, Unreachable
from hooks.standing import Source, StandingOrders
from receiver.headquarters import ordered as phases
from receiver.headquarters.bringing import Bringing
from receiver.headquarters.following import Following
from receiver.headquarters.ordered import Ordered
from tests.receiver.test_following import A, Answers
from tests.receiver.test_workplaces import standing

COMMIT = "c" * 40


def following_ref(ref: str, path: str) -> StandingOrders:
    return evolve(standing(path), source=Source(A, ref))


class Between(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.answers = Clock(), Answers()
        self.answers.refs[A] = Deferred[object]()
        self.looked: list[Deferred[None]] = []

        async def serving(_: str) -> None:
            looking: Deferred[None] = Deferred()
            self.looked.append(looking)
            await looking

        ship: Any = SimpleNamespace(
            reactor=self.clock, serving=serving, settings=SimpleNamespace(devmode=False)
        )
        nothing: Any = None
        self.bringing = Bringing(ship, nothing, nothing)
        self.following = Following(
            self.clock, self.answers, moved=self.bringing.moved, lost=self.bringing.lost
        )
        going = Deferred.fromCoroutine(self.following.go())
        going.addErrback(lambda _: None)
        self.addCleanup(going.cancel)

    def follow(self) -> None:
        self.following.follow({one.standing.source for one in self.bringing.ordered.values()})  # type: ignore[misc]

    def ordered(self, ref: str, path: str) -> Ordered:
        """A service as its orders begin to count; then its source answers, if it does."""
        says, question = self.answers.refs[A], Deferred[object]()
        self.answers.refs[A] = question
        one = self.bringing.order(path, following_ref(ref, path))
        assert one is not None
        self.follow()
        self.bringing.bring_if_known(one, self.following)
        self.answers.refs[A] = says
        if not isinstance(says, Deferred):
            question.callback(says)
        return one

    def test_a_branch_that_is_missing_is_nobody_elses_trouble(self) -> None:
        """What is wrong with one branch of a repository is not said of a service of another."""
        self.answers.refs[A] = {}
        bad = self.ordered("gone", "bad")
        self.assertIn("gone", bad.reason)
        self.answers.refs[A] = Deferred[object]()
        good = self.ordered("there", "good")
        self.assertEqual((good.phase, good.reason), (phases.WAITING, ""))
        same = self.ordered("gone", "same")
        self.assertEqual((same.phase, same.reason), (bad.phase, bad.reason))

    def test_the_reason_is_the_newest(self) -> None:
        """A source that was never read: what is said of its service is what is wrong now."""
        self.answers.refs[A] = Unreachable("no answer")
        one = self.ordered("main", "app")
        self.assertEqual((one.phase, one.reason), (phases.UNREACHABLE, "no answer"))
        self.answers.refs[A] = Unreachable("repository not found")
        self.following.hurry()
        self.assertEqual(one.reason, "repository not found")

    def test_what_was_read_is_brought_all_the_same(self) -> None:
        """A source that does not answer just now keeps nobody from the commit that it had."""
        self.answers.refs[A] = {"main": COMMIT}
        one = self.ordered("main", "app")
        self.assertEqual(len(self.looked), 1)
        self.answers.refs[A] = Unreachable("no answer")
        self.following.hurry()
        self.assertEqual((one.phase, one.reason), (phases.WAITING, ""))

    def test_orders_that_go_are_waited_for_by_nobody(self) -> None:
        """Whoever waits for a service is told when its orders go before its source has answered."""
        one = self.ordered("main", "app")
        settled = one.settled()
        self.bringing.forget("app")
        self.follow()
        self.successResultOf(settled)
        self.assertEqual(one.phase, phases.FAILED)
        self.assertIn("orders", one.reason)

    def test_orders_that_go_are_not_deployed(self) -> None:
        """Not even if the ship was about to when they went."""
        self.answers.refs[A] = {"main": COMMIT}
        fetched: Deferred[Any] = Deferred()

        async def orders(*_: object) -> Any:
            return await fetched

        async def history(*_: object) -> list[Any]:
            return []

        joined: list[object] = []
        self.patch(Bringing, "_orders", orders)
        self.bringing.ship.ledger = SimpleNamespace(history=history)  # type: ignore[assignment]
        self.bringing.deploys = SimpleNamespace(join=joined.append)  # type: ignore[assignment]
        self.ordered("main", "app")
        self.looked[0].callback(None)
        self.bringing.forget("app")
        fetched.callback(SimpleNamespace(release="app-0-1"))
        self.assertEqual(joined, [])

    def test_orders_that_are_gone_are_not_tried_again(self) -> None:
        """A deploy that was under way when they went comes to its end, and that is the last."""
        self.answers.refs[A] = {"main": COMMIT}
        one = self.ordered("main", "app")
        one.phase = phases.DEPLOYING
        self.bringing.forget("app")
        self.looked[0].errback(Unreachable("no answer"))
        self.assertEqual(one.phase, phases.UNREACHABLE)
        self.flushLoggedErrors()
        self.clock.advance(1000)
        self.assertEqual(len(self.looked), 1)

    def test_a_deploy_that_a_newer_one_replaces_is_at_its_end(self) -> None:
        """Whoever waits for it is told, although its orders went and came again meanwhile."""
        self.answers.refs[A] = {"main": COMMIT}
        one = self.ordered("main", "app")
        one.phase = phases.DEPLOYING
        settled = one.settled()
        self.bringing.forget("app")
        self.looked[0].errback(Superseded("superseded before its turn came"))
        self.successResultOf(settled)
        self.assertIn("superseded", one.reason)
