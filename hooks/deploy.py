"""The one flow from a commit to a service that answers. A push and a poll both end here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from buildpacks.packs import BuildError
from containers.interface import ContainerError
from hooks.errors import DeployFailed, Refused, ShipError, Stopped, Unreachable
from hooks.ledger import Entry, Serving
from hooks.orders import Orders
from hooks.say import Say, timing
from hooks.settings import reached, url
from hooks.ship import Ship
from hooks.stamps import short
from proxy.routes import ProxyError

KNOWN = (ShipError, BuildError, ContainerError, ProxyError)
"""Kinds of failure whose text is meant for whoever wanted the deploy."""


def _itself(error: BaseException) -> BaseException:
    return error


async def deploy(
    ship: Ship, orders: Orders, say: Say, meant: Callable[[BaseException], BaseException] = _itself
) -> Serving:
    """Make `orders` serve and say so step by step; raises when it cannot, changing nothing.

    `meant` makes of an error the one that is written down for it.
    Traffic moves in `publish` and only there; the ledger is written after the fact.
    """
    async with ship.berth(orders, say):
        await ship.admit(orders.push)
        before = await ship.serving(orders.service)
        if before is not None and before.stopped and orders.standing is not None:
            raise Stopped
        if before is not None and before.release == orders.release:
            return await _already(ship, orders, before, say)
        steps = Steps(ship.reactor)
        try:
            serving = await _bring_up(ship, orders, before, steps, say)
        except BaseException as error:
            known = meant(error)
            await ship.note(steps.entry(orders, outcome(known), str(known)))
            raise
        if before is not None:
            ship.services.retire(before)
        await ship.settle(orders.push)
        await _tell(ship, serving, steps, say)
    return serving


async def _bring_up(
    ship: Ship, orders: Orders, before: Serving | None, steps: Steps, say: Say
) -> Serving:
    container = await ship.containerize(orders, say)  # named by the release: found if there
    try:
        await ship.make_way(orders, before)
        with steps("build"):
            launch = await ship.build(container, orders, say)
        with steps("start"):
            address = await ship.start(container, launch)
        with steps("check"):
            await ship.check(container, address, orders, say)
        serving = ship.as_serving(orders, launch, address)
        try:
            with steps("switch"):
                await ship.services.leading.publish(serving)
            last = await ship.ledger.last_live(orders.service)
            await ship.ledger.record(serving, steps.entry(orders, "live", ""))
        except BaseException:
            await ship.put_back(orders.service)
            raise
    except BaseException:  # a cancellation too; what failed is passed on always
        await ship.services.retiring.discard(container)
        await ship.give_way(orders, before)
        raise
    steps.last = last.seconds if last is not None else None
    ship.services.keeping.watch_over(serving, container)
    return serving


async def _already(ship: Ship, orders: Orders, serving: Serving, say: Say) -> Serving:
    """The same release is asked for again: nothing to build, it lives on as it now should."""
    renewed = ship.renewed(serving, orders)
    await ship.services.leading.publish(renewed)
    await ship.ledger.keep(renewed)
    if serving.stopped:
        await ship.services.wake(renewed)
    else:
        ship.services.keeping.attend(renewed)
    await ship.settle(orders.push)
    how = "is started again with" if serving.stopped else "already serves"
    say.header(f"{orders.service} {how} {short(orders.release.commit)}, nothing to build")
    say.plain(url(ship.settings, orders.service, renewed.place))
    _tell_private(ship, renewed, say)
    return renewed


async def _tell(ship: Ship, serving: Serving, steps: Steps, say: Say) -> None:
    where = url(ship.settings, serving.service, serving.place)
    at = " at" if where else ", unpublished"
    say.header(f"{serving.service} is live with {short(serving.release.commit)}{at}")
    if where:
        say.plain(where)
    _tell_private(ship, serving, say)
    say.line(timing(steps.taken, steps.total, steps.last))


def _tell_private(ship: Ship, serving: Serving, say: Say) -> None:
    if serving.front.protection.mode == "private":
        asked = f"{reached(ship.settings)} open {serving.service}"
        say.line(f"private: {asked} prints a link that lets you in")


def outcome(error: BaseException) -> str:
    """The word of the ledger for a deploy that ended with `error`.

    Only what is `failed` would fail again as it is.
    """
    if isinstance(error, Unreachable):
        return "unreachable"
    lasting = isinstance(error, Refused | DeployFailed | BuildError | ContainerError | ProxyError)
    return "failed" if lasting else "interrupted"


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
            why=orders.why,
        )
