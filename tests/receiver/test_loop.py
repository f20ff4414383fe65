"""The loop, as far as it is seen without repositories."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from hooks.standing import Source
from receiver.headquarters.bringing import Bringing
from receiver.headquarters.loop import Loop
from receiver.headquarters.ordered import Ordered
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
            commit=COMMIT, orders={"a": standing("a")}, refused={}, remotes={}, sources=set(),
            environment={}, held=frozenset(),
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
