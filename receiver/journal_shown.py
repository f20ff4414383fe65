"""What `starphleet logs` prints: the journal's files, read beside the ship or without one."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial
from zlib import crc32

from attrs import frozen

from hooks.errors import Refused, ShipError
from hooks.journal.lines import OWN, SHIP, WEB, Event, Wanted, as_json
from hooks.journal.reading import Reader
from hooks.push import read_duration
from receiver import local
from receiver.config import Config

LINES = 100
PULSE = 0.2  # seconds between two looks while following
_AGO = re.compile(r"[0-9]+[smhd]")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}(:[0-9]{2})?Z?)?")
_COLOURS = (32, 33, 34, 35, 36, 92, 93, 94, 95, 96)


@frozen
class Asked:
    """Of which service (`None` for all and the ship), how many lines, from when on (epoch)."""

    service: str | None
    lines: int | None
    since: float | None


def asked(service: str | None, lines: int | None, since: str | None) -> Asked:
    """`Refused` for what is no time or no number of lines."""
    if lines is not None and lines < 0:
        raise Refused(f"logs -n: {lines} is no number of lines")
    return Asked(service, lines, None if since is None else moment(since, time.time()))


def moment(text: str, now: float) -> float:
    """`10m`, `2h`, `3d` before `now`, or a date with or without a time: epoch seconds. The time is
    the host's, with a Z that of Greenwich."""
    if _AGO.fullmatch(text):
        return now - read_duration(text, "--since")
    try:
        if _DATE.fullmatch(text):
            return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        pass
    raise Refused(
        f"--since: {ascii(text)[:40]} is not a time such as 10m, 2h, 2026-11-21 or 2026-11-21T12:00"
    )


def show(config: Config, asked: Asked, *, follow: bool, as_json: bool) -> None:
    """Print what is asked for, and what comes then if it is followed. A reader who has had enough
    ends it quietly."""
    ship = local.settle(config)
    reader = Reader(config.layout.journal)
    wanted = _wanted(reader, asked.service)
    line = partial(_json, ship or _name(config)) if as_json else _text(asked)
    try:
        after = _past(reader, asked, wanted, line)
        while follow:
            batch = reader.read(after, wanted)
            _print(map(line, batch.events))
            if batch.upto == after:
                time.sleep(PULSE)
            after = batch.upto
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _wanted(reader: Reader, service: str | None) -> Wanted:
    """An ordered service may be named without its slash; `ShipError` for one that never was."""
    if service is None:
        return Wanted()
    if service == OWN:
        return Wanted(frozenset({""}))
    for name in (service, f"/{service.strip('/')}"):
        wanted = Wanted(frozenset({name}))
        if reader.last(1, wanted):
            return wanted
    raise ShipError(f"nothing serves as {service}")


def _past(reader: Reader, asked: Asked, wanted: Wanted, line: Callable[[Event], str]) -> int:
    """Print what there is; the id after which there is more to come."""
    after = reader.newest()
    if asked.since is None:
        events = reader.last(LINES if asked.lines is None else asked.lines, wanted)
        _print(map(line, events))
        return max([after, *(event.id for event in events)])
    first = reader.since(asked.since)
    if asked.lines is not None:
        events = reader.last(asked.lines, wanted)
        _print(line(event) for event in events if event.id > first)
        return max([after, *(event.id for event in events)])
    while (batch := reader.read(first, wanted)).upto > first:
        _print(map(line, batch.events))
        first = batch.upto
    return first


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _json(ship: str, event: Event) -> str:
    return as_json(event, ship)


def _text(asked: Asked) -> Callable[[Event], str]:
    """A line for a person; with the service in front where there are several."""
    return partial(_line, named=asked.service is None, colour=sys.stdout.isatty())


def _line(event: Event, *, named: bool, colour: bool) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.time))
    name = event.service or OWN
    process = "" if event.process in (WEB, SHIP) else f"[{event.process}] "
    if colour:
        when = f"\x1b[2m{when}\x1b[0m"
        name = f"\x1b[{_COLOURS[crc32(name.encode()) % len(_COLOURS)]}m{name}\x1b[0m"
    return f"{when} {f'{name} ' if named else ''}{process}{event.content}"


def _name(config: Config) -> str:
    """What a ship would say that it is called, of one that does not run."""
    from receiver.headquarters.ships import ship_name

    return ship_name(config.settings, config.layout.host_key)
