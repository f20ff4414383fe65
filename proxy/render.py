"""From routes to nginx's configuration: pure text, and every name in it has passed a grammar."""

from __future__ import annotations

import re
from functools import cache
from ipaddress import ip_address
from pathlib import Path

from attrs import Attribute, field, frozen
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from proxy.routes import HOST, InvalidRoute, Structure, matches

PREFIX = re.compile(r"/[A-Za-z0-9/._@+=,~ -]*[A-Za-z0-9._@+=,~-]")
USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
SOCKET_LENGTH = 107  # bytes that Linux takes for the path of a unix socket


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


def _port(_: object, __: Attribute[int], value: int) -> None:
    if not 1 <= value <= 65535:
        raise InvalidRoute(f"HTTP port {value} is refused: it must be 1 to 65535")


def _ship(_: object, __: Attribute[str], value: str) -> None:
    matches("ship name", HOST, value)


@frozen
class Instance:
    """What is the same in every configuration of one nginx. Raises `InvalidRoute`.

    `files` are open files per worker; `patience` is the longest silence of an app, in seconds.
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

    @property
    def control(self) -> Path:
        """The unix socket that only the ship can open."""
        return self.prefix / "control" / "socket"

    @property
    def hooks(self) -> Path:
        """The unix socket of the ship to which webhooks are led."""
        return self.prefix / "hooks" / "socket"

    @property
    def listen(self) -> str:
        try:
            address = ip_address(self.bind)
        except ValueError:
            raise InvalidRoute(f"bind address {self.bind[:80]!r} is no IP address") from None
        host = f"[{address}]" if address.version == 6 else str(address)
        return f"{host}:{self.port}"

    def __attrs_post_init__(self) -> None:
        if len(str(self.control)) > SOCKET_LENGTH:
            raise InvalidRoute(
                f"{self.control} is too long for a unix socket ({SOCKET_LENGTH} bytes): "
                "choose a shorter root for the ship"
            )
        _ = self.listen


@cache
def _template() -> Template:
    # Nothing here is HTML; names are safe by grammar, and an undefined one is an error.
    environment = Environment(  # noqa: S701
        loader=PackageLoader("proxy", ""), undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.get_template("nginx.conf.j2")


def render(instance: Instance, structure: Structure, generation: int) -> str:
    """The whole configuration; equal structures give equal text."""
    routes = sorted(structure.routes.values(), key=lambda route: route.service)
    paths = [route for route in routes if route.path]
    return _template().render(
        instance=instance,
        generation=generation,
        paths=paths,
        root=any(route.path == "/" for route in paths),
        hosts=sorted((host, route.service) for route in routes for host in route.hosts),
    )


@cache
def lua() -> str:
    """The Lua that every generation brings along, beside its configuration."""
    return (Path(__file__).parent / "starphleet.lua").read_text()
