"""Bringing ordered services to what their orders and their sources say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from attrs import Factory, define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from hooks.deploy import KNOWN, outcome
from hooks.errors import HandedOver, Stopped, Superseded
from hooks.ledger import Serving
from hooks.orders import NO_COMMIT, Orders, orders_of_standing
from hooks.say import Listen, clean
from hooks.ship import Ship
from hooks.stamps import when_stamped
from hooks.standing import Source, StandingOrders
from hooks.underway import Deploys
from receiver.headquarters import ordered as phases
from receiver.headquarters.following import Following
from receiver.headquarters.ordered import Ordered
from receiver.headquarters.sources import Sources
from receiver.headquarters.workplaces import Workplaces, lasting

FIRST_PAUSE, LONGEST_PAUSE = 5.0, 300.0  # seconds before what was out of reach is tried again
LONGEST_REASON = 500  # characters


@define(eq=False)
class Bringing:
    """`ordered` are the services by the paths of their orders. `bring` begins for each that is to
    change; those under way are cancelled by `stop`."""

    ship: Ship
    deploys: Deploys
    sources: Sources
    ordered: dict[str, Ordered] = field(factory=dict)
    workplaces: Workplaces = field(
        init=False, default=Factory(lambda self: Workplaces(self.ship, self.sources), True)
    )
    _going: set[Deferred[None]] = field(factory=set)
    _later: dict[int, Any] = field(factory=dict)
    _log: Logger = Logger()

    @property
    def unsettled(self) -> list[Ordered]:
        """The services that are on their way to what they should be."""
        return [one for one in self.ordered.values() if one.phase not in phases.SETTLED]

    def order(self, path: str, standing: StandingOrders) -> Ordered | None:
        """Let `standing` count at `path`; the service, if it is another than before."""
        one = self.ordered.get(path)
        if one is None:
            one = self.ordered[path] = Ordered(standing)
            return one
        before, one.standing = one.standing, standing
        return one if before != standing else None

    def forget(self, path: str) -> Ordered:
        """Nothing is ordered at `path` any more; what was. A deploy under way comes to its end,
        and what comes before one ends now."""
        one = self.ordered.pop(path)
        self._forget_later(one)
        if one.phase == phases.WAITING:
            one.begin()
            one.settle(phases.FAILED, "its orders are not followed any more")
        return one

    def moved(self, source: Source, commit: str) -> None:
        """`source` is at another commit than before."""
        for one in self._that_follow(source):
            one.commit = commit
            self.bring(one)

    def lost(self, source: Source, reason: str) -> None:
        """`source` cannot be read. What serves goes on, and so does what was read of it before."""
        for one in self._that_follow(source):
            if not one.commit:
                one.settle(phases.UNREACHABLE, reason)

    def _that_follow(self, source: Source) -> list[Ordered]:
        """A service with a working directory follows nothing."""
        there = [one for one in self.ordered.values() if one.standing.source == source]
        return [one for one in there if not self.workplaces.has(one.standing)]

    def bring_if_known(self, one: Ordered, following: Following) -> None:
        """Begin at once where the source's commit is known; else its first answer begins it."""
        source = one.standing.source
        if source is not None and not self.workplaces.has(one.standing):
            one.commit = following.known.get(source, "")
            if not one.commit:
                one.begin()
                if trouble := following.trouble(source):
                    one.settle(phases.UNREACHABLE, trouble)
                return
        self.bring(one)

    async def watch_work(self, following: Following) -> None:
        """Deploy what is saved in working directories, until cancelled: a look in each pulse."""
        while True:
            await deferLater(self.ship.reactor, following.pulse)
            for path, one in list(self.ordered.items()):
                changed = await self.workplaces.changed(one)
                if changed and self.ordered.get(path) is one and one.phase in phases.SETTLED:
                    self.bring(one)

    def bring(self, one: Ordered) -> None:
        """Begin to make `one` serve what it should; it settles in the end, whatever comes."""
        self._forget_later(one)
        going: Deferred[None] = Deferred.fromCoroutine(self._bring(one, one.begin()))
        self._going.add(going)
        going.addErrback(self._unforeseen, one)
        going.addBoth(lambda _: self._going.discard(going))

    def stop(self) -> None:
        for later in self._later.values():
            later.cancel()
        self._later.clear()
        for going in list(self._going):
            going.cancel()

    async def _bring(self, one: Ordered, turn: int) -> None:
        try:
            phase, reason = await self._towards(one, turn)
        except HandedOver:
            return
        except CancelledError:
            raise
        except Stopped as error:
            phase, reason = phases.STOPPED, str(error)
        except Exception as error:
            if turn != one.turn:
                return
            phase = phases.FAILED if outcome(error) == "failed" else phases.UNREACHABLE
            reason = clean(str(error))[:LONGEST_REASON]
            if not reason or not isinstance(error, KNOWN):
                self._log.failure("{service} was not deployed", service=one.standing.service)
        if phase == phases.FAILED:
            await self.workplaces.failed(one)
        if turn == one.turn:
            self._settle(one, phase, reason)

    def _settle(self, one: Ordered, phase: str, reason: str) -> None:
        one.settle(phase, reason)
        one.tries = one.tries + 1 if phase == phases.UNREACHABLE else 0
        if phase in (phases.FAILED, phases.UNREACHABLE):
            self._log.error("{service}: {reason}", service=one.standing.service, reason=reason)
        if phase == phases.UNREACHABLE and self.ordered.get(one.standing.path) is one:
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (one.tries - 1))
            self._later[id(one)] = self.ship.reactor.callLater(pause, self.bring, one)

    async def _towards(self, one: Ordered, turn: int) -> tuple[str, str]:
        """The phase this ends in, and why if it is no good one."""
        service = one.standing.service
        serving = await self.ship.serving(service)
        if serving is not None and serving.stopped:
            raise Stopped
        orders = await self._orders(one, serving)
        if serving is not None and serving.release == orders.release and not serving.orphaned:
            return phases.LIVE, ""
        (last,) = await self.ship.ledger.history(service, 1) or (None,)
        if last is not None and last.release == str(orders.release) and last.outcome == "failed":
            return phases.FAILED, last.reason
        if turn != one.turn:
            raise Superseded("something newer is wanted")
        self.ship.layout.require_room(self.ship.settings.free_disk)
        one.phase = phases.DEPLOYING
        with _told(one, self.ship.layout.deploy_log(service)) as listen:
            try:
                await self.deploys.join(orders, listen)
            finally:
                self.deploys.leave(orders, listen)
        return phases.LIVE, ""

    async def _orders(self, one: Ordered, serving: Serving | None) -> Orders:
        standing = one.standing
        repository, commit, owner, found = None, NO_COMMIT, "headquarters", None
        if self.workplaces.has(standing):
            found = await self.workplaces.found(standing)
            one.commit = commit = found.commit
            owner = found.owner
        elif standing.source is not None:
            repository, commit = await self.sources.fetch(standing.source, one.commit), one.commit
            owner, _ = await self.sources.author(repository, commit)
        orders = await orders_of_standing(
            standing,
            repository,
            commit,
            owner=owner,
            again=await self.ship.ledger.again(standing.service),
            why=_why(one, serving),
            devmode=self.ship.settings.devmode,
            working=found.working if found else None,
            texts=found.texts if found else {},
        )
        if found is not None:
            orders = lasting(orders, serving)
            one.commit = orders.release.commit
        return orders

    def _unforeseen(self, failure: Any, one: Ordered) -> None:
        if failure.check(CancelledError) is None:
            self._log.failure("{service}", failure, service=one.standing.service)
            one.settle(phases.FAILED, "the ship made an error of its own; its log says which")

    def _forget_later(self, one: Ordered) -> None:
        """Do not try `one` again by itself."""
        later = self._later.pop(id(one), None)
        if later is not None and later.active():
            later.cancel()


@contextmanager
def _told(one: Ordered, log: Path) -> Iterator[Listen]:
    """Who listens to a deploy of `one`: whoever follows it, and the file `log`, begun anew."""
    with log.open("w") as file:

        def listen(line: str) -> None:
            with suppress(OSError):  # a full disk is to be told, not to end the telling
                file.write(f"{line}\n")
                file.flush()
            one.say(line)

        yield listen


def _why(one: Ordered, serving: Serving | None) -> str:
    """What made this deploy necessary, for the history."""
    if serving is None:
        return "ordered"
    if serving.standing != one.standing.identity:
        return "orders or environment changed"
    if serving.release.commit != one.commit:
        worked = when_stamped(one.commit) is not None
        return "working directory changed" if worked else "new commit"
    return "wanted again"
