"""The daemon: a process that becomes the ship, maybe more than once, until another one is it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.defer import Deferred

from hooks.errors import ShipError
from hooks.layout import Layout
from receiver.config import Config
from receiver.fitting import fit_out
from receiver.sailing import sail
from receiver.ship_log import logged_in
from receiver.succession.handover import Gone, Predecessor, Successor
from receiver.succession.relief import End, taken_over
from receiver.succession.voyage import Voyage


@contextmanager
def only_ship(layout: Layout) -> Iterator[None]:
    """Hold the root for one ship; `ShipError` when another has it. The file names our pid."""
    layout.root.mkdir(parents=True, exist_ok=True)
    with layout.lock.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ShipError(f"a ship runs in {layout.root} already: starphleet status") from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


async def serve(
    reactor: Any, config: Config, stop: Deferred[bool], before: Predecessor | None = None
) -> None:
    """Run a ship until `stop` fires; then everything it started is stopped too, unless `stop`
    says that it is to go on. With `before` it takes over from that process. When another one has
    taken over, it stays for the sessions that are open in it."""
    voyage = Voyage(reactor, config, stop, before)
    if before is not None:
        try:
            voyage.doors.take(*await before.doors())
        except Gone:
            return
    while True:
        end = await _be_the_ship(voyage)
        if not isinstance(end, Successor) or await taken_over(
            reactor, end, voyage.doors, config.layout
        ):
            break
        if end.stopped:
            end = False
            break
        voyage.refused = end
    voyage.doors.close()
    await voyage.retire(end)


async def _be_the_ship(voyage: Voyage) -> End:
    config = voyage.config
    with only_ship(config.layout):
        config.layout.prepare()
        ship = fit_out(voyage.reactor, config)
        try:
            await ship.journal.open()
            with logged_in(voyage.reactor, ship.journal):
                return await sail(voyage, ship)
        finally:
            await ship.journal.close()
            ship.ledger.close()
