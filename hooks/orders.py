"""What one service should be, read from a commit and from the orders that stand for it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from attrs import evolve, field, frozen

from buildpacks.procfile import parse_procfile
from containers.interface import Limits
from hooks.environment import effective, read_env_file
from hooks.errors import Refused
from hooks.fronts import as_pushed, front_of, in_devmode
from hooks.limits import asked, within
from hooks.naming import Release, configuration_id
from hooks.push import Push
from hooks.repository import EMPTY_TREE, Repository
from hooks.standing import UNPUBLISHED, Front, Place, StandingOrders, Watch
from hooks.watchdog import watch_of
from hooks.working import Working

NO_COMMIT = "0" * 40
BASE = "STARPHLEET_BASE"
READ = (".env", "Procfile", "healthcheck")
_PATH = re.compile(r"/[\x21-\x7e]{0,2000}")


@frozen
class Orders:
    """One service: which commit of which repository, in which environment, checked how.

    `repository` is `None` when there is nothing to build, only jobs, or what lies in `working`.
    `healthcheck` is a path, `None` when nobody set one. `ttl` is in seconds. `why` says what
    brought this about. `limits` are those that it asks for by name, `bases` the scripts of base
    containers by name, `warnings` lines for who set it off.
    """

    repository: Repository | None
    release: Release
    owner: str
    branch: str
    environment: dict[str, str]
    processes: dict[str, str]
    healthcheck: str | None
    ttl: float | None
    push: Push | None = None
    standing: StandingOrders | None = None
    watch: Watch | None = None
    why: str = "pushed"
    limits: Limits = Limits()
    bases: Mapping[str, bytes] = field(factory=dict)
    front: Front = Front()
    warnings: tuple[str, ...] = ()
    working: Working | None = None

    @property
    def has_source(self) -> bool:
        return self.repository is not None or self.working is not None

    @property
    def linked(self) -> Path | None:
        """The working directory that the container is to see itself."""
        return self.working.path if self.working is not None and self.working.linked else None

    @property
    def service(self) -> str:
        return self.release.service

    @property
    def place(self) -> Place | None:
        """Where an ordered service is to answer; `None` for a pushed one."""
        return self.standing.place if self.standing else None

    @property
    def check_seconds(self) -> float:
        """How long the service has to answer, HEALTHCHECK_INIT_DELAY."""
        return float(self.environment["HEALTHCHECK_INIT_DELAY"])


async def orders_of_push(
    push: Push,
    repository: Repository,
    ttl: float,
    phleet: Mapping[str, str],
    *,
    bases: Mapping[str, bytes],
    most: Limits,
    devmode: bool | None = None,
    private: bool = False,
) -> Orders:
    """The orders that the files of the pushed commit give; `Refused` names file and line.

    `ttl` is in seconds, for a push that named none; `phleet` and `bases` are what the
    headquarters' `.starphleet` and `containers/` give to test services, `most` the limits of the
    ship: a push may ask for less. It has the protection that these name, but no port of its own:
    that is for who is ordered. `devmode` is what the ship itself says of it, `private` what the
    last push that said so did.
    """
    files = await _files(repository, push.new)
    environment = effective(_own(files), phleet)
    front, warnings = front_of(environment, {}, Front(), in_devmode(phleet, devmode))
    front, kept = as_pushed(front, push.private, private)
    return Orders(
        repository=repository,
        release=Release(push.service, _identity(environment, {}, bases), push.new),
        owner=push.owner,
        branch=push.branch,
        environment=_checked(environment),
        processes=parse_procfile(files["Procfile"]) if "Procfile" in files else {},
        healthcheck=healthcheck_path(environment, files.get("healthcheck")),
        ttl=ttl if push.ttl is None else push.ttl,
        push=push,
        limits=within(asked(environment), most),
        bases=bases,
        front=evolve(front, published=None),
        warnings=(*kept, *(warnings if phleet.get("SECURITY_MODE") else ())),
    )


async def orders_of_standing(
    standing: StandingOrders,
    repository: Repository | None,
    commit: str,
    *,
    owner: str,
    again: int,
    why: str,
    devmode: bool | None = None,
    working: Working | None = None,
    texts: Mapping[str, str] = MappingProxyType({}),
) -> Orders:
    """What `standing` says, at `commit` of its source; `Refused` names file and line.

    `repository` is `None` (and `commit` `NO_COMMIT`) when it has no source: jobs alone. `owner` is
    who made the commit; `again` counts how often the same was wanted once more. With `working` its
    code is there: `commit` stands for that, and `texts` are the files of it that the ship reads.
    """
    files = await _files(repository, commit) if repository else texts
    environment = effective(_own(files), standing.environment)
    own = {"/": standing.content, "/again": str(again)}
    if working is not None and working.linked:  # nothing else tells that it is to be started anew
        own |= {f"/{name}": files[name] for name in READ if name in files}
    checked = healthcheck_path(environment, files.get("healthcheck"))
    return Orders(
        repository=repository,
        release=Release(standing.service, _identity(environment, own, standing.bases), commit),
        owner=owner,
        branch=standing.source.ref if standing.source else "",
        environment=_checked(environment),
        processes=parse_procfile(files["Procfile"]) if "Procfile" in files else {},
        healthcheck=checked,
        ttl=None,
        standing=standing,
        watch=watch_of(environment, checked),
        why=why,
        limits=asked(standing.environment),
        bases=standing.bases,
        front=_front(standing, environment, devmode),
        working=working,
    )


def _front(standing: StandingOrders, environment: Mapping[str, str], devmode: bool | None) -> Front:
    """What its orders say, and what the whole environment adds where there is a way to it."""
    if standing.place == UNPUBLISHED:
        return standing.front
    developing = in_devmode(standing.environment, devmode)
    return front_of(environment, standing.files, standing.front, developing)[0]


def _identity(
    environment: Mapping[str, str], own: Mapping[str, str], bases: Mapping[str, bytes]
) -> str:
    """12 hex digits of all that a release is made of besides its source."""
    script = bases.get(environment.get(BASE, ""))
    based = {"/base": hashlib.sha256(script).hexdigest()} if script is not None else {}
    return configuration_id({**environment, **own, **based})


def _own(files: Mapping[str, str]) -> dict[str, str]:
    """The variables of a commit's `.env`, which may name a base of the ship, but not fetch one."""
    own = read_env_file(files.get(".env", ""), ".env")
    if "://" in own.get(BASE, ""):
        raise Refused(f".env: {BASE}: only orders may say where a base is fetched from")
    return own


async def _files(repository: Repository, commit: str) -> dict[str, str]:
    """The files of `commit` that the ship itself reads."""
    tree = await repository.tree(commit)
    if tree is None:
        raise Refused(f"{commit[:7]} is not a commit; a branch of a ship points to one")
    if tree == EMPTY_TREE:
        raise Refused(f"the commit {commit[:7]} has no files, there is nothing to build")
    return await repository.files(commit, READ)


def healthcheck_path(environment: dict[str, str], file: str | None) -> str | None:
    """`HEALTHCHECK`, else the first line of the `healthcheck` file that is no comment."""
    if "HEALTHCHECK" in environment:
        return _path(environment["HEALTHCHECK"], "HEALTHCHECK")
    lines = [line.strip() for line in (file or "").splitlines()]
    for number, line in enumerate(lines, 1):
        if line and not line.startswith("#"):
            return _path(line, f"healthcheck:{number}")
    return None


def _path(text: str, where: str) -> str:
    path = text if text.startswith("/") else f"/{text}"
    if not _PATH.fullmatch(path):
        raise Refused(f"{where}: {ascii(text)[:60]} is not a path to check")
    return path


def _checked(environment: dict[str, str]) -> dict[str, str]:
    delay = environment["HEALTHCHECK_INIT_DELAY"]
    if not re.fullmatch(r"[0-9]{1,9}", delay) or not 1 <= int(delay) <= 3600:
        raise Refused(
            f"HEALTHCHECK_INIT_DELAY: {ascii(delay)[:20]} is not a number of seconds, 1 to 3600"
        )
    return environment
