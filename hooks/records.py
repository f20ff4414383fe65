"""What the ledger keeps, as values: a release that serves, a deploy as it ended."""

from __future__ import annotations

from attrs import frozen

from containers.interface import Limits
from hooks.naming import Release
from hooks.standing import Front, Job, Place, Watch


@frozen
class Launch:
    """How a built release is started: argv and environment.

    `ordered` says that it sees the ship's shared data and the files beside its orders. `limits` are
    those that it asks for by name. `working` is the working directory that it was built from, ""
    for none; if it is `linked`, that is the app.
    """

    argv: tuple[str, ...]
    env: dict[str, str]
    ordered: bool = False
    limits: Limits = Limits()
    working: str = ""
    linked: bool = False


@frozen
class Serving:
    """A release that serves. `since` and `expires` are seconds since the epoch (UTC).

    `place` is `None` for a pushed service. `standing` is the identity of the orders it follows.
    An orphan's orders are gone: it runs on without a route. What is stopped waits to be started.
    """

    release: Release
    owner: str
    branch: str
    launch: Launch
    host: str
    port: int
    since: float
    expires: float | None
    place: Place | None = None
    standing: str = ""
    jobs: tuple[Job, ...] = ()
    watch: Watch | None = None
    orphaned: bool = False
    stopped: bool = False
    front: Front = Front()

    @property
    def service(self) -> str:
        return self.release.service

    @property
    def container(self) -> str:
        return str(self.release)


@frozen
class Entry:
    """One deploy as it ended; `why` it began. `steps` maps names to seconds.

    `outcome` is `live`, `failed`, `unreachable` (something out there was) or `interrupted`.
    """

    service: str
    release: str
    commit: str
    owner: str
    started: float
    ended: float
    outcome: str
    reason: str
    steps: dict[str, float]
    why: str = ""

    @property
    def seconds(self) -> float:
        return self.ended - self.started


@frozen
class Tally:
    """Deploys of one kind: how many, the seconds they took in all, and how many took no longer
    than each bound."""

    count: int
    seconds: float
    within: tuple[int, ...]
