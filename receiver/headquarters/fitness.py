"""Whether the front door will take what orders say: by its own grammar, and where they say it."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from hooks.errors import Refused
from hooks.settings import Settings, route
from hooks.standing import Front, Place
from proxy.directives import directives
from proxy.grammar import ProxyError
from proxy.protection import Sign
from proxy.structure import check_sign

ANY_SHIP = Settings()
"""A ship's settings say nothing of the ways to what is ordered."""


@frozen
class Said:
    """A text for nginx, and the file and line that it stands on."""

    at: str
    text: str


def fit_locations(said: Sequence[Said]) -> str:
    """All of it together. `Refused` begins with the line where it goes wrong."""
    text = "\n".join(one.text for one in said)
    try:
        directives(text)
    except ProxyError as error:
        raise Refused(f"{_line(said, str(error))}: {error}") from None
    return text


def _line(said: Sequence[Said], wrong: str) -> str:
    """Where it is `wrong` first: a directive may go over several lines."""
    for count, one in enumerate(said, start=1):
        try:
            directives("\n".join(each.text for each in said[:count]))
        except ProxyError as error:
            if str(error) == wrong:
                return one.at
    return said[-1].at


def fit_front(where: str, path: str, place: Place, front: Front) -> None:
    """`Refused` begins with `where` when there is no such way to the service of that path."""
    try:
        route(ANY_SHIP, f"/{path}", place, front)
    except ProxyError as error:
        raise Refused(f"{where}: {error}") from None


def fit_sign(at: str, sign: Sign) -> Sign:
    """`sign`, if it may stand there; else `Refused` begins with `at`."""
    try:
        check_sign(sign)
    except ProxyError as error:
        raise Refused(f"{at}: {error}") from None
    return sign
