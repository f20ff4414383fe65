"""The loop: follows the headquarters and every repository that it names, and deploys what moved."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.logger import Logger

from containers.watching import Waiters
from hooks.deploy import KNOWN
from hooks.errors import Refused
from hooks.repository import Repository
from hooks.ship import Ship
from hooks.standing import Source
from receiver.headquarters.bringing import Bringing
from receiver.headquarters.following import Following
from receiver.headquarters.headquarters import Headquarters, pulse_of
from receiver.headquarters.ordered import Ordered
from receiver.headquarters.readings import Readings
from receiver.headquarters.remotes import lay_remote
from receiver.headquarters.sources import Sources

OWN_ERROR = "the ship made an error of its own; its log says which"

Beside = Callable[[Headquarters], Coroutine[Any, Any, None]]
"""Told of a headquarters that was adopted: what it means for the ship besides its services."""


@define(eq=False)
class Loop:
    """One for the ship. `location` is where the headquarters is.

    `pulse` is the ship's own, in seconds; `None` leaves it to the headquarters.
    """

    ship: Ship
    sources: Sources
    readings: Readings
    bringing: Bringing
    beside: Beside
    pulse: float | None = None
    location: Source | None = None
    headquarters: Headquarters | None = None
    _refused: str = ""
    _amiss: str = ""
    _following: Following | None = None
    _one_at_a_time: DeferredLock = field(factory=DeferredLock)
    _going: set[Deferred[None]] = field(factory=set)
    _waiting: Waiters = field(factory=Waiters)
    _log: Logger = Logger()

    @property
    def following(self) -> Following:
        assert self._following is not None, "follow_with comes first"
        return self._following

    def follow_with(self, following: Following) -> None:
        """Ask by `following`, which was made with `moved` and `lost`."""
        self._following = following

    @property
    def commit(self) -> str:
        """Where the headquarters is; "" before it was read."""
        return self.headquarters.commit if self.headquarters else ""

    @property
    def trouble(self) -> str:
        """Why the headquarters cannot be asked, was not followed to where it is, or is not all in
        force, if so."""
        asked = self.following.trouble(self.location) if self.location else ""
        return asked or self._refused or self._amiss

    @property
    def for_tests(self) -> dict[str, str]:
        """What of `.starphleet` a pushed service gets."""
        return self.headquarters.for_tests if self.headquarters else {}

    @property
    def bases(self) -> Mapping[str, bytes]:
        """The scripts of base containers, by name."""
        return self.headquarters.bases if self.headquarters else {}

    @property
    def _remotes(self) -> Mapping[str, Source]:
        return self.headquarters.remotes if self.headquarters else {}

    def set_out(self, location: Source | None) -> None:
        """Follow the headquarters at `location`, and no other from now on."""
        if location != self.location:
            self._refused, self._amiss, self.headquarters = "", "", None
        self.location = location
        self._follow()

    def settle_on(self, location: Source) -> None:
        """Set out for `location`, as the ship will again when it starts anew."""
        file = self.ship.layout.headquarters
        growing = file.with_name(".headquarters")
        growing.write_text(f"{location}\n")
        growing.rename(file)
        self.set_out(location)

    def stop(self) -> None:
        self.bringing.stop()
        for going in list(self._going):
            going.cancel()

    def hurry(self, urls: Collection[str] | None) -> int:
        """Ask these (`None`: everything that is followed) now; how many that are."""
        self.following.hurry(urls)
        return len(self.following.meant(urls))

    def moved(self, source: Source, commit: str) -> None:
        """`source` is at another commit than before."""
        if source == self.location:
            self._go(self._take(commit))
        self.bringing.moved(source, commit)
        for path, remote in self._remotes.items():
            if remote == source:
                self._go(self._lay(path, source, commit))

    def lost(self, source: Source, reason: str) -> None:
        """`source` cannot be read, or has no such branch, tag or commit. What serves goes on."""
        self._log.error("{source}: {reason}", source=source, reason=reason)
        if source == self.location:
            self._waiting.go_on()
        self.bringing.lost(source, reason)

    async def take(self, repository: Repository, commit: str) -> list[Ordered]:
        """Make the headquarters at `commit` the one that counts; the services not settled by then.

        `Refused` when it is not acceptable as a whole; then nothing changes.
        """
        assert self.location is not None
        async with self._one_at_a_time:
            return await self._adopt(await self.readings.read(repository, self.location, commit))

    async def reach(self, commit: str) -> None:
        """Wait until the headquarters is at `commit` or past it; `Refused` when it is not there."""
        if self.location is None:
            raise Refused("this ship has no headquarters: starphleet-headquarters URL")
        await self.following.hurry([self.location.url])
        while not await self._past(self.location, looked := self.commit, commit):
            if looked != self.commit:
                continue  # it moved meanwhile
            if trouble := self.trouble:
                raise Refused(f"the headquarters is not followed: {trouble}")
            if self.following.known.get(self.location) == looked:
                raise Refused(f"{self.location} has no {commit[:12]}; it is at {looked[:7]}")
            await self._waiting.wait()
        async with self._one_at_a_time:
            pass  # it may be known before its services are

    async def _past(self, location: Source, newest: str, commit: str) -> bool:
        if self.headquarters is None:
            return False
        if newest.startswith(commit):
            return True
        repository = await self.sources.with_history(location, newest)
        return await repository.contains(newest, commit)

    async def sweep(self) -> None:
        """Let go of everything fetched that nothing needs any more."""
        followed = {self.location, *(self.headquarters.sources if self.headquarters else ())}
        serving = (await self.ship.ledger.serving()).values()
        keep = {self.commit, *(one.release.commit for one in serving)}
        keep |= {one.commit for one in self.bringing.ordered.values()}
        await self.sources.sweep({source.url for source in followed if source}, keep)

    async def _take(self, commit: str) -> None:
        """The headquarters moved to `commit`. What serves goes on, whatever comes of it."""
        assert self.location is not None
        location = self.location
        try:
            if self.commit != commit:
                await self._follow_to(location, commit)
            elif self._amiss:
                async with self._one_at_a_time:
                    await self._beside()
            if self.commit == commit:
                self._refused = ""
        except CancelledError:
            raise
        except Exception as error:
            self._not_followed(location, commit, error)
        finally:
            self._waiting.go_on()

    async def _follow_to(self, location: Source, commit: str) -> None:
        repository = await self.sources.fetch(location, commit)
        async with self._one_at_a_time:
            if self.following.known.get(location) == commit:  # else something newer is by now
                await self._adopt(await self.readings.read(repository, location, commit))

    def _not_followed(self, location: Source, commit: str, error: Exception) -> None:
        """Tried again, unless the commit itself is not acceptable."""
        if not isinstance(error, Refused):
            self.following.forget(location)
        known = isinstance(error, KNOWN)
        why = f"{commit[:7]}: {error if known else OWN_ERROR}"
        if location == self.location and why != self._refused:
            self._refused, tell = why, self._log.error if known else self._log.failure
            tell("the headquarters is not followed to {why}", why=why)

    async def _adopt(self, headquarters: Headquarters) -> list[Ordered]:
        if headquarters.source != self.location or headquarters.commit == self.commit:
            return self.bringing.unsettled  # another one is followed by now, or it counts already
        before, self.headquarters = self.headquarters, headquarters
        for name, why in headquarters.refused.items():
            if before is None or before.refused.get(name) != why:
                self._log.error("{why}; what serves goes on", why=why)
        await self._beside()  # services may need what it changes
        changed = [
            one
            for path, standing in headquarters.orders.items()
            if (one := self.bringing.order(path, standing)) is not None
        ]
        await self._part_with(headquarters)
        self.following.pulse = pulse_of(headquarters.environment, self.pulse)
        self._follow()
        self._lay_what_is_known(headquarters, before.remotes if before else {})
        for one in changed:
            self.bringing.bring_if_known(one, self.following)
        await self.readings.keep(headquarters)
        self._log.info(
            "the headquarters is at {commit}: {count} services, {refused} refused",
            commit=headquarters.commit[:7],
            count=len(headquarters.orders),
            refused=len(headquarters.refused),
        )
        self._waiting.go_on()
        return self.bringing.unsettled

    async def _beside(self) -> None:
        """What goes wrong there, a full disk for one, keeps no service from its orders."""
        if (headquarters := self.headquarters) is None:
            return
        try:
            await self.beside(headquarters)
            self._amiss = ""
        except CancelledError:
            raise
        except Exception:
            if not self._amiss:
                self._log.failure("not all of the headquarters is in force")
            self._amiss = f"not all of {headquarters.commit[:7]} is in force; {OWN_ERROR}"
            self.following.forget(headquarters.source)

    async def _part_with(self, headquarters: Headquarters) -> None:
        """Orders that are gone: the route goes, the container stays. Refused ones are held."""
        for path in self.bringing.ordered.keys() - headquarters.orders.keys():
            one = self.bringing.forget(path)
            one.settled().addCallback(self._orphan_later, one.standing.service)
        for serving in (await self.ship.ledger.serving()).values():
            if serving.place is not None and self._unwanted(serving.service):
                self._orphan_later(None, serving.service)

    def _orphan_later(self, _: object, service: str) -> None:
        self._go(self.ship.services.orphan(service, lambda: self._unwanted(service)))

    def _unwanted(self, service: str) -> bool:
        """Nobody knows before a headquarters was read."""
        path = service.removeprefix("/")
        held = self.headquarters.held if self.headquarters else {path}
        return path not in self.bringing.ordered and path not in held

    def _follow(self) -> None:
        """Nobody asks where that is which is served from a working directory alone."""
        if self.location is None:
            return self.following.follow(())
        orders = self.headquarters.orders.values() if self.headquarters else ()
        develops = self.bringing.workplaces.has
        theirs = {one.source for one in orders if one.source and not develops(one)}
        return self.following.follow({self.location, *theirs, *self._remotes.values()})

    def _lay_what_is_known(self, headquarters: Headquarters, before: Mapping[str, Source]) -> None:
        """Lay new remotes whose commit is known by another name; the others are told of theirs."""
        for path, remote in headquarters.remotes.items():
            commit = self.following.known.get(remote)
            if commit and before.get(path) != remote:
                self._go(self._lay(path, remote, commit))

    async def _lay(self, path: str, source: Source, commit: str) -> None:
        """Let the data at `path` have the files of `source` at `commit`."""
        try:
            repository = await self.sources.fetch(source, commit)
            if self._remotes.get(path) != source:
                return  # the headquarters moved meanwhile
            ship, others = self.ship, self._remotes.keys() - {path}
            await lay_remote(ship.reactor, ship.layout, path, repository, commit, nested=others)
        except KNOWN as error:
            self._log.error("{path}/remote: {error}", path=path, error=error)
            if not isinstance(error, Refused):
                self.following.forget(source)

    def _go(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work` beside everything else."""
        going: Deferred[None] = Deferred.fromCoroutine(work)
        self._going.add(going)
        going.addErrback(self._failed)
        going.addBoth(lambda _: self._going.discard(going))

    def _failed(self, failure: Any) -> None:
        if failure.check(CancelledError) is None:
            self._log.failure("something of the headquarters failed", failure)
