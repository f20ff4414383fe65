"""What a ship answers to `starphleet status` and `history`: values, as JSON takes them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from attrs import asdict

from containers.log import tail
from hooks.errors import ShipError
from hooks.ledger import Ledger, Serving
from hooks.settings import url
from hooks.ship import Ship
from hooks.underway import Deploys, Underway
from proxy.certificates import doubt, expiring
from receiver.headquarters import ordered as phases
from receiver.headquarters.loop import Loop
from receiver.headquarters.ordered import Ordered

TOLD = 1000  # entries of the history that are told at most


async def history(ledger: Ledger, words: Sequence[str]) -> dict[str, Any]:
    """The newest deploys, newest first, of one service or all."""
    name = words[0] if words else None
    if name is not None and name not in await ledger.serving():
        ordered = f"/{name.strip('/')}"
        found = await ledger.history(name, 1)
        name = name if found else ordered
    entries = await ledger.history(name, TOLD)
    return {"history": [asdict(entry) for entry in entries]}


async def status(ship: Ship, loop: Loop, deploys: Deploys) -> dict[str, Any]:
    """Everything that `starphleet status` shows."""
    serving = await ship.ledger.serving()
    return {
        "ship": ship.settings.ship_name,
        "headquarters": _followed(loop),
        "host": [*ship.runtime.dropped, *_room(ship)],
        "services": [_served(one, ship) for one in serving.values()],
        "ordered": [_ordered(one, ship, loop) for one in loop.bringing.ordered.values()],
        "signs": [asdict(sign) for sign in ship.door.commons.signs],
        "certificates": _certificates(ship),
        "online": ship.proxy.online,
        "running": sorted(ship.queue.running),
        "waiting": list(ship.queue.waiting),
        "deploys": [_deploy(one, ship, deploys) for one in deploys.underway],
    }


def _room(ship: Ship) -> list[str]:
    """That there is none for a deploy."""
    try:
        ship.layout.require_room(ship.settings.free_disk)
    except ShipError as error:
        return [str(error)]
    return []


def _certificates(ship: Ship) -> list[dict[str, Any]]:
    """The pairs that nginx has, what ends soonest first; "" is the default."""
    now, there = time.time(), ship.door.certificates
    return [
        {"name": name, "days": days, "trouble": doubt(there[name], name, now)}
        for name, days in expiring(there, now)
    ]


def _followed(loop: Loop) -> dict[str, Any] | None:
    location, headquarters = loop.location, loop.headquarters
    if location is None:
        return None
    return {
        "url": str(location),
        "commit": headquarters.commit if headquarters else None,
        "trouble": loop.trouble,
        "refused": dict(headquarters.refused) if headquarters else {},
        "warnings": list(headquarters.warnings) if headquarters else [],
        "out of reach": dict(loop.following.troubles),
    }


def _served(one: Serving, ship: Ship) -> dict[str, Any]:
    services = ship.services
    return {
        "service": one.service,
        "commit": one.release.commit,
        "container": one.container,
        "owner": one.owner,
        "url": url(ship.settings, one.service, one.place),
        "address": f"{one.host}:{one.port}",
        "since": one.since,
        "expires": one.expires,
        "ordered": one.place is not None,
        "orphaned": one.orphaned,
        "stopped": one.stopped,
        "ended": services.keeping.ended.get(one.container, ""),
        "restarts": services.keeping.restarts[one.service],
        "unwell": one.container in services.attendance.unwell,
        "asleep": one.service in ship.proxy.traffic.asleep(),
        "security": one.front.protection.mode,
        "jobs": [asdict(job) for job in one.jobs],
        "working": one.launch.working,
        "linked": one.launch.linked,
    }


def _deploy(one: Underway, ship: Ship, deploys: Deploys) -> dict[str, Any]:
    service, queue = one.orders.service, ship.queue
    newest = [each for each in deploys.underway if each.orders.service == service][-1]
    alone = service not in queue.running
    return {
        "id": one.name,
        "service": service,
        "commit": one.orders.release.commit,
        "owner": one.orders.owner,
        "waits": service in queue.waiting and (alone or one is newest),
    }


def _ordered(one: Ordered, ship: Ship, loop: Loop) -> dict[str, Any]:
    standing, workplaces = one.standing, loop.bringing.workplaces
    failed = one.phase == phases.FAILED
    return {
        "service": standing.service,
        "working": str(workplaces.place(standing)) if workplaces.has(standing) else "",
        "source": str(standing.source) if standing.source else None,
        "commit": one.commit,
        "phase": one.phase,
        "reason": one.reason,
        "log": tail(ship.layout.deploy_log(standing.service), 5) if failed else [],
    }
