"""What the journal holds: one event for each line, and how it is written down.

A segment is lines of JSON: events, and between them marks, which say how far the log file of each
container was read. A mark is the first line of every segment, so one segment is enough to go on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from json.encoder import encode_basestring
from typing import Any

from attrs import asdict, frozen

OWN = "starphleet"  # how the ship itself is named where services are; none is called so
SHIP, WEB, DEPLOY = "ship", "web", "deploy"  # processes; every other is the name of a job


@frozen
class Event:
    """One line. `id` counts up for ever, `time` is in epoch seconds. The ship itself is the service
    ""."""

    id: int
    time: float
    service: str
    release: str
    process: str
    content: str


@frozen
class Wanted:
    """Which events: those of `services`, of all where none is named."""

    services: frozenset[str] = frozenset()

    def __call__(self, event: Event) -> bool:
        return not self.services or event.service in self.services

    @property
    def marks(self) -> tuple[bytes, ...]:
        """What stands in the line of each such event, and in no other: a quotation mark within a
        JSON string has a backslash before it."""
        return tuple(f'"service":{encode_basestring(one)},'.encode() for one in self.services)


@frozen
class Batch:
    """Events in order; `upto` is the id that was looked through to, `missed` how many had fallen
    off the ring before the first."""

    events: list[Event]
    upto: int
    missed: int = 0


@frozen
class Read:
    """How far the log file of a container was read, in bytes, and of which service it is."""

    service: str
    at: int


@frozen
class Line:
    """An event to be. `at` is where the log file of its container was read to with it."""

    time: float
    service: str
    release: str
    process: str
    content: str
    at: int | None = None


def written(line: Line, id: int) -> bytes:
    """The line of a segment."""
    quote = encode_basestring
    at = "" if line.at is None else f',"at":{line.at}'
    text = (
        f'{{"id":{id},"time":{line.time:.3f},"service":{quote(line.service)},'
        f'"release":{quote(line.release)},"process":{quote(line.process)},'
        f'"content":{quote(line.content)}{at}}}\n'
    )
    return text.encode("utf-8", "replace")


def mark(read: Mapping[str, Read | None]) -> bytes:
    """A line that says how far log files were read; `None` for a container that is gone."""
    told = {name: one and [one.service, one.at] for name, one in read.items()}
    return json.dumps({"read": told}).encode() + b"\n"


def is_event(line: bytes) -> bool:
    return line.startswith(b'{"id":')


def id_of(line: bytes) -> int:
    """Of the line of an event, without looking at the rest of it."""
    return int(line[6 : line.index(b",")])


def event_of(line: bytes) -> Event:
    told = json.loads(line)
    told.pop("at", None)
    return Event(**told)


def take_in(read: dict[str, Read], lines: Iterable[bytes]) -> tuple[int, float]:
    """Bring `read` up to what `lines` say; the last id and time among them, 0 where there is none.
    `ValueError` for what is no line of a segment."""
    last, time = 0, 0.0
    for line in lines:
        told = json.loads(line)
        if "read" in told:
            _take_mark(read, told["read"])
        else:
            last, time = told["id"], told["time"]
            if "at" in told:
                read[told["release"]] = Read(told["service"], told["at"])
    return last, time


def _take_mark(read: dict[str, Read], told: Mapping[str, Any]) -> None:
    for name, one in told.items():
        if one is None:
            read.pop(name, None)
        else:
            read[name] = Read(*one)


def as_json(event: Event, ship: str) -> str:
    """An event for a program that reads of several ships."""
    return json.dumps({**asdict(event), "ship": ship}, ensure_ascii=False)
