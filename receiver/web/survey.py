"""What the dashboard shows, brought together from the parts of the ship."""

from __future__ import annotations

import time
from collections.abc import Iterable

from attrs import evolve, field, frozen

from hooks.errors import Refused
from hooks.ledger import Serving
from hooks.naming import pushed_refs
from hooks.repository import Repository
from hooks.say import plain
from hooks.settings import url
from hooks.ship import Ship
from hooks.underway import Deploys, Underway
from proxy.certificates import doubt, expiring
from receiver.headquarters.loop import Loop
from receiver.web.commits import Commits
from receiver.web.states import Known, Wish
from receiver.web.views import Going, Row, is_shown, places, row

LONGEST = 31 * 86400.0  # seconds that a pushed service may live
SOON = 20  # days before its end in which a certificate should have been renewed


@frozen(eq=False)
class Survey:
    """A ship as it is now, up since `began` (epoch seconds)."""

    ship: Ship
    deploys: Deploys
    loop: Loop
    commits: Commits
    began: float = field(factory=time.time)

    async def rows(self, now: float) -> list[Row]:
        """Every service of the ship, with what is known of its commit."""
        known = await self.known(now)
        shown = [
            row(name, one, self._url(name, one.serving))
            for name, one in known.items()
            if is_shown(one, now)
        ]
        return [evolve(one, made=self.commits.known(one.commit)) for one in shown]

    async def known(self, now: float) -> dict[str, Known]:
        """What bears on the state of each service that serves, is wanted, or failed last."""
        serving = await self.ship.ledger.serving()
        failed = await self.ship.ledger.failed(now - LONGEST)
        wishes, refused = self._wishes(), self._refused()
        under_way = {one.service: one for one in reversed(self.going())}
        asleep, services = self.ship.proxy.traffic.asleep(), self.ship.services
        names = serving.keys() | failed.keys() | wishes.keys() | refused.keys() | under_way.keys()
        return {
            name: Known(
                serving=serves,
                failed=failed.get(name),
                wish=wishes.get(name),
                place=coming.place if coming else None,
                coming=coming.commit if coming else "",
                by=coming.owner if coming else "",
                refused=refused.get(name, ""),
                ended=services.keeping.ended.get(serves.container, "") if serves else "",
                unwell=serves is not None and serves.container in services.attendance.unwell,
                asleep=name in asleep,
            )
            for name in sorted(names)
            for serves, coming in [(serving.get(name), under_way.get(name))]
        }

    def _url(self, service: str, serving: Serving | None) -> str:
        if serving is None or serving.orphaned:
            return ""
        return url(self.ship.settings, service, serving.place)

    def _wishes(self) -> dict[str, Wish]:
        return {
            one.standing.service: Wish(
                one.phase, one.reason, one.commit, str(one.standing.source or "")
            )
            for one in self.loop.bringing.ordered.values()
        }

    def _refused(self) -> dict[str, str]:
        """Why orders are not followed, by the service that they are about."""
        headquarters = self.loop.headquarters
        if headquarters is None:
            return {}
        found = {}
        for path in headquarters.held:
            file = f"{path}/orders" if path else "orders"
            found[f"/{path}"] = headquarters.refused.get(file, "its orders are refused")
        return found

    def going(self) -> list[Going]:
        """Deploys that have not ended: those that run, then the queue in its order."""
        queue = self.ship.queue
        found = [_going(one, queue.running, queue.waiting) for one in self.deploys.underway]
        return sorted(found, key=lambda one: (one.place, one.began))

    def repository(self, service: str, source: str) -> Repository | None:
        """Where the commits of a service are, if they came; it follows the URL `source` if its
        orders do not say what."""
        if not service.startswith("/"):
            name, _ = pushed_refs(service)
            return self.ship.repository(name)
        one = self.loop.bringing.ordered.get(service[1:])
        if one is not None and one.standing.source is not None:
            source = one.standing.source.url
        try:
            return self.loop.sources.kept(source) if source else None
        except Refused:
            return None

    async def learn(self, wanted: Iterable[tuple[str, str, str]], patience: float) -> None:
        """Learn the commits of `wanted`: (service, what it follows, commit) each; see
        `Commits.learn`."""
        where = [(self.repository(service, source), commit) for service, source, commit in wanted]
        await self.commits.learn([(at, one) for at, one in where if at is not None], patience)

    def troubles(self) -> list[str]:
        """What is not as it should be with the ship itself, a line each."""
        found = dict.fromkeys((*self._of_host(), *self._of_headquarters()))
        return [plain(line) for line in found]

    def _of_host(self) -> Iterable[str]:
        yield from self.ship.runtime.dropped
        if not self.ship.proxy.online:
            yield "offline: /starphleet/nginx/status answers 404 (starphleet-dns-online)"
        free, least = self.ship.layout.free_bytes(), self.ship.settings.free_disk
        if free < least:
            yield f"the disk is full: {free >> 20} MB free, deploys need {least >> 20} MB"
        now, there = time.time(), self.ship.door.certificates
        for name, days in expiring(there, now):
            which = name or "the default certificate"
            if odd := doubt(there[name], name, now):
                yield f"{which}: {odd}"
            elif days < SOON:
                yield f"{which} expires in {days} days"

    def _of_headquarters(self) -> Iterable[str]:
        loop, headquarters = self.loop, self.loop.headquarters
        if loop.location is None:
            return
        if loop.trouble:
            yield f"headquarters: {loop.trouble}"
        if headquarters is not None:
            yield from (f"{why}; what serves goes on" for why in headquarters.refused.values())
        yield from loop.following.troubles.values()

    def certificates(self) -> list[tuple[str, int]]:
        """Names and days left, what ends soonest first; "" is the default one."""
        return list(expiring(self.ship.door.certificates, time.time()))


def _going(one: Underway, running: Iterable[str], waiting: Iterable[str]) -> Going:
    orders = one.orders
    place = places(orders.service, frozenset(running), tuple(waiting))
    return Going(
        service=orders.service,
        release=str(orders.release),
        commit=orders.release.commit,
        owner=orders.owner,
        why=orders.why,
        began=one.began,
        place=place,
        lines=one.transcript.lines,
    )
