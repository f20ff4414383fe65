"""What the proxy is asked for: routes and backends, admitted by grammar and never repaired."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address
from typing import Any

from attrs import Attribute, field, frozen

from proxy.directives import directives
from proxy.grammar import (
    CONTAINER,
    HEADER,
    HOST,
    IDENTITY,
    ORIGIN,
    PATH,
    SERVICE,
    THE_PROXYS,
    THE_SHIPS,
    URL,
    VALUE,
    InvalidRoute,
    ProxyError,
    RouteTaken,
    matches,
)

__all__ = [
    "CONTAINER",
    "HOST",
    "PATH",
    "SERVICE",
    "Backend",
    "InvalidRoute",
    "ProxyError",
    "Route",
    "RouteTaken",
    "matches",
]


def _whole(what: str, grammar: re.Pattern[str]) -> Any:
    def check(_: object, __: Attribute[str], value: object) -> None:
        matches(what, grammar, value)

    return check


def _tuple(what: str, value: object) -> tuple[Any, ...]:
    if not isinstance(value, tuple):
        raise InvalidRoute(f"{what} must be a tuple, not {type(value).__name__}")
    return value


def _all(what: str, grammar: re.Pattern[str]) -> Any:
    def check(_: object, attribute: Attribute[Any], value: object) -> None:
        for each in _tuple(attribute.name, value):
            matches(what, grammar, each)

    return check


def _pairs(_: object, attribute: Attribute[Any], value: object) -> None:
    for each in _tuple(attribute.name, value):
        if len(_tuple(attribute.name, each)) != 2:
            raise InvalidRoute(f"{attribute.name} must be pairs, not {str(each)[:80]!r}")
        _PAIRS[attribute.name](*each)


def _redirect(host: object, url: object) -> None:
    matches("host", HOST, host)
    matches("target", URL, url)


def _header(name: object, value: object) -> None:
    if THE_PROXYS.fullmatch(matches("header", HEADER, name)):
        raise InvalidRoute(f"header {name} is refused: the proxy sets it itself")
    matches(f"the value of {name}", VALUE, value)


_PAIRS = {"redirects": _redirect, "request_headers": _header, "response_headers": _header}


def _path(_: object, __: Attribute[str], value: object) -> None:
    if value != "" and matches("path", PATH, value).startswith(THE_SHIPS):
        raise InvalidRoute(f"path {value} is refused: it is the ship's own")


def _ipv4(_: object, __: Attribute[str], value: object) -> None:
    try:
        if not isinstance(value, str) or not value.isascii():
            raise AddressValueError
        IPv4Address(value)
    except AddressValueError:
        raise InvalidRoute(f"address {str(value)[:80]!r} is refused: IPv4 only") from None


def _published(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None:
        _port(instance, attribute, value)


def _port(_: object, __: Attribute[Any], value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65535:
        raise InvalidRoute(f"port {str(value)[:80]!r} is refused: it must be 1 to 65535")


@frozen
class Route:
    """How the world names a service: at the root of each of `hosts`, below `path` on any host, and
    at the root of a `port` of its own.

    `path` begins and ends with a slash ("/~hello/", "/a/b/", "/"), or is "" for none. `redirects`
    are (host, URL): who asks for the host is led to the URL. Headers are (name, value): set on what
    the service is asked, and over what it answers. `origins` are those of pages whose scripts may
    ask it. When it is `cached`, what it lets be kept is, below `/a/b_cached/`. No request brings
    `identity_header`. `locations` are directives of nginx for it. Raises `InvalidRoute`.
    """

    service: str = field(validator=_whole("service name", SERVICE))
    hosts: tuple[str, ...] = field(validator=_all("host", HOST))
    path: str = field(validator=_path)
    port: int | None = field(default=None, validator=_published, kw_only=True)
    redirects: tuple[tuple[str, str], ...] = field(default=(), validator=_pairs, kw_only=True)
    request_headers: tuple[tuple[str, str], ...] = field(default=(), validator=_pairs, kw_only=True)
    response_headers: tuple[tuple[str, str], ...] = field(
        default=(), validator=_pairs, kw_only=True
    )
    origins: tuple[str, ...] = field(default=(), validator=_all("origin", ORIGIN), kw_only=True)
    cached: bool = field(default=False, kw_only=True)
    identity_header: str = field(
        default="x-identity", validator=_whole("identity header", IDENTITY), kw_only=True
    )
    locations: str = field(default="", kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not self.hosts and not self.path and self.port is None:
            raise InvalidRoute(f"the route of {self.service} has neither host nor path")
        if self.cached and not self.path:
            raise InvalidRoute(f"the route of {self.service} has no path to cache it at")
        if any(self.identity_header.lower() == name.lower() for name, _ in self.request_headers):
            raise InvalidRoute(f"header {self.identity_header} says who it is; orders cannot")
        twice = sorted({way for way in self.ways if self.ways.count(way) > 1})
        if twice:
            raise InvalidRoute(f"the route of {self.service} names twice: {', '.join(twice)}")
        directives(self.locations)

    @property
    def cached_path(self) -> str:
        """`/a/b_cached/` for `/a/b/`, `/_cached/` for `/`; "" when nothing is cached."""
        return f"{self.path[:-1] or '/'}_cached/" if self.cached else ""

    @property
    def ways(self) -> tuple[str, ...]:
        """All that leads here and to nothing else."""
        redirected = (host for host, _ in self.redirects)
        paths = (path for path in (self.path, self.cached_path) if path)
        ports = () if self.port is None else (f"port {self.port}",)
        return (*self.hosts, *redirected, *paths, *ports)


@frozen
class Backend:
    """The container that a service's traffic goes to, and where it listens.

    One that is `asleep` is woken by the first request. Of one that is `guarded` each request is
    looked at before it may pass; for one that is `starting` it waits until that listens; for one
    that is `stopped` it is refused. Raises `InvalidRoute`.
    """

    container: str = field(validator=_whole("container name", CONTAINER))
    host: str = field(validator=_ipv4)
    port: int = field(validator=_port)
    asleep: bool = False
    guarded: bool = False
    starting: bool = False
    stopped: bool = False
