"""Deploys that are underway: started once per release, watched by whoever asked for it."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from secrets import token_hex
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from hooks.deploy import deploy
from hooks.errors import Cancelled, Refused
from hooks.journal.lines import DEPLOY
from hooks.ledger import Serving
from hooks.orders import Orders
from hooks.say import Listen, Say
from hooks.ship import Ship
from hooks.stamps import short
from hooks.transcript import Transcript


@define(eq=False)
class Underway:
    """One deploy on its way: its orders, what it said so far, and who waits for its end.

    It was asked for at `began` (epoch seconds).
    """

    orders: Orders
    transcript: Transcript = field(factory=Transcript)
    deploying: Deferred[Serving] | None = None
    began: float = field(factory=time.time)
    name: str = field(factory=partial(token_hex, 2))  # for whoever wants to end it
    cancelled: str = ""  # by whom
    _waiting: list[Deferred[Serving]] = field(factory=list)

    def arrival(self) -> Deferred[Serving]:
        """Fires with what serves then, or with why nothing new does."""
        waiting: Deferred[Serving] = Deferred(lambda gone: self._waiting.remove(gone))
        self._waiting.append(waiting)
        return waiting

    def meant(self, error: BaseException) -> BaseException:
        """`error`, or who caused it."""
        if self.cancelled and isinstance(error, CancelledError):
            return Cancelled(f"cancelled by {self.cancelled}; what served before serves on")
        return error

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

    @property
    def underway(self) -> tuple[Underway, ...]:
        """Those that run or wait, in the order in which they were asked for."""
        return tuple(self._underway.values())

    def join(self, orders: Orders, listen: Listen) -> Deferred[Serving]:
        """Deploy `orders`, or join the deploy of the same release; `listen` hears all of it."""
        release = str(orders.release)
        one = self._underway.get(release)
        if one is None:
            one = self._set_out(orders)
        else:
            Say(listen).header(f"Joining the deploy of {short(orders.release.commit)} underway")
        one.transcript.follow(listen)
        return one.arrival()

    def leave(self, orders: Orders, listen: Listen) -> None:
        """Stop listening; the deploy goes on."""
        one = self._underway.get(str(orders.release))
        if one is not None:
            one.transcript.leave(listen)

    def _set_out(self, orders: Orders) -> Underway:
        by = f"{short(orders.release.commit)} of {orders.owner}"
        self.ship.queue.supersede(orders.service, by)
        one = self._underway[str(orders.release)] = Underway(orders)
        one.transcript.follow(lambda line: self._write(orders, line))
        deploying = Deferred.fromCoroutine(
            deploy(self.ship, orders, Say(one.transcript), one.meant)
        )
        one.deploying = deploying
        deploying.addBoth(self._ended, one)
        return one

    def named(self, name: str) -> Underway:
        """The deploy of that name, or the newest of the service of that name; `Refused` if there
        is none."""
        services = (name, f"/{name.strip('/')}")
        for one in reversed(self._underway.values()):
            if name == one.name or one.orders.service in services:
                return one
        raise Refused(f"no deploy {ascii(name)[:80]} is underway; status shows those that are")

    async def cancel(self, one: Underway, by: str) -> None:
        """End `one`, whoever waits for it is told by whom; `Refused` if it serves by now."""
        serving = await self.ship.serving(one.orders.service)
        if serving is not None and serving.release == one.orders.release:
            raise Refused(f"{one.orders.service} serves {short(one.orders.release.commit)} by now")
        if one.deploying is not None and not one.cancelled:
            one.cancelled = by
            one.deploying.cancel()

    async def stop(self) -> None:
        """End all of them and wait until what they began is gone."""
        for one in list(self._underway.values()):
            arrival = one.arrival()
            assert one.deploying is not None
            one.deploying.cancel()
            with suppress(Exception):
                await arrival

    def _write(self, orders: Orders, line: str) -> None:
        self.ship.journal.write(orders.service, str(orders.release), DEPLOY, [line])

    def _ended(self, result: Any, one: Underway) -> None:
        del self._underway[str(one.orders.release)]
        if one.cancelled and isinstance(result, Failure):
            result = Failure(one.meant(result.value or CancelledError()))
        how = result.getErrorMessage() if isinstance(result, Failure) else "live"
        self._log.info("{release}: {how}", release=one.orders.release, how=how)
        if isinstance(result, Failure):
            for line in (*getattr(result.value, "details", ()), f" !     {how}"):
                self._write(one.orders, line)
        one.arrived(result)
