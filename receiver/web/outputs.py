"""What a deploy said, found again in the journal."""

from __future__ import annotations

from hooks.journal.journal import Journal
from hooks.journal.lines import DEPLOY, Wanted
from hooks.ledger import Entry

BEFORE, AFTER = 1.0, 2.0  # seconds around a deploy in which its lines were written down
AT_ONCE = 500  # events that are read
MOST_READ = 40_000  # events: a service may talk much while it is deployed


async def said(journal: Journal, entry: Entry, most: int) -> tuple[list[str], int]:
    """The last `most` lines that this deploy said, and how many there were before them; none, once
    they have fallen off the ring."""
    at, end = await journal.since(entry.started - BEFORE), entry.ended + AFTER
    wanted, lines, read = Wanted(frozenset({entry.service})), list[str](), 0
    while at < journal.newest and read < MOST_READ:
        batch = await journal.read(at, wanted, AT_ONCE)
        lines += [
            event.content
            for event in batch.events
            if event.process == DEPLOY and event.release == entry.release and event.time <= end
        ]
        if batch.events and batch.events[-1].time > end:
            break
        at, read = batch.upto, read + AT_ONCE
    return lines[-most:], max(0, len(lines) - most)
