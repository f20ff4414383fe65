"""Who has a key of the ship now, told to its front door whenever that changes."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from attrs import define

from containers.watching import in_thread
from hooks.settings import Settings, reached
from proxy.nginx import Proxy
from proxy.protection import Crew, Member
from receiver.ssh.interface import Key
from receiver.ssh.keys import KeyDirectory

PULSE = 2.0  # seconds between two looks at the keys


def crew_of(keys: KeyDirectory) -> dict[str, Member]:
    """Everybody who has a key, by its fingerprint, as `KeyDirectory.find` knows them."""
    found: dict[str, list[Key]] = defaultdict(list)
    for key in keys.all():
        found[key.fingerprint].append(key)
    return {
        fingerprint: Member(own[0].owner, max(key.rank for key in own))
        for fingerprint, own in found.items()
        if len({key.owner for key in own}) == 1
    }


@define(eq=False)
class Muster:
    """Looks who there is. `crew` is as of the last look."""

    reactor: Any
    keys: KeyDirectory
    proxy: Proxy
    settings: Settings
    crew: Crew = Crew()

    async def look(self) -> Crew:
        """Who there is now; the front door knows as well."""
        members = await in_thread(self.reactor, crew_of, self.keys)
        self.crew = Crew(members, reached(self.settings))
        await self.proxy.muster(self.crew)
        return self.crew
