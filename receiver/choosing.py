"""Which service a part of a name means."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from hooks.errors import ShipError
from receiver import local
from receiver.config import Config


def matching(names: Iterable[str], part: str) -> list[str]:
    """The name that `part` is, with or without its slash; else all that it is a part of."""
    known = sorted(names)
    exact = [name for name in known if part and name in (part, f"/{part.strip('/')}")]
    return exact[:1] or [name for name in known if part in name]


def chosen(config: Config, part: str) -> str:
    """The one that is meant; a person at a terminal is asked when there are several."""
    names = [one["service"] for one in local.required_status(config)["services"]]
    found = matching(names, part)
    if len(found) == 1:
        return found[0]
    if not found:
        there = f"there are {', '.join(sorted(names)[:12])}" if names else "nothing serves at all"
        raise ShipError(f"nothing serves as {part}; {there}" if part else there)
    if sys.stdin.isatty() and sys.stderr.isatty():
        return _asked(found)
    what = f"{part} is a part of several" if part else "name a service"
    raise ShipError(f"{what}: {', '.join(found[:12])}")


def _asked(found: Sequence[str]) -> str:
    for number, name in enumerate(found, 1):
        print(f"{number:3}) {name}", file=sys.stderr)
    while True:
        print("Which one? ", end="", file=sys.stderr, flush=True)
        answer = sys.stdin.readline()
        if not answer:
            raise ShipError("none was chosen")
        if answer.strip().isdigit() and 1 <= int(answer) <= len(found):
            return found[int(answer) - 1]
