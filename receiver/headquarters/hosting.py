"""The ship as the host of its own headquarters: what a push to `git@ship:headquarters` means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import define, evolve

from hooks.errors import DeployFailed, Refused
from hooks.naming import commit_id
from hooks.push import Update
from hooks.repository import Repository
from hooks.say import Listen, Say
from hooks.ship import Ship
from hooks.standing import Source
from receiver.headquarters import ordered as phases
from receiver.headquarters.headquarters import Headquarters
from receiver.headquarters.loop import Loop
from receiver.headquarters.ordered import Ordered
from receiver.headquarters.plan import plan

NAME = "headquarters"
_HEADS = "refs/heads/"
MOST_REASONS = 20  # lines about orders that are refused


@define(eq=False)
class Hosting:
    """`here` is the headquarters' address when it is this ship."""

    ship: Ship
    loop: Loop
    here: Source

    async def examine(
        self, updates: Sequence[Update], quarantine: Mapping[str, str], say: Say
    ) -> None:
        """Refuse a push that is not acceptable, before anything of it is kept; tell the plan."""
        self._require_here()
        repository = evolve(self._repository, quarantine=quarantine)
        new = await self._commit_of(updates)
        if new is None:
            return
        readings, source = self.loop.readings, self.loop.location or self.here
        headquarters = await readings.read(repository, source, new)
        if headquarters.refused:
            await readings.forget(headquarters)
        _require_good(headquarters, say)
        serving = await self.ship.ledger.serving()
        for line in plan(headquarters.orders, headquarters.held, serving).lines():
            say.header(line)
        for warning in headquarters.warnings:
            say.line(warning)

    async def accept(self, updates: Sequence[Update], say: Say) -> list[Ordered]:
        """Move the branches, then follow the headquarters; the services that change by it.

        The first branch that a repository gets becomes its own, so what is followed comes first.
        """
        new = await self._commit_of(updates)
        trunk = await self._trunk(updates)
        for old, now, ref in sorted(updates, key=lambda update: update[2] != trunk):
            await self._move(ref, _known(old), _known(now))
        if self.loop.location is None:
            self.loop.settle_on(self.here)
        if new is not None and self.loop.location is not None:
            self.loop.following.disregard(self.loop.location)
        changed = await self.loop.take(self._repository, new) if new is not None else []
        self.loop.following.hurry([self.here.url]).addErrback(lambda _: None)
        if new is None:
            self._tell_of_trunk(trunk, updates, say)
            return changed
        count = "1 service changes" if len(changed) == 1 else f"{len(changed)} services change"
        say.header(f"The headquarters is at {new[:7]}; {count}")
        for one in self.loop.bringing.ordered.values():
            if one not in changed and one.phase in (phases.FAILED, phases.UNREACHABLE):
                say.line(f"{one.standing.service} is still not as ordered: {one.reason}")
        return changed

    def _tell_of_trunk(self, trunk: str | None, updates: Sequence[Update], say: Say) -> None:
        """Where there are no orders, a push of another branch was meant to bring them."""
        pushed = [ref.removeprefix(_HEADS) for _, _, ref in updates if ref.startswith(_HEADS)]
        followed = self.loop.headquarters
        if trunk is not None and pushed and not (followed and followed.orders):
            say.header(
                f"Nothing changes: orders are read from {trunk.removeprefix(_HEADS)}, which has "
                f"none. To read them from there: starphleet headquarters {self.here}#{pushed[0]}"
            )

    @property
    def _repository(self) -> Repository:
        return self.ship.repository(NAME)

    def _require_here(self) -> None:
        location = self.loop.location
        if location is not None and location.url != self.here.url:
            raise Refused(
                f"the headquarters of this ship is {location}; "
                f"starphleet-headquarters {self.here} makes it the one that you push here"
            )

    async def _trunk(self, updates: Sequence[Update]) -> str | None:
        """The branch that is followed: the repository's own, else the first that comes."""
        ref = self.loop.location.ref if self.loop.location else ""
        if ref:
            return f"{_HEADS}{ref}"
        named = await self._repository.head()
        if await self._repository.tip(named) is not None:
            return named
        pushed = [ref for _, _, ref in updates if ref.startswith(_HEADS)]
        usual = [ref for ref in pushed if ref in (f"{_HEADS}main", f"{_HEADS}master")]
        return next(iter([*usual, *pushed]), None)

    async def _commit_of(self, updates: Sequence[Update]) -> str | None:
        """What the branch that is followed is to become; `None` when the push leaves it alone."""
        trunk = await self._trunk(updates)
        found = {ref: new for _, new, ref in updates}
        if trunk is None or trunk not in found:
            return None
        new = _known(found[trunk])
        if new is None:
            raise Refused(f"{trunk} is what this ship follows; it is not deleted")
        return new

    async def _move(self, ref: str, old: str | None, new: str | None) -> None:
        if not ref.startswith((_HEADS, "refs/tags/")):
            raise Refused(f"{ascii(ref)[1:-1][:80]} is neither a branch nor a tag")
        if new is None:
            await self._repository.forget(ref)
        elif await self._repository.tip(ref) != new:
            await self._repository.move(ref, new, old)


def _require_good(headquarters: Headquarters, say: Say) -> None:
    refused = sorted(headquarters.refused.values())
    if not refused:
        return
    count = len(refused)
    for line in refused[:MOST_REASONS] if count > 1 else ():
        say.line(line)
    raise Refused(
        f"{refused[0]}"
        + (f" (and {count - 1} more)" if count > 1 else "")
        + "; nothing of this push counts, what serves goes on"
    )


def verdict(commit: str, changed: Sequence[Ordered]) -> None:
    """`DeployFailed` when one of `changed` is not live; the headquarters stays where it is."""
    bad = [one for one in changed if one.phase not in (phases.LIVE, phases.STOPPED)]
    if bad:
        details = tuple(f"{one.standing.service}: {one.reason}" for one in bad)
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise DeployFailed(
            f"the headquarters is at {commit[:7]}, but {details[0]}{more}; "
            "what served before serves on",
            details if len(bad) > 1 else (),
        )


def hear(one: Ordered, listen: Listen, *, alone: bool) -> Listen:
    """A listener for one of several services: each line says whose it is."""
    if alone:
        return listen
    return lambda line: listen(f"{one.standing.service}: {line}")


def _known(oid: str) -> str | None:
    return commit_id(oid) if oid.strip("0") else None
