"""The log stream: every line of the ship's journal as it comes, to many at a time.

Each reader has a place in the journal and nothing else, so a slow one costs what its socket holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from hooks.errors import Refused
from hooks.journal.journal import Journal
from hooks.journal.lines import Event, Wanted, as_json
from receiver.web.peers import Peers
from receiver.web.reader import Reader
from receiver.web.site import keep, said_on
from receiver.web.sse import TYPE, Position, frame, position_text, read_position

MOST = 500  # readers at a time
BATCH = 100  # events that are read at once
FIELDS = 200  # of a query
TEXTS = 1000  # events that are kept as text
LINES = 50  # of the past that a reader who names no event begins with
MOST_LINES = 1000


@frozen
class Ask:
    """What one reader wants: `lines` of the past where `position` has no event of a ship; only
    events of `ships` and of `services`, if they are named; with `local` only of this ship."""

    position: Position
    lines: int = LINES
    services: tuple[str, ...] = ()
    ships: tuple[str, ...] = ()
    local: bool = False

    @property
    def wanted(self) -> Wanted:
        """Of the journal; an ordered service may be named without its slash."""
        slashed = (f"/{one.strip('/')}" for one in self.services if one)
        return Wanted(frozenset({*self.services, *slashed}))

    def means(self, ship: str) -> bool:
        return not self.ships or ship in self.ships


def read_ask(request: Any) -> Ask:
    """What a request asks for; `Refused` for what makes no sense."""
    query = request.uri.partition(b"?")[2].decode("latin-1")
    try:
        said = parse_qs(query, keep_blank_values=True, max_num_fields=FIELDS)
    except ValueError:
        raise Refused(f"more than {FIELDS} parts of a query") from None
    count = said.get("n", [str(LINES)])[-1]
    if not re.fullmatch(r"[0-9]{1,9}", count) or int(count) > MOST_LINES:
        raise Refused(f"n={ascii(count)[:20]}: it is a number from 0 to {MOST_LINES}")
    last = request.getHeader("last-event-id") or said.get("last-event-id", [""])[-1]
    services, ships = tuple(said.get("service", ())), tuple(said.get("ship", ()))
    return Ask(read_position(last), int(count), services, ships, "local" in said)


@lru_cache(TEXTS)
def _text(event: Event, ship: str) -> str:
    """An event for those who read it at about the same time."""
    return as_json(event, ship)


@define(eq=False)
class Tap:
    """What a reader of several ships was sent: each of its ids names an event of each ship."""

    reader: Reader
    ship: str
    merged: bool
    position: Position = field(factory=dict)

    def own(self, event: Event) -> None:
        """Send an event of this ship."""
        self._send(self.ship, event.id, _text(event, self.ship))

    def event(self, ship: str, id: int, data: Mapping[str, object]) -> None:
        """Send an event of another ship."""
        self._send(ship, id, json.dumps({"id": id, **data, "ship": ship}))

    def _send(self, ship: str, id: int, text: str) -> None:
        self.position[ship if self.merged else ""] = id
        self.reader.write(frame(text, id=position_text(self.position)))

    def note(self, kind: str, **data: object) -> None:
        """Tell something about the stream itself."""
        self.reader.write(frame(json.dumps(data), kind=kind))
        self.reader.flush()


class Logstream(Resource):
    """`/starphleet/logstream`; what it says is in docs/pages.md."""

    isLeaf = True

    def __init__(
        self, reactor: Any, journal: Journal, ship: str, peers: Peers | None, most: int = MOST
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._journal = journal
        self._ship = ship
        self._peers = peers
        self._most = most
        self._readers: set[Reader] = set()

    @property
    def readers(self) -> int:
        """How many there are now."""
        return len(self._readers)

    def render(self, request: Request) -> bytes | int:
        if request.postpath:
            return said_on(request, 404, "No such page", "There is nothing below this page.")
        try:
            ask = read_ask(request)
        except Refused as error:
            return said_on(request, 400, "Not this way", str(error))
        peers = None if ask.local else self._peers
        if peers is None and not ask.means(self._ship):
            request.setResponseCode(204)  # which keeps a browser from asking again
            return b""
        if len(self._readers) >= self._most:
            request.setHeader("Retry-After", "30")
            return said_on(
                request, 503, "Too many readers", f"{self._most} read the log stream already."
            )
        if request.method == b"HEAD":
            request.setHeader("Content-Type", TYPE)
            return b""
        reader = Reader(self._reactor, request)
        keep(request, Deferred.fromCoroutine(self._read(reader, ask, peers)))
        return NOT_DONE_YET

    async def _read(self, reader: Reader, ask: Ask, peers: Peers | None) -> None:
        self._readers.add(reader)
        beside: list[Deferred[None]] = []
        try:
            reader.begin()
            tap = Tap(reader, self._ship, peers is not None)
            if peers is not None:
                tap.position |= {ship: id for ship, id in ask.position.items() if ship}
                beside = peers.follow(tap, ask)
            await (self._follow(tap, ask) if ask.means(self._ship) else Deferred())
        finally:
            reader.end()
            self._readers.discard(reader)
            for one in beside:
                one.cancel()

    async def _follow(self, tap: Tap, ask: Ask) -> None:
        """Send what this ship's journal has, and then what comes, until cancelled."""
        tap.note("ship", ship=self._ship, url="", trouble="")
        after = await self._begin(tap, ask)
        while True:
            batch = await self._journal.coming(after, ask.wanted, BATCH)
            if batch.missed:
                tap.note("missed", ship=self._ship, missed=batch.missed)
            after = self._send(tap, batch.events) or batch.upto
            await tap.reader.room()

    async def _begin(self, tap: Tap, ask: Ask) -> int:
        """The event after which to go on."""
        newest = self._journal.newest
        after = ask.position.get(self._ship, ask.position.get("", newest + 1))
        if after <= newest:
            return after
        events = await self._journal.last(ask.lines, ask.wanted) if ask.lines else []
        sent = self._send(tap, events)
        return sent or max([newest, *(event.id for event in events[-1:])])

    def _send(self, tap: Tap, events: Sequence[Event]) -> int:
        """Send as many as there is room for. The last one's id if not all: those are read again,
        for nothing is kept of what a reader cannot take."""
        for event in events:
            tap.own(event)
            if tap.reader.full:
                return event.id
        tap.reader.flush()
        return 0
