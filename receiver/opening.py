"""`open`: the URL of a service, and for who has a key the link that lets a browser in."""

from __future__ import annotations

from attrs import define

from hooks.errors import Refused
from hooks.ledger import Serving
from hooks.settings import own_host, own_url, url
from hooks.ship import Ship
from proxy.protection import OWN, Crew
from receiver.crew import Muster

DASHBOARD = "dashboard"
PAGE = "/starphleet/dashboard"


@define(eq=False)
class Opening:
    """`ship` serves, `muster` knows who there is."""

    ship: Ship
    muster: Muster

    async def dashboard(self, owner: str, key: str) -> str:
        """A link to the ship's own pages. `Refused` for who may not see them."""
        crew = await self.muster.look()
        if not crew.admits(owner, key, OWN):
            raise Refused(f"{_who(crew, owner, key)}: the dashboard is for admirals")
        settings = self.ship.settings
        host = own_host(settings) or settings.host
        page = own_url(settings, PAGE, secure=self.ship.door.vouched(host))
        return f"{page}?{await self.ship.proxy.link(OWN, owner, key)}"

    async def service(self, serving: Serving, owner: str, key: str) -> str:
        """The URL of what serves, with a link where it is private."""
        where = url(self.ship.settings, serving.service, serving.place)
        if not where or serving.orphaned:
            raise Refused(f"{serving.service} is unpublished: it has no URL")
        if serving.front.protection.mode != "private":
            return where
        crew = await self.muster.look()
        if not crew.admits(owner, key, serving.service):
            raise Refused(f"{owner} has no key of this ship")
        return f"{where}?{await self.ship.proxy.link(serving.service, owner, key)}"


def _who(crew: Crew, owner: str, key: str) -> str:
    member = crew.members.get(key)
    return f"{owner} is a {member.rank.name.lower()}" if member else f"{owner} has no key"
