"""Who comes to a service while it is put to sleep."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from hooks.idling import Idling
from tests.hooks.test_ledger import serving


class IdlingTests(SynchronousTestCase):
    def test_somebody_comes_meanwhile(self) -> None:
        """A command that begins beside a service in the very moment in which that is frozen has it
        go on, and its requests come to it."""
        told: list[tuple[str, bool]] = []
        visits: list[bool] = []

        async def freeze(_: object, frozen: bool) -> None:
            told.append(("freeze", frozen))
            visits.append(True)

        async def lull(_: object, __: object, asleep: bool) -> None:
            told.append(("asleep", asleep))

        async def nothing(_: object) -> int:
            return 0

        async def known() -> dict[str, Any]:
            return {"app": serving()}

        ship: Any = SimpleNamespace(
            ledger=SimpleNamespace(serving=known),
            runtime=SimpleNamespace(freezes=True, find=lambda _: "container", freeze=freeze),
            proxy=SimpleNamespace(
                traffic=SimpleNamespace(lull=lull, last_used=nothing, open_requests=nothing)
            ),
            services=SimpleNamespace(is_visited=lambda _: bool(visits)),
        )
        self.successResultOf(Deferred.fromCoroutine(Idling(ship, 1.0).look()))
        self.assertEqual(
            told, [("asleep", True), ("freeze", True), ("freeze", False), ("asleep", False)]
        )
