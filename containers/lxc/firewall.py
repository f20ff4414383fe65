"""Whether the host's own firewall lets the containers through: counted, for it cannot be asked.

A table of somebody else may drop what the ship's table accepts; ufw, Docker and hand-written rules
do so in ways of their own. What the ship counts before all of them and after them tells.
"""

from __future__ import annotations

import json

from attrs import define, field, frozen

from containers.lxc.network import Plan

ENOUGH = 3  # beginnings of which none came through: one may be lost, or on its way just now
WAYS = {"out": "what containers send to the world", "in": "what is sent to exposed ports"}


@frozen
class Counted:
    """How many packets that begin something were to be forwarded, and how many were."""

    wanted: int = 0
    gone: int = 0


@frozen
class Finding:
    """What was found at `since`."""

    since: Counted = Counted()
    is_dropped: bool = False


def found(before: Finding, now: Counted) -> Finding:
    """What is found `now`; what was found `before` if there is too little to tell."""
    since = before.since
    if now.wanted < since.wanted or now.gone < since.gone:
        since = Counted()  # the table was made anew
    if now.gone > since.gone:
        return Finding(now)
    if now.wanted - since.wanted >= ENOUGH:
        return Finding(now, True)
    return Finding(since, before.is_dropped)


def read(listed: str) -> dict[str, Counted]:
    """What each of `WAYS` was counted, of `nft --json list counters`."""
    counters = [one["counter"] for one in json.loads(listed)["nftables"] if "counter" in one]
    packets = {one["name"]: int(one["packets"]) for one in counters}
    return {
        way: Counted(packets.get(f"{way}_wanted", 0), packets.get(f"{way}_gone", 0)) for way in WAYS
    }


@define
class Watch:
    """What was found so far."""

    _ways: dict[str, Finding] = field(factory=lambda: dict.fromkeys(WAYS, Finding()))

    def look(self, plan: Plan, listed: str) -> list[str]:
        """What is dropped, in lines for people, by what the counters in the table of `plan` say."""
        for way, now in read(listed).items():
            self._ways[way] = found(self._ways[way], now)
        return [
            f"the firewall of this host drops {what}: let it forward from and to {plan.tag}*"
            for way, what in WAYS.items()
            if self._ways[way].is_dropped
        ]
