"""What one service should be, read from the commit that was pushed."""

from __future__ import annotations

import re

from attrs import frozen

from buildpacks.procfile import parse_procfile
from hooks.environment import effective, read_env_file
from hooks.errors import Refused
from hooks.naming import Release, configuration_id
from hooks.push import Push
from hooks.repository import EMPTY_TREE, Repository

READ = (".env", "Procfile", "healthcheck")
_PATH = re.compile(r"/[\x21-\x7e]{0,2000}")


@frozen
class Orders:
    """One service: which commit of which repository, in which environment, checked how.

    `healthcheck` is a path, `None` when nobody set one. `ttl` is in seconds.
    """

    repository: Repository
    release: Release
    owner: str
    branch: str
    environment: dict[str, str]
    processes: dict[str, str]
    healthcheck: str | None
    ttl: float | None
    push: Push | None = None

    @property
    def service(self) -> str:
        return self.release.service

    @property
    def check_seconds(self) -> float:
        """How long the service has to answer, HEALTHCHECK_INIT_DELAY."""
        return float(self.environment["HEALTHCHECK_INIT_DELAY"])


async def orders_of_push(push: Push, repository: Repository, ttl: float) -> Orders:
    """The orders that the files of the pushed commit give; `Refused` names file and line.

    `ttl` is in seconds, for a push that named none.
    """
    tree = await repository.tree(push.new)
    if tree is None:
        raise Refused(f"{push.new[:7]} is not a commit; a branch of a ship points to one")
    if tree == EMPTY_TREE:
        raise Refused(f"the commit {push.new[:7]} has no files, there is nothing to build")
    files = await repository.files(push.new, READ)
    environment = effective(read_env_file(files.get(".env", ""), ".env"))
    return Orders(
        repository=repository,
        release=Release(push.service, configuration_id(environment), push.new),
        owner=push.owner,
        branch=push.branch,
        environment=_checked(environment),
        processes=parse_procfile(files["Procfile"]) if "Procfile" in files else {},
        healthcheck=healthcheck_path(environment, files.get("healthcheck")),
        ttl=ttl if push.ttl is None else push.ttl,
        push=push,
    )


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
    if not delay.isdigit() or not 1 <= int(delay) <= 3600:
        raise Refused(
            f"HEALTHCHECK_INIT_DELAY: {ascii(delay)[:20]} is not a number of seconds, 1 to 3600"
        )
    return environment
