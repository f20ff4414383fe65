"""From a structure to nginx's configuration: pure text, and every name has passed a grammar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from attrs import Attribute, field, frozen
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from proxy.directives import Directive, directives
from proxy.facts import facts
from proxy.grammar import HOST, PREFIX, REACHED, USER, InvalidRoute, matches
from proxy.proxies import network
from proxy.routes import Route
from proxy.structure import SHIP, Structure

SOCKET_LENGTH = 107  # bytes that Linux takes for the path of a unix socket
LUA = ("front", "guard", "own", "pages", "quick", "starphleet", "tls", "ways")
PAGES = (
    ("= /starphleet/dashboard", "false"),
    ("^~ /starphleet/dashboard/", "false"),
    ("= /starphleet/status", "false"),
    ("= /starphleet/logstream", "true"),
    ("= /starphleet/metrics", "true"),
)
"""Locations of the ship's own pages, and whether the site takes tokens of its own there."""
MATTER = {"proxy_buffering"}  # what a cached location has to say for itself


@frozen
class User:
    """The account and group that nginx's workers change to when the ship is root."""

    name: str = field()
    group: str = field()

    def __attrs_post_init__(self) -> None:
        matches("user", USER, self.name)
        matches("group", USER, self.group)


def _path(_: object, attribute: Attribute[Path], value: Path) -> None:
    matches(attribute.name, PREFIX, str(value))


def _port(_: object, attribute: Attribute[Any], value: int | None) -> None:
    if value is not None and not 1 <= value <= 65535:
        name = "HTTPS" if attribute.name == "https_port" else "HTTP"
        raise InvalidRoute(f"{name} port {value} is refused: it must be 1 to 65535")


def _own_host(_: object, __: Attribute[str], value: str) -> None:
    if value:
        matches("host of the ship's own pages", HOST, value)


def _reached(_: object, __: Attribute[str], value: str) -> None:
    matches("how the ship is reached", REACHED, value)


def _networks(_: object, __: Attribute[Any], value: tuple[str, ...]) -> None:
    for each in value:
        network(each)


def _ship(_: object, __: Attribute[str], value: str) -> None:
    matches("ship name", HOST, value)


@frozen
class Instance:
    """What is the same in every configuration of one nginx. Raises `InvalidRoute`.

    `files` are open files per worker; `patience` is the longest silence of an app, in seconds.
    Without an `https_port` there is no TLS. With `https_redirect` all ways but published ports lead
    there; `hsts` is for how many seconds browsers remember to go nowhere else. `reached` is how
    who has a key gets to the ship, a command. At `own_host` there are the ship's own pages alone.
    `proxies` are networks: who asks from there is believed for whom and how. Where there are some,
    https may lead to them alone.
    """

    prefix: Path = field(validator=_path)
    modules: Path = field(validator=_path)
    ship: str = field(validator=_ship)
    bind: str
    port: int = field(validator=_port)
    worker_user: User | None
    workers: int
    files: int
    patience: int
    https_port: int | None = field(default=None, validator=_port)
    https_redirect: bool = False
    hsts: int = 0
    reached: str = field(default="ssh git@ship", validator=_reached)
    own_host: str = field(default="", validator=_own_host)
    proxies: tuple[str, ...] = field(default=(), validator=_networks)

    @property
    def control(self) -> Path:
        """The unix socket that only the ship can open."""
        return self.prefix / "control" / "socket"

    @property
    def hooks(self) -> Path:
        """The unix socket of the ship to which webhooks are led."""
        return self.prefix / "hooks" / "socket"

    @property
    def own(self) -> Mapping[str, str]:
        """The ways that are the ship's, so that no service may have them."""
        ports = (self.port, self.https_port)
        ways = [f"port {port}" for port in ports if port is not None]
        return dict.fromkeys((*ways, self.own_host) if self.own_host else ways, SHIP)

    def at(self, port: int) -> str:
        """What nginx listens on for `port`."""
        try:
            address = ip_address(self.bind)
        except ValueError:
            raise InvalidRoute(f"bind address {self.bind[:80]!r} is no IP address") from None
        return f"{f'[{address}]' if address.version == 6 else address}:{port}"

    def __attrs_post_init__(self) -> None:
        if len(str(self.control)) > SOCKET_LENGTH:
            raise InvalidRoute(
                f"{self.control} is too long for a unix socket ({SOCKET_LENGTH} bytes): "
                "choose a shorter root for the ship"
            )
        if self.port == self.https_port:
            raise InvalidRoute(f"HTTP and HTTPS cannot both be port {self.port}")
        if self.hsts < 0:
            raise InvalidRoute("HSTS must be a number of seconds")
        self.at(self.port)


@frozen
class Way:
    """One location that leads to a service. One that is cached knows the way past its cache."""

    service: str
    path: str
    text: str
    past: Way | None = None


def _text(lines: Sequence[Directive], cached: bool) -> str:
    """The directives for a location. What is to be kept for how long, the guard's answers are not
    to say: so `expires` is by a variable."""
    text = []
    for each in lines:
        if each.name == "expires":
            text += [f'set $sp_expires "{each.words[0]}";', "expires $sp_expires;"]
        elif not (cached and each.name in MATTER):
            text.append(each.text)
    return " ".join(text)


def _way(route: Route, path: str, *, cached: bool = False) -> Way:
    text = _text(directives(route.locations), cached)
    return Way(route.service, path, text, _way(route, path) if cached else None)


def particular(structure: Structure) -> tuple[list[Way], list[str]]:
    """The paths that need locations of their own: to services, and those of signs.

    They have directives, or are cached, or lie below one of those. Lua finds all others.
    """
    routes = structure.routes.values()
    signs = structure.standing_signs
    ways = [_way(route, route.path) for route in routes if route.path]
    ways += [_way(structure.routes[sign.service], sign.path) for sign in signs if sign.service]
    found = [_way(route, route.cached_path, cached=True) for route in routes if route.cached]
    found += [way for way in ways if way.text]
    above = {way.path for way in found}
    found += [way for way in ways if not way.text and _below(way.path, above)]
    return (
        sorted(found, key=lambda way: way.path),
        [sign.path for sign in signs if sign.url and _below(sign.path, above)],
    )


def _below(path: str, above: Set[str]) -> bool:
    """Whether `path` lies below one of `above`."""
    return any(path[:at] in above for at, letter in enumerate(path, start=1) if letter == "/")


@cache
def _template() -> Template:
    # Nothing here is HTML; names are safe by grammar, and an undefined one is an error.
    environment = Environment(  # noqa: S701
        loader=PackageLoader("proxy", ""), undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.get_template("nginx.conf.j2")


def render(instance: Instance, structure: Structure, generation: int) -> str:
    """The whole of nginx.conf; equal structures give equal text."""
    routes = sorted(structure.routes.values(), key=lambda route: route.service)
    paths, signs = particular(structure)
    plain = [route for route in routes if not route.locations]
    redirects = sorted(host for route in routes for host, _ in route.redirects)
    tls = instance.https_port is not None and "" in structure.certificates
    return _template().render(
        instance=instance,
        pages=PAGES,
        generation=generation,
        tls=tls,
        named=[host for host in structure.certificates if host],
        redirecting=(tls or bool(instance.proxies)) and instance.https_redirect,
        paths=paths,
        signs=signs,
        root=any(way.path == "/" for way in paths),
        hosts=sorted((host, route.service) for route in plain for host in route.hosts),
        particular=[(route, _way(route, "/")) for route in routes if route.locations],
        redirects=redirects,
        known=_known(instance, structure, redirects),
        ports=[(route.port, _way(route, "/")) for route in routes if route.port is not None],
        cached=any(route.cached for route in routes),
        operators=sorted(structure.files),
    )


def _known(instance: Instance, structure: Structure, redirects: Sequence[str]) -> list[str]:
    """The hosts that the ship has a name for."""
    hosts = (host for route in structure.routes.values() for host in route.hosts)
    certified = (host for host in structure.certificates if HOST.fullmatch(host))
    own = [instance.own_host] if instance.own_host else []
    return sorted({*own, *hosts, *redirects, *certified})


@cache
def lua() -> Mapping[str, str]:
    """The Lua that every generation brings along, beside its configuration."""
    here = Path(__file__).parent
    return {f"{name}.lua": (here / f"{name}.lua").read_text() for name in LUA}


def generation_files(
    instance: Instance, structure: Structure, generation: int
) -> dict[str, str | bytes]:
    """Every file of a generation, by its name in there."""
    files: dict[str, str | bytes] = {
        "nginx.conf": render(instance, structure, generation),
        "services.lua": facts(structure),
        **lua(),
    }
    for number, (_, pair) in enumerate(sorted(structure.certificates.items())):
        files[f"tls/{number}.crt"] = pair.chain
        files[f"tls/{number}.key"] = pair.key
    for name, text in structure.files.items():
        files[f"operator/{name}"] = text
    return files
