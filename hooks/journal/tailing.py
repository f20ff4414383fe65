"""Following one release in the journal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from containers.watching import within
from hooks.journal.journal import Journal
from hooks.journal.lines import DEPLOY, Event, Wanted

PULSE = 1.0  # seconds after which a quiet one is asked whether it goes on
PAST = 1000  # lines of what was before


async def follow(
    reactor: Any,
    journal: Journal,
    service: str,
    release: str,
    output: Callable[[bytes], None],
    going_on: Callable[[], Awaitable[bool]],
    after: int = 0,
    handed: Callable[[int], None] = lambda upto: None,
) -> None:
    """Hand what a release logged and what it comes to log to `output`, as long as `going_on` says
    so. `handed` is told the id of the event up to which that is done: who goes on there later, as
    `after`, misses nothing and gets nothing twice."""

    def hand(events: Iterable[Event], upto: int) -> int:
        for event in events:
            if event.release == release and event.process != DEPLOY:
                output(event.content.encode() + b"\n")
        handed(upto)
        return upto

    wanted = Wanted(frozenset({service}))
    if not after:
        newest = journal.newest
        past = await journal.last(PAST, wanted)
        after = hand([event for event in past if event.id <= newest], newest)
    while await going_on():
        batch = await journal.read(after, wanted)
        after = hand(batch.events, batch.upto)
        if after >= journal.newest:
            await within(reactor, journal.grown(), PULSE)
    await journal.settle()
    batch = await journal.read(after, wanted)
    hand(batch.events, batch.upto)
