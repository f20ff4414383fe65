"""What an operator may set about deploys, as one value; where it comes from is not known here."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

from attrs import field, frozen

from containers.interface import Limits
from hooks.standing import UNPUBLISHED, Place
from proxy.routes import Route

MB = 2**20


@frozen
class Settings:
    """Seconds, bytes and counts. `test_domain` is a domain whose every sub-domain is the ship.

    `roots` is the file of certificate authorities that builds are to trust.
    """

    host: str = "localhost"
    ship_name: str = ""
    http_port: int = 8080
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
    build_env: Mapping[str, str] = field(factory=dict)
    roots: Path | None = None


def route(settings: Settings, service: str, place: Place | None) -> Route | None:
    """The ways to a service; `None` to one that is unpublished.

    To an ordered one what its orders say; to a pushed one (`place` is `None`) two: by host name,
    where the host can carry one, and by path.
    """
    if place is not None:
        return Route(service, place.hosts, place.path) if place != UNPUBLISHED else None
    domain = settings.test_domain or settings.host
    hosts = () if _is_address(domain) else (f"{service}.{domain}",)
    return Route(service, hosts, f"/~{service}/")


def url(settings: Settings, service: str, place: Place | None = None) -> str:
    """The URL that works from where the pusher sits, as far as the ship can know.

    "" for a service that is unpublished.
    """
    port = "" if settings.http_port == 80 else f":{settings.http_port}"
    if place is not None:
        host = _in_url(settings.host) if place.path else "".join(place.hosts[:1])
        return f"http://{host}{port}{place.path or '/'}" if host else ""
    domain = settings.test_domain or settings.host
    if settings.test_domain or domain == "localhost" or domain.endswith(".localhost"):
        return f"http://{service}.{domain}{port}/"
    return f"http://{_in_url(settings.host)}{port}/~{service}/"


def git_address(settings: Settings) -> str:
    """What stands before `/NAME` in the URL of a git remote."""
    port = "" if settings.ssh_port == 22 else f":{settings.ssh_port}"
    return f"ssh://git@{_in_url(settings.host)}{port}"


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
