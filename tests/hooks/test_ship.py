"""Steps of a deploy that puts back what it changed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from attrs import evolve, fields
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from containers.interface import Limits
from hooks.deploy import deploy
from hooks.errors import ShipError, Stopped
from hooks.ledger import Serving
from hooks.queue import Queue
from hooks.say import Say
from hooks.settings import Settings
from hooks.ship import Ship
from tests.hooks.test_ledger import serving

BEFORE = serving()
FIRST: Any = SimpleNamespace(standing=SimpleNamespace(stop_first=True))
"""Orders by which what serves is stopped before the new version is built."""


class PuttingBack(SynchronousTestCase):
    def setUp(self) -> None:
        self.did: list[Serving] = []
        self.serves: Serving | None = BEFORE
        self.fails = False
        parts: dict[str, Any] = dict.fromkeys(one.name for one in fields(Ship) if one.name != "log")
        services = SimpleNamespace(wake=self.wake, leading=self)
        self.ship = Ship(**{**parts, "services": services, "ledger": self})

    async def now(self, service: str) -> Serving | None:
        return self.serves

    async def wake(self, one: Serving) -> None:
        self.did.append(one)
        if self.fails:
            raise ShipError("its container is gone")

    publish = wake

    def test_why_it_failed_is_told(self) -> None:
        """Also when what was stopped for it does not start again."""
        self.fails = True
        self.successResultOf(self.ship.give_way(FIRST, BEFORE))
        self.assertEqual(self.did, [BEFORE])
        self.assertEqual(len(self.flushLoggedErrors(ShipError)), 1)

    def test_what_somebody_stopped_stays_so(self) -> None:
        """It was not stopped for the new version."""
        self.successResultOf(self.ship.give_way(FIRST, evolve(BEFORE, stopped=True)))
        self.assertEqual(self.did, [])

    def test_traffic_goes_where_it_serves_now(self) -> None:
        """What served before may have been started again, and have another port."""
        self.serves = evolve(BEFORE, port=20001)
        self.successResultOf(self.ship.put_back("app"))
        self.assertEqual(self.did, [self.serves])


class Waiting(SynchronousTestCase):
    def test_what_is_stopped_meanwhile_is_not_deployed(self) -> None:
        """Somebody stops a service whose next version waits for its turn: it stays stopped, and
        that is what is told."""
        parts: dict[str, Any] = dict.fromkeys(one.name for one in fields(Ship) if one.name != "log")
        queue, serves = Queue(1, lambda: 0), BEFORE

        async def now(_: str) -> Serving:
            return serves

        parts |= {"queue": queue, "ledger": SimpleNamespace(now=now), "settings": Settings()}
        orders: Any = SimpleNamespace(
            service="app", limits=Limits(), push=None, standing=FIRST.standing, release=None
        )
        other = queue.berth("other", lambda _: None)
        self.successResultOf(other.__aenter__())
        deploying = Deferred.fromCoroutine(deploy(Ship(**parts), orders, Say(lambda _: None)))
        self.assertNoResult(deploying)
        serves = evolve(BEFORE, stopped=True)
        self.successResultOf(other.__aexit__(None, None, None))
        self.failureResultOf(deploying, Stopped)
