"""Sending the journal on to receivers of syslog, each as fast as it takes it.

Where a receiver is, is kept in a file: what it did not get while it or the ship was away, it gets
from the journal. Over a stream that is what its host has acknowledged, so after a break some events
may come twice, by the same id; a datagram counts as got when it was sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from attrs import define
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from containers.watching import in_thread
from hooks.journal.journal import Journal
from hooks.journal.lines import Batch, Event
from receiver.syslog.links import Away, Broken, Datagrams, Link, stream
from receiver.syslog.messages import Destination, message

AT_ONCE = 500  # events of one batch
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0  # seconds before a receiver that is away is tried again


@define(eq=False)
class Sender:
    """Sends to one destination, from where `kept` says on. `ship` is the name of this host."""

    reactor: Any
    journal: Journal
    destination: Destination
    ship: str
    roots: Path | None
    kept: Path
    _after: int = -1
    _pause: float = FIRST_PAUSE
    _trouble: str = ""
    _log: Logger = Logger()

    async def go(self) -> None:
        """Until it is cancelled."""
        self._after = await in_thread(self.reactor, _read, self.kept, self.journal.newest)
        while True:
            try:
                await self._send_on()
            except CancelledError:
                raise
            except Away as why:
                self._say(str(why))
            except Exception:
                self._log.failure("{to}: an error of the ship's own", to=str(self.destination))
            await deferLater(self.reactor, self._pause)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    async def _send_on(self) -> None:
        """Raises when the receiver is away."""
        link, sent = await self._reach(), False
        try:
            while True:
                coming = Deferred.fromCoroutine(self.journal.coming(self._after, most=AT_ONCE))
                batch = await link.unless_lost(coming)
                await link.send([message(event, self.ship) for event in self._told(batch)])
                self._after, self._pause = batch.upto, FIRST_PAUSE
                await in_thread(self.reactor, _write, self.kept, self._after)
                self._say("")
                sent = True
        except Broken:
            if not sent:  # else it may be there for the next one
                raise
        finally:
            link.close()

    async def _reach(self) -> Link:
        if self.destination.way == "udp":
            return await in_thread(self.reactor, Datagrams.to, self.reactor, self.destination)
        return await stream(self.reactor, self.destination, self.roots)

    def _told(self, batch: Batch) -> list[Event]:
        """The events, and before them that some are missing."""
        if not batch.missed or not batch.events:
            return batch.events
        first = batch.events[0]
        text = f"[syslog#warn] {batch.missed} lines left the journal before they could be sent"
        return [Event(first.id - 1, first.time, "", "", "ship", text), *batch.events]

    def _say(self, trouble: str) -> None:
        """Once that a receiver is away, once that it is back."""
        if trouble and not self._trouble:
            self._log.warn("{to}: {why}; it is tried again", to=str(self.destination), why=trouble)
        elif self._trouble and not trouble:
            self._log.info("{to} is there again", to=str(self.destination))
        self._trouble = trouble


def senders(
    reactor: Any,
    journal: Journal,
    to: Sequence[Destination],
    ship: str,
    roots: Path | None,
    directory: Path,
) -> list[Sender]:
    """One for each destination; where each is, is kept below `directory`."""
    return [
        Sender(reactor, journal, one, ship, roots, directory / f"sent-{_short(one)}") for one in to
    ]


def _short(destination: Destination) -> str:
    return sha256(str(destination).encode()).hexdigest()[:16]


def _read(kept: Path, newest: int) -> int:
    """Where a destination is; at the newest event if it was never sent to."""
    try:
        return int(kept.read_text())
    except (OSError, ValueError):
        return newest


def _write(kept: Path, after: int) -> None:
    new = kept.with_suffix(".new")
    with suppress(OSError):  # on a full disk some are told twice
        new.write_text(f"{after}\n")
        new.replace(kept)
