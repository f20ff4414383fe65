"""The one flow from a commit to a service that answers. A push and a poll both end here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from hooks.ledger import Entry, Serving
from hooks.orders import Orders
from hooks.say import Say, timing
from hooks.settings import url
from hooks.ship import Ship


async def deploy(ship: Ship, orders: Orders, say: Say) -> Serving:
    """Make `orders` serve and say so step by step; raises when it cannot, changing nothing.

    Traffic moves in `publish` and only there; the ledger is written after the fact.
    """
    async with ship.berth(orders, say):
        await ship.admit(orders.push)
        before = await ship.serving(orders.service)
        if before is not None and before.release == orders.release:
            return await _already(ship, orders, before, say)
        steps = Steps(ship.reactor)
        try:
            serving = await _bring_up(ship, orders, before, steps, say)
        except BaseException as error:
            await ship.note(steps.entry(orders, "failed", str(error)))
            raise
        if before is not None:
            ship.services.retire(before)
        await ship.settle(orders.push)
        await _tell(ship, serving, steps, say)
    return serving


async def _bring_up(
    ship: Ship, orders: Orders, before: Serving | None, steps: Steps, say: Say
) -> Serving:
    container = await ship.containerize(orders.release)  # named by the release: found if there
    try:
        with steps("build"):
            launch = await ship.build(container, orders, say)
        with steps("start"):
            address = await ship.start(container, launch)
        with steps("check"):
            await ship.check(container, address, orders, say)
        serving = ship.as_serving(orders, launch, address)
        try:
            with steps("switch"):
                await ship.publish(serving)
            last = await ship.ledger.last_live(orders.service)
            await ship.ledger.record(serving, steps.entry(orders, "live", ""))
        except BaseException:
            await ship.put_back(orders.service, before)
            raise
    except BaseException:  # a cancellation too; what failed is passed on always
        await ship.services.discard(container)
        raise
    steps.last = last.seconds if last is not None else None
    ship.services.watch_over(serving, container)
    return serving


async def _already(ship: Ship, orders: Orders, serving: Serving, say: Say) -> Serving:
    """The same release is asked for again: nothing to do but to let it live on."""
    renewed = ship.renewed(serving, orders)
    await ship.ledger.keep(renewed)
    await ship.settle(orders.push)
    say.header(f"{orders.service} already serves {orders.release.commit[:7]}, nothing to build")
    say.plain(url(ship.settings, orders.service))
    return renewed


async def _tell(ship: Ship, serving: Serving, steps: Steps, say: Say) -> None:
    say.header(f"{serving.service} is live with {serving.release.commit[:7]} at")
    say.plain(url(ship.settings, serving.service))
    say.line(timing(steps.taken, steps.total, steps.last))


@define
class Steps:
    """How long each step took, in seconds. `last` is what the last push took in all."""

    clock: IReactorTime
    taken: dict[str, float] = field(factory=dict)
    last: float | None = None
    _began: float = field(init=False)
    _started: float = field(init=False, factory=time.time)

    def __attrs_post_init__(self) -> None:
        self._began = self.clock.seconds()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        began = self.clock.seconds()
        yield
        self.taken[name] = self.clock.seconds() - began

    @property
    def total(self) -> float:
        return self.clock.seconds() - self._began

    def entry(self, orders: Orders, outcome: str, reason: str) -> Entry:
        return Entry(
            service=orders.service,
            release=str(orders.release),
            commit=orders.release.commit,
            owner=orders.owner,
            started=self._started,
            ended=self._started + self.total,
            outcome=outcome,
            reason=reason,
            steps=self.taken,
        )
