"""What a ship does before anything else: let everything serve again that the ledger says serves."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from hooks.leading import backend
from hooks.ledger import Serving
from hooks.settings import route
from hooks.ship import Ship

_log = Logger()


async def boot(ship: Ship, *, tidily: bool = True) -> None:
    """Routes first, then each service adopted or started beside the others, then tidying up:
    `tidily` only where no git of an earlier process of the ship may still run.

    A service that does not come back is logged and holds up nobody; its entry stays.
    """
    serving = await ship.ledger.serving()
    table = {
        leading: (backend(one), one.front.protection)
        for name, one in serving.items()
        if not one.orphaned
        and (leading := route(ship.settings, name, one.place, one.front)) is not None
    }
    refused = await ship.door.open(table)
    for name, error in refused.items():
        _log.error("{name} has no route: {error}", name=name, error=error)
    await gatherResults([Deferred.fromCoroutine(_resume(ship, one)) for one in serving.values()])
    await ship.runtime.sweep({one.container for one in serving.values()})
    await ship.services.leading.open_ports({})
    await _tidy(ship, serving, gits=tidily)


async def _resume(ship: Ship, serving: Serving) -> None:
    try:
        await ship.services.resume(serving)
    except Exception:
        _log.failure("{service} does not serve again", service=serving.service)


async def _tidy(ship: Ship, serving: Mapping[str, Serving], *, gits: bool) -> None:
    """Remove what ended containers, and with `gits` killed gits, left."""
    for path in ship.layout.repositories.glob("*.git") if gits else ():
        ship.repository(path.name.removesuffix(".git")).tidy()
    kept = {one.container for one in serving.values()}
    for log in ship.layout.logs.glob("*.log"):
        if log.name.removesuffix(".log") not in kept:
            await ship.journal.end(log.name.removesuffix(".log"))
            log.unlink(missing_ok=True)
