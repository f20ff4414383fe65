"""Whether the front door will take what a headquarters says: by its grammar, where it is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from hooks.errors import Refused
from hooks.settings import Settings, route
from hooks.standing import Front, Place
from proxy.directives import directives
from proxy.grammar import ProxyError
from proxy.protection import LdapServer, NotProtected, Sign
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


def ldap_server(file: str, exported: Mapping[str, str]) -> LdapServer:
    """What `file` says by what it exports; `Refused` begins with `file`."""
    missing = [key for key in ("LDAP_URL", "LDAP_USER", "LDAP_PASSWORD") if key not in exported]
    if missing:
        raise Refused(f"{file}: it does not export {', '.join(missing)}")
    starttls = exported.get("LDAP_STARTTLS", "false").lower()
    if starttls not in ("true", "false"):
        raise Refused(f"{file}: LDAP_STARTTLS: {ascii(starttls)[:40]} is not true or false")
    server = LdapServer(
        url=exported["LDAP_URL"],
        user=exported["LDAP_USER"],
        password=exported["LDAP_PASSWORD"],
        starttls=starttls == "true",
        authorities=exported.get("LDAP_CA", ""),
    )
    from proxy.guard.ldap import admitted  # it takes long to load, and few ships want it

    try:
        admitted(server)
    except NotProtected as error:
        raise Refused(f"{file}: {error}") from None
    return server
