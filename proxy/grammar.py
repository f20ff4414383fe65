"""Grammars of what comes into nginx's configuration, and the errors of this room."""

from __future__ import annotations

import re

SEGMENT = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]{1,255}"
SERVICE = re.compile(
    rf"(?!starphleet\Z)[a-z0-9]([a-z0-9-]{{0,61}}[a-z0-9])?|/|(?=.{{1,1000}}\Z)(/{SEGMENT})+"
)
CONTAINER = re.compile(r"(?![.-])[a-z0-9.-]{1,200}")
LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
HOST = re.compile(rf"(?=.{{1,253}}\Z){LABEL}(\.{LABEL})*")
PATH = re.compile(r"(?=.{1,1000}\Z)/((?!\.{1,2}/)[A-Za-z0-9._~-]{1,255}/)*")
URL = re.compile(
    r"https?://([A-Za-z0-9.-]{1,253}|\[[0-9a-fA-F:.]{2,60}\])(:[1-9][0-9]{0,4})?"
    r"(/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]{0,1000})?"
)
ORIGIN = re.compile(r"https?://([a-z0-9.-]{1,253}|\[[0-9a-f:.]{2,60}\])(:[1-9][0-9]{0,4})?|\*")
HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,998}[\x21-\x7e])?|")
IDENTITY = re.compile(
    r"(?i:(?!(accept|access-control|content|if|proxy|sec|x-forwarded|x-starphleet)(-|\Z))"
    r"(?!(authorization|connection|cookie|expect|host|keep-alive|origin|range|te|trailer"
    r"|transfer-encoding|upgrade|user-agent|x-http|x-real-ip)\Z)[a-z][a-z0-9-]{0,63})"
)
THE_PROXYS = re.compile(
    r"(?i:host|connection|upgrade|content-length|transfer-encoding|te|trailer|keep-alive|expect"
    r"|proxy|proxy-.*|x-identity|x-forwarded-.*|x-real-ip|x-http|x-starphleet-.*|x-cache-status"
    r"|jwt-.*)"
)
"""Headers that the proxy sets itself, or that are about one connection."""

PREFIX = re.compile(r"/[A-Za-z0-9/._@+=,~ -]*[A-Za-z0-9._@+=,~-]")
REACHED = re.compile(r"ssh( -p [0-9]{1,5})? git@[A-Za-z0-9.:-]{1,253}")
USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,100}\.conf")
THE_SHIPS = ("/starphleet/", "/.well-known/acme-challenge/")
"""Paths below which the ship itself answers."""

OWN = "starphleet"
"""What the ship's own pages are called where services are told apart."""


class ProxyError(Exception):
    """nginx could not be made to serve what was asked; the text is one line for a person."""


class InvalidRoute(ProxyError, ValueError):
    """A name, host, path or address is outside its grammar; the text says which and why."""


class RouteTaken(ProxyError):
    """A host or path already leads to another service."""


def matches(what: str, grammar: re.Pattern[str], value: object) -> str:
    """`value`, if the whole of it is of the `grammar`; else `InvalidRoute` naming `what`."""
    if not isinstance(value, str) or not grammar.fullmatch(value):
        shown = repr(str(value)[:80])
        raise InvalidRoute(f"{what} {shown} is refused: it must match {grammar.pattern}")
    return value
