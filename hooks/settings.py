"""What an operator may set about deploys, as one value; where it comes from is not known here."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

from attrs import evolve, field, frozen

from containers.interface import Limits
from hooks.standing import UNPUBLISHED, Front, Place
from proxy.routes import Route

MB = 2**20


@frozen
class Settings:
    """Seconds, bytes and counts. `test_domain` is a domain whose every sub-domain is the ship.

    `roots` is the file of certificate authorities that builds are to trust. `https_port` is `None`
    for no TLS; with `https_redirect` http leads there; `hsts` is how many seconds browsers are to
    remember it. `proxies` are networks of those that ask for others, and may speak TLS for the
    ship. `devmode` is `None` where the headquarters may say whether this is a workstation.
    """

    host: str = "localhost"
    ship_name: str = ""
    http_port: int = 8080
    https_port: int | None = None
    https_redirect: bool = False
    hsts: int = 0
    proxies: tuple[str, ...] = ()
    devmode: bool | None = None
    ssh_port: int = 2222
    test_domain: str | None = None
    test_ttl: float = 24 * 3600.0
    test_idle: float = 30 * 60.0
    drain_wait: float = 30.0
    stop_grace: float = 10.0
    deploys_at_once: int = 2
    free_disk: int = 256 * MB
    service_limits: Limits = Limits(memory=1024 * MB, processes=256, files=4096)
    build_limits: Limits = Limits(
        memory=4096 * MB,
        processes=1024,
        disk=16384 * MB,
        files=4096,
        seconds=900.0,
        output=64 * MB,
    )
    service_log: int = 16 * MB
    logs: int = 256 * MB
    build_env: Mapping[str, str] = field(factory=dict)
    roots: Path | None = None


def route(settings: Settings, service: str, place: Place | None, front: Front) -> Route | None:
    """The ways to a service; `None` to one that is unpublished.

    To an ordered one what its orders say; to a pushed one (`place` is `None`) two: by host name,
    where the host can carry one, and by path.
    """
    if place == UNPUBLISHED:
        return None
    hosts, path = _pushed(settings, service) if place is None else (place.hosts, place.path)
    return Route(
        service,
        hosts,
        path,
        port=front.published,
        redirects=front.redirects,
        request_headers=front.request_headers,
        response_headers=front.response_headers,
        origins=front.origins,
        cached=front.cached,
        identity_header=front.protection.header,
        locations=front.locations,
    )


def _pushed(settings: Settings, service: str) -> tuple[tuple[str, ...], str]:
    domain = settings.test_domain or settings.host
    return () if is_address(domain) else (f"{service}.{domain}",), f"/~{service}/"


def url(settings: Settings, service: str, place: Place | None = None) -> str:
    """The URL that works from where the pusher sits, as far as the ship can know.

    "" for a service that is unpublished.
    """
    if place is not None:
        host = _in_url(settings.host) if place.path else "".join(place.hosts[:1])
        return f"{_at(settings, host)}{place.path or '/'}" if host else ""
    if domain := _carrier(settings):
        return f"{_at(settings, f'{service}.{domain}')}/"
    return f"{_at(settings, _in_url(settings.host))}/~{service}/"


def _carrier(settings: Settings) -> str:
    """The domain that surely leads here with any name in front; "" for none."""
    local = settings.host == "localhost" or settings.host.endswith(".localhost")
    return settings.test_domain or (settings.host if local else "")


def own_host(settings: Settings) -> str:
    """The host name that is the ship's own pages' alone: what a service has below a path of another
    is their neighbour for browsers. "" where there can be none."""
    domain = _carrier(settings)
    return f"starphleet.{domain}" if domain else ""


def own_url(settings: Settings, path: str, *, secure: bool) -> str:
    """The URL of a page of the ship's own, by https where it is `secure` or the only way."""
    if secure and settings.https_port is not None:
        settings = evolve(settings, https_redirect=True)
    return f"{_at(settings, own_host(settings) or _in_url(settings.host))}{path}"


def reached(settings: Settings) -> str:
    """The command by which who has a key asks the ship, without the question."""
    port = "" if settings.ssh_port == 22 else f" -p {settings.ssh_port}"
    return f"ssh{port} git@{settings.host}"


def _at(settings: Settings, host: str) -> str:
    """The beginning of a URL at `host`, by the port that serves without leading elsewhere."""
    if settings.https_redirect and settings.https_port is not None:
        return f"https://{host}{_port(settings.https_port, 443)}"
    if settings.https_redirect and settings.proxies:
        return f"https://{host}"
    return f"http://{host}{_port(settings.http_port, 80)}"


def _port(port: int, usual: int) -> str:
    return "" if port == usual else f":{port}"


def git_address(settings: Settings) -> str:
    """What stands before `/NAME` in the URL of a git remote."""
    return f"ssh://git@{_in_url(settings.host)}{_port(settings.ssh_port, 22)}"


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def is_address(host: str) -> bool:
    """Whether `host` is an IP address and no name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
