"""What a ship looks after: test services whose time is over, what nobody has used for long."""

from __future__ import annotations

import shutil
import time

from twisted.logger import Logger

from containers.watching import in_thread
from hooks import quarantine
from hooks.ship import Ship

CACHE_DAYS = 30  # that a build cache is kept after its last use

_log = Logger()


async def one_round(ship: Ship) -> None:
    """Take down what has expired, remove what broken pushes left."""
    now = time.time()
    for serving in (await ship.ledger.serving()).values():
        if serving.expires is not None and serving.expires <= now:
            _log.info("{service} has expired", service=serving.service)
            await ship.services.take_down(serving)
    await in_thread(ship.reactor, quarantine.empty, ship.layout.repositories)


async def housekeeping(ship: Ship) -> None:
    """Pack repositories that have grown, and drop what nobody has used for long: build caches, base
    containers.
    """
    for path in ship.layout.repositories.glob("*.git"):
        await ship.repository(path.stem).pack()
    kept_since = time.time() - CACHE_DAYS * 86400
    for cache in ship.layout.caches.iterdir():
        if cache.stat().st_mtime < kept_since:
            await in_thread(ship.reactor, shutil.rmtree, cache, True)
    for base in await ship.runtime.tidy():
        _log.info("{base} was not used for long, it is removed", base=base)
