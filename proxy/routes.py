"""What the proxy is asked for: routes and backends, admitted by grammar and never repaired."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import AddressValueError, IPv4Address
from typing import Any

from attrs import Attribute, evolve, field, frozen

SEGMENT = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]{1,255}"
SERVICE = re.compile(rf"[a-z0-9]([a-z0-9-]{{0,61}}[a-z0-9])?|/|(?=.{{1,1000}}\Z)(/{SEGMENT})+")
CONTAINER = re.compile(r"(?![.-])[a-z0-9.-]{1,200}")
LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
HOST = re.compile(rf"(?=.{{1,253}}\Z){LABEL}(\.{LABEL})*")
PATH = re.compile(r"(?=.{1,1000}\Z)/((?!\.{1,2}/)[A-Za-z0-9._~-]{1,255}/)*")


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


def _whole(what: str, grammar: re.Pattern[str]) -> Any:
    def check(_: object, __: Attribute[str], value: object) -> None:
        matches(what, grammar, value)

    return check


def _hosts(_: object, __: Attribute[tuple[str, ...]], value: object) -> None:
    if not isinstance(value, tuple):
        raise InvalidRoute(f"hosts must be a tuple, not {type(value).__name__}")
    for host in value:
        matches("host", HOST, host)
    if len(set(value)) != len(value):
        raise InvalidRoute(f"hosts name one host twice: {', '.join(value)}")


def _path(_: object, __: Attribute[str], value: object) -> None:
    if value != "":
        matches("path", PATH, value)


def _ipv4(_: object, __: Attribute[str], value: object) -> None:
    try:
        if not isinstance(value, str) or not value.isascii():
            raise AddressValueError
        IPv4Address(value)
    except AddressValueError:
        raise InvalidRoute(f"address {str(value)[:80]!r} is refused: IPv4 only") from None


def _port(_: object, __: Attribute[int], value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65535:
        raise InvalidRoute(f"port {str(value)[:80]!r} is refused: it must be 1 to 65535")


@frozen
class Route:
    """How the world names a service: at the root of each of `hosts`, and below `path` on any host.

    `path` begins and ends with a slash ("/~hello/", "/a/b/", "/"), or is "" for none.
    Raises `InvalidRoute`.
    """

    service: str = field(validator=_whole("service name", SERVICE))
    hosts: tuple[str, ...] = field(validator=_hosts)
    path: str = field(validator=_path)

    def __attrs_post_init__(self) -> None:
        if not self.hosts and not self.path:
            raise InvalidRoute(f"the route of {self.service} has neither host nor path")


@frozen
class Backend:
    """The container that a service's traffic goes to, and where it listens.

    One that is `asleep` is woken by the first request. Raises `InvalidRoute`.
    """

    container: str = field(validator=_whole("container name", CONTAINER))
    host: str = field(validator=_ipv4)
    port: int = field(validator=_port)
    asleep: bool = False


@frozen
class Structure:
    """All routes, one per service; no host and no path leads to two of them."""

    routes: Mapping[str, Route] = field(factory=dict)

    def with_route(self, route: Route) -> Structure:
        """This and `route`, in place of an earlier one of its service. Raises `RouteTaken`."""
        others = [other for other in self.routes.values() if other.service != route.service]
        for other in others:
            taken = sorted(set(route.hosts) & set(other.hosts))
            if route.path and route.path == other.path:
                taken.append(route.path)
            if taken:
                raise RouteTaken(
                    f"{route.service} cannot have {', '.join(taken)}: "
                    f"it already leads to {other.service}"
                )
        return evolve(self, routes={**self.routes, route.service: route})

    def without(self, service: str) -> Structure:
        """This without the route of `service`, which need not be known."""
        return evolve(self, routes={s: r for s, r in self.routes.items() if s != service})
