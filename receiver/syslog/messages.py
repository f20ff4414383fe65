"""Where the journal goes besides: destinations of syslog, and an event as their message (RFC 5424).

An event is not said twice by the same id, so a receiver that is told one again can see it.
"""

from __future__ import annotations

import re
import time

from attrs import frozen

from hooks.errors import Refused
from hooks.journal.lines import DEPLOY, OWN, Event

PORTS = {"udp": 514, "tcp": 514, "tls": 6514}
LONGEST = 8192  # bytes of a message: what receivers take at least, as they are configured
USER, DAEMON = 1, 3  # facilities
CRITICAL, ERROR, WARNING, NOTICE, INFO = 2, 3, 4, 5, 6
_LEVELS = {"critical": CRITICAL, "error": ERROR, "warn": WARNING, "info": INFO}
_LEVEL = re.compile(r"\[[^\]#]{0,200}#([a-z]+)\]")
_URL = re.compile(
    r"(udp|tcp|tls)://([A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?"
)
_UNPRINTABLE = re.compile(r"[^\x21-\x7e]")
_SPECIAL = re.compile(r'(["\\\]])')
_ELEMENT = "starphleet@32473"  # the number that RFC 5612 keeps for whoever has none


@frozen
class Destination:
    """A receiver of syslog: `way` is udp, tcp or tls."""

    way: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.way}://{host}:{self.port}"


def destinations(text: str, where: str) -> tuple[Destination, ...]:
    """Of URLs with commas between them; `Refused`, which begins with `where`."""
    found = [_destination(part.strip(), where) for part in text.split(",") if part.strip()]
    return tuple(dict.fromkeys(found))


def _destination(text: str, where: str) -> Destination:
    match = _URL.fullmatch(text)
    port = int(match[3] or PORTS[match[1]]) if match else 0
    if match is None or not 1 <= port <= 65535:
        raise Refused(
            f"{where}: {ascii(text)[:60]} is no destination such as udp://HOST:514, tcp://HOST:514 "
            "or tls://HOST:6514"
        )
    return Destination(match[1], match[2].strip("[]").lower(), port)


def message(event: Event, ship: str) -> bytes:
    """One event as the host `ship` says it, cut to what receivers take."""
    when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(event.time))
    named = {"service": event.service or OWN, "release": event.release, "process": event.process}
    told = {name: value for name, value in {"id": str(event.id), **named}.items() if value}
    data = " ".join(f'{name}="{_quoted(value)}"' for name, value in told.items())
    text = (
        f"<{priority(event)}>1 {when}.{int(event.time % 1 * 1000):03d}Z {_word(ship, 255)} "
        f"{_word(event.service or OWN, 48)} {_word(event.process, 128)} - [{_ELEMENT} {data}] "
        f"{event.content}"
    )
    return text.encode("utf-8", "replace")[:LONGEST].decode("utf-8", "ignore").encode()


def framed(message: bytes) -> bytes:
    """With its length before it, as it stands in a stream (RFC 6587)."""
    return b"%d %b" % (len(message), message)


def priority(event: Event) -> int:
    """Facility and severity: the ship's own lines say theirs, a deploy has failed by its last."""
    severity = INFO
    if not event.service and (level := _LEVEL.match(event.content)):
        severity = _LEVELS.get(level[1], INFO)
    elif event.process == DEPLOY and event.content.startswith(" !"):
        severity = ERROR
    return (USER if event.service else DAEMON) * 8 + severity


def _word(text: str, most: int) -> str:
    return _UNPRINTABLE.sub("_", text)[:most] or "-"


def _quoted(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)
