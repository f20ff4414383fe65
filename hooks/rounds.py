"""What a ship looks after at every pulse: test services whose time is over, logs that grew."""

from __future__ import annotations

import itertools
import shutil
import time
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater
from twisted.logger import Logger

from containers.log import trim
from containers.watching import in_thread
from hooks import quarantine
from hooks.ship import Ship

PULSE = 5.0  # seconds
SELDOM = 720  # rounds between two housekeepings: an hour
CACHE_DAYS = 30  # that a build cache is kept after its last use

_log = Logger()


async def rounds(reactor: Any, ship: Ship) -> None:
    """Go round until cancelled; one bad round does not end the next."""
    for count in itertools.count(1):
        await deferLater(reactor, PULSE, lambda: None)
        try:
            await one_round(ship, time.time())
            if count % SELDOM == 0:
                await housekeeping(ship, time.time())
        except CancelledError:
            raise
        except Exception:
            _log.failure("a round failed")


async def one_round(ship: Ship, now: float) -> None:
    """Take down what has expired at `now` (seconds since the epoch), keep logs in their bounds,
    remove what broken pushes left.
    """
    for serving in (await ship.ledger.serving()).values():
        if serving.expires is not None and serving.expires <= now:
            _log.info("{service} has expired", service=serving.service)
            await ship.services.take_down(serving)
        else:
            log = ship.layout.service_log(serving.container)
            await in_thread(ship.reactor, trim, log, ship.settings.service_log)
    await in_thread(ship.reactor, quarantine.empty, ship.layout.repositories)


async def housekeeping(ship: Ship, now: float) -> None:
    """Pack repositories that have grown, and drop what nobody has used for long: build caches, base
    containers.
    """
    for path in ship.layout.repositories.glob("*.git"):
        await ship.repository(path.stem).pack()
    for cache in ship.layout.caches.iterdir():
        if cache.stat().st_mtime < now - CACHE_DAYS * 86400:
            await in_thread(ship.reactor, shutil.rmtree, cache, True)
    await ship.services.tidy()
