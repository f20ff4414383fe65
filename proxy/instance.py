"""What is the same in every configuration of one nginx, and what of that comes from this host."""

from __future__ import annotations

import grp
import os
import pwd
import resource
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from attrs import Attribute, field, frozen

from proxy.grammar import HOST, PREFIX, REACHED, USER, InvalidRoute, ProxyError, matches
from proxy.proxies import network
from proxy.structure import SHIP

SOCKET_LENGTH = 107  # bytes that Linux takes for the path of a unix socket
MOST_FILES = 65536  # that a worker may have open
MOST_WORKERS = 8


@frozen
class User:
    """The account and group that nginx's workers change to when the ship is root."""

    name: str = field()
    group: str = field()

    def __attrs_post_init__(self) -> None:
        matches("user", USER, self.name)
        matches("group", USER, self.group)


def open_files() -> int:
    """How many files a worker may have open."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)


def processors() -> int:
    """How many workers there are."""
    return min(MOST_WORKERS, os.cpu_count() or 1)


def worker_user(effective_uid: int) -> User | None:
    """Whom the workers run as: nobody of importance when the ship is root, else the ship's user."""
    if effective_uid != 0:
        return None
    for name in ("www-data", "nginx", "nobody"):
        try:
            account = pwd.getpwnam(name)
            return User(name, grp.getgrgid(account.pw_gid).gr_name)
        except KeyError:
            continue
    raise ProxyError("no account for nginx's workers: there is no www-data, nginx or nobody")


def _resolved(prefix: Path) -> Path:
    return prefix.resolve()


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

    `files` are open files per worker. An app may send nothing for `silence` seconds; so long do old
    workers keep their streams after a reload, too. Where its `modules` are is learnt at a start.
    Without an `https_port` there is no TLS. With `https_redirect` all ways but published ports lead
    there; `hsts` is for how many seconds browsers remember to go nowhere else. `reached` is how
    who has a key gets to the ship, a command. At `own_host` there are the ship's own pages alone.
    `proxies` are networks: who asks from there is believed for whom and how. Where there are some,
    https may lead to them alone.
    """

    prefix: Path = field(converter=_resolved, validator=_path)
    port: int = field(validator=_port)
    ship: str = field(default="localhost", validator=_ship)
    bind: str = "0.0.0.0"  # noqa: S104
    modules: Path = field(default=Path("/modules"), validator=_path)
    worker_user: User | None = field(factory=lambda: worker_user(os.geteuid()))
    workers: int = field(factory=processors)
    files: int = field(factory=open_files)
    silence: int = 3600
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
        """The unix socket to which what is below /starphleet/hooks/ is led, without that."""
        return self.prefix / "hooks" / "socket"

    @property
    def wake(self) -> Path:
        """The unix socket on which nginx asks for a service to be woken: its name in a line."""
        return self.prefix / "hooks" / "wake"

    @property
    def pages(self) -> Path:
        """The unix socket to which the ship's own pages are led."""
        return self.prefix / "pages" / "socket"

    @property
    def challenges(self) -> Path:
        """The directory whose files answer at `/.well-known/acme-challenge/`, for anybody."""
        return self.prefix / "challenges"

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
