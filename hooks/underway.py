"""Deploys that are underway: started once per release, watched by whoever asked for it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from hooks.deploy import deploy
from hooks.ledger import Serving
from hooks.orders import Orders
from hooks.say import Listen, Say
from hooks.ship import Ship
from hooks.transcript import Transcript


@define(eq=False)
class Underway:
    """One deploy on its way: its orders, what it said so far, and who waits for its end."""

    orders: Orders
    transcript: Transcript = field(factory=Transcript)
    deploying: Deferred[Serving] | None = None
    _waiting: list[Deferred[Serving]] = field(factory=list)

    def arrival(self) -> Deferred[Serving]:
        """Fires with what serves then, or with why nothing new does."""
        waiting: Deferred[Serving] = Deferred(lambda gone: self._waiting.remove(gone))
        self._waiting.append(waiting)
        return waiting

    def arrived(self, result: Serving | Failure) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(result)


@define(eq=False)
class Deploys:
    """All deploys of a ship that have not ended, by release."""

    ship: Ship
    _underway: dict[str, Underway] = field(factory=dict)
    _log: Logger = Logger()

    def join(self, orders: Orders, listen: Listen) -> Deferred[Serving]:
        """Deploy `orders`, or join the deploy of the same release; `listen` hears all of it."""
        release = str(orders.release)
        one = self._underway.get(release)
        if one is None:
            one = self._set_out(orders)
        else:
            Say(listen).header(f"Joining the deploy of {orders.release.commit[:7]} underway")
        one.transcript.follow(listen)
        return one.arrival()

    def leave(self, orders: Orders, listen: Listen) -> None:
        """Stop listening; the deploy goes on."""
        one = self._underway.get(str(orders.release))
        if one is not None:
            one.transcript.leave(listen)

    def _set_out(self, orders: Orders) -> Underway:
        by = f"{orders.release.commit[:7]} of {orders.owner}"
        self.ship.queue.supersede(orders.service, by)
        one = self._underway[str(orders.release)] = Underway(orders)
        deploying = Deferred.fromCoroutine(deploy(self.ship, orders, Say(one.transcript)))
        one.deploying = deploying
        deploying.addBoth(self._ended, one)
        return one

    async def stop(self) -> None:
        """End all of them and wait until what they began is gone."""
        for one in list(self._underway.values()):
            arrival = one.arrival()
            assert one.deploying is not None
            one.deploying.cancel()
            with suppress(Exception):
                await arrival

    def _ended(self, result: Any, one: Underway) -> None:
        del self._underway[str(one.orders.release)]
        how = result.getErrorMessage() if isinstance(result, Failure) else "live"
        self._log.info("{release}: {how}", release=one.orders.release, how=how)
        one.arrived(result)
