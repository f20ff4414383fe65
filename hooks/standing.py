"""Standing orders: what a headquarters says of one service, at whatever commit its source is."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from attrs import define, field, frozen

from hooks.naming import configuration_id
from proxy.protection import Protection


@frozen
class Source:
    """A repository that is followed, and which branch, tag or commit of it.

    `ref` is "" for the default branch, whatever its name. Printed as `url#ref`.
    """

    url: str
    ref: str = ""

    def __str__(self) -> str:
        return f"{self.url}#{self.ref}" if self.ref else self.url


@frozen
class File:
    """A regular file of the headquarters."""

    data: bytes
    executable: bool = False


@frozen
class Job:
    """A `#@` file beside the orders: `name` runs when `schedule` says (cron's, or `@hourly`)."""

    name: str
    schedule: str


@frozen
class Watch:
    """The watchdog of a service that serves: asks for `path` every `pulse` seconds, and restarts
    the service when more than `retries` questions in a row are not answered with a 200. One that
    was started again has `delay` seconds for its first answer."""

    path: str
    pulse: float
    retries: int
    delay: float = 60.0


@frozen
class Place:
    """Where an ordered service answers: below `path` ("/a/b/", "/", "" for none), and at the root
    of each of `hosts`. Neither: it is unpublished."""

    path: str
    hosts: tuple[str, ...] = ()


UNPUBLISHED = Place("")


@frozen
class Front:
    """The way to a service, beyond its place, and who may take it.

    `exposed` are ports of the host that lead to the same ports of the service, `published` one that
    leads to its web process. `redirects` are (host, target URL), headers (name, value), `origins`
    those that pages may come from which ask this service. `locations` is text for nginx. With
    `to_stderr` the ship's log repeats the service's.
    """

    exposed: tuple[int, ...] = ()
    published: int | None = None
    redirects: tuple[tuple[str, str], ...] = ()
    request_headers: tuple[tuple[str, str], ...] = ()
    response_headers: tuple[tuple[str, str], ...] = ()
    origins: tuple[str, ...] = ()
    cached: bool = False
    locations: str = ""
    betas: tuple[tuple[str, str], ...] = ()
    protection: Protection = Protection()
    to_stderr: bool = False


@define(frozen=True, slots=False)
class StandingOrders:
    """One directory of the headquarters with an `orders` file in it.

    `path` is the directory ("" the root, else "a/b"); `source` is `None` when nothing is to be
    built (only jobs run). `environment` is what the layers up to the orders export, without
    defaults that nobody changed. `files` are the directory's own files by name. `content` is a
    digest of everything in the directory that is this service's own. `bases` are the scripts of all
    base containers of the headquarters.
    """

    path: str
    source: Source | None
    environment: Mapping[str, str]
    content: str
    files: Mapping[str, File] = field(factory=dict)
    place: Place = UNPUBLISHED
    stop_first: bool = False
    jobs: tuple[Job, ...] = ()
    front: Front = Front()
    warnings: tuple[str, ...] = ()
    bases: Mapping[str, bytes] = field(factory=dict, repr=False)

    @property
    def service(self) -> str:
        """The name of the service: its path from the root. No pushed service begins so."""
        return f"/{self.path}"

    @cached_property
    def identity(self) -> str:
        """12 hex digits that change when the directory's content or its environment does."""
        script = self.bases.get(self.environment.get("STARPHLEET_BASE", ""), b"")
        return configuration_id({**self.environment, "/": self.content, "/base": script.hex()})
