"""The loop, as far as it is seen without repositories."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from hooks.errors import Unreachable
from hooks.standing import Source
from receiver.headquarters.bringing import Bringing
from receiver.headquarters.following import Following
from receiver.headquarters.loop import Loop
from receiver.headquarters.ordered import Ordered
from tests.receiver.test_following import Answers
from tests.receiver.test_workplaces import standing

HOME, COMMIT = Source("https://example.com/hq"), "c" * 40


class Waiting(SynchronousTestCase):
    def test_services_are_known_by_then(self) -> None:
        """Whoever waits for a commit is told of it once its services are ordered, not before."""
        beside: Deferred[None] = Deferred()
        nothing: Any = None
        brought: list[Ordered] = []
        self.patch(Bringing, "bring_if_known", lambda _, one, following: brought.append(one))
        says: Any = SimpleNamespace(
            source=HOME, commit=COMMIT, orders={"a": standing("a")}, refused={}, remotes={},
            sources=set(), environment={}, held=frozenset(),
        )  # fmt: skip

        async def read(*_: object) -> Any:
            return says

        async def serving() -> dict[str, Any]:
            return {}

        async def wait(_: object) -> None:
            await beside

        ship: Any = SimpleNamespace(ledger=SimpleNamespace(serving=serving))
        bringing = Bringing(ship, nothing, nothing)
        bringing.workplaces = SimpleNamespace(has=lambda _: False)  # type: ignore[assignment]
        readings: Any = SimpleNamespace(read=read, keep=read)
        loop = Loop(ship, nothing, readings, bringing, wait)
        loop.location = HOME
        following: Any = SimpleNamespace(
            hurry=lambda _: succeed(None), follow=lambda _: None, known={HOME: COMMIT}
        )
        loop.follow_with(following)
        taken = Deferred.fromCoroutine(loop.take(nothing, COMMIT))
        reached = Deferred.fromCoroutine(loop.reach(COMMIT[:12]))
        self.assertEqual(loop.commit, COMMIT)
        self.assertNoResult(reached)
        beside.callback(None)
        self.successResultOf(reached)
        self.assertEqual(self.successResultOf(taken), brought)
        self.assertEqual([one.standing.path for one in brought], ["a"])


class Moving(SynchronousTestCase):
    """A headquarters that is asked, with what is fetched, read and brought into force by hand."""

    def setUp(self) -> None:
        self.clock, self.answers = Clock(), Answers()
        self.fetching: list[Deferred[None]] = []
        self.reading: list[Deferred[Any]] = []
        self.forcing: list[Deferred[None]] = []
        self.orphaned: list[str] = []

        async def fetch(*_: object) -> None:
            self.fetching.append(Deferred())
            await self.fetching[-1]

        async def read(*_: object) -> Any:
            self.reading.append(Deferred())
            return await self.reading[-1]

        async def beside(_: object) -> None:
            self.forcing.append(Deferred())
            await self.forcing[-1]

        async def keep(_: object) -> None: ...

        async def serving() -> dict[str, Any]:
            return {"/held": SimpleNamespace(place="somewhere", service="/held")}

        async def orphan(service: str, unwanted: Any) -> None:
            if unwanted():
                self.orphaned.append(service)

        nothing: Any = None
        ship: Any = SimpleNamespace(
            ledger=SimpleNamespace(serving=serving), services=SimpleNamespace(orphan=orphan)
        )
        sources: Any = SimpleNamespace(fetch=fetch)
        readings: Any = SimpleNamespace(read=read, keep=keep)
        self.loop = Loop(ship, sources, readings, Bringing(ship, nothing, sources), beside)
        following = Following(self.clock, self.answers, moved=self.loop.moved, lost=self.loop.lost)
        self.loop.follow_with(following)
        going = Deferred.fromCoroutine(following.go())
        going.addErrback(lambda _: None)
        self.addCleanup(going.cancel)
        self.answers.refs[HOME.url] = {"": COMMIT}
        self.loop.set_out(HOME)

    def says(self, source: Source = HOME, commit: str = COMMIT) -> Any:
        return SimpleNamespace(
            source=source, commit=commit, orders={}, refused={"held/orders": "no"}, remotes={},
            sources=set(), environment={}, held=frozenset({"held"}),
        )  # fmt: skip

    def move_to(self, other: Source, commit: str) -> None:
        self.answers.refs[other.url] = {"": commit}
        self.loop.set_out(other)

    def test_what_went_wrong_with_another_one_is_over(self) -> None:
        """A headquarters that cannot be fetched is no trouble once the ship follows another."""
        other = Source("https://example.com/other")
        self.move_to(other, "d" * 40)
        self.fetching[1].callback(None)
        self.reading[0].callback(self.says(other, "d" * 40))
        self.forcing[0].callback(None)
        self.fetching[0].errback(Unreachable("cannot read it"))
        self.assertEqual((self.loop.commit, self.loop.trouble), ("d" * 40, ""))

    def test_what_was_read_of_another_one_does_not_count(self) -> None:
        """A headquarters that was being read when the ship was pointed elsewhere is not adopted."""
        other = Source("https://example.com/other")
        self.fetching[0].callback(None)
        self.move_to(other, "d" * 40)
        self.reading[0].callback(self.says())
        self.assertEqual(self.loop.commit, "")

    def test_what_is_not_read_yet_orphans_nothing(self) -> None:
        """Pointed elsewhere while a headquarters comes into force, the ship holds what it held."""
        self.fetching[0].callback(None)
        self.reading[0].callback(self.says())
        self.move_to(Source("https://example.com/other"), "d" * 40)
        self.forcing[0].callback(None)
        self.assertEqual(self.orphaned, [])

    def test_an_error_of_the_ships_own_is_told_and_tried_again(self) -> None:
        """Whatever keeps a commit from being read, a full disk, is a trouble until it is over, and
        logged once."""
        for _ in range(3):
            self.fetching.pop().callback(None)
            self.reading.pop().errback(OSError(28, "No space left on device"))
            self.assertIn(COMMIT[:7], self.loop.trouble)
            self.clock.pump([0.25] * 40)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.fetching.pop().callback(None)
        self.reading.pop().callback(self.says())
        self.forcing.pop().callback(None)
        self.assertEqual((self.loop.commit, self.loop.trouble), (COMMIT, ""))

    def test_what_is_not_in_force_is_tried_again(self) -> None:
        """Keys that could not be written are a trouble, and written as soon as that is possible."""
        self.fetching[0].callback(None)
        self.reading[0].callback(self.says())
        for _ in range(2):
            self.forcing.pop().errback(OSError(28, "No space left on device"))
            self.assertEqual(self.loop.commit, COMMIT)
            self.assertIn("in force", self.loop.trouble)
            self.clock.pump([0.25] * 40)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.forcing.pop().callback(None)
        self.assertEqual(self.loop.trouble, "")
        self.clock.pump([0.25] * 40)
        self.assertEqual(self.forcing, [])
