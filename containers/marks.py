"""Whose a process is: a mark in the environment of the first process of every run.

bubblewrap's own two processes carry it where the sandboxed command cannot reach it; without a
sandbox every process does that has not thrown it away.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
from attrs import frozen

from containers.proc import Process, Stat, environment, everything, family, in_our_pid_namespace

CONTAINER, RUN = "STARPHLEET_CONTAINER", "STARPHLEET_RUN"
NAMES = (CONTAINER, RUN)
VISIT = "visit-"  # begins the mark of what somebody else than a ship runs: ships come and go


class Runs:
    """What this ship process runs: each run has a mark that no other has, of any ship process."""

    def __init__(self) -> None:
        self._token = secrets.token_hex(8)
        self._count = 0

    def mark(self) -> str:
        self._count += 1
        return f"{self._token}-{self._count}"

    def visit(self) -> str:
        """The mark of a run that is somebody else's."""
        return f"{VISIT}{self.mark()}"

    def are_earlier(self, run: str) -> bool:
        """Whether a run is one of an earlier ship process."""
        return not run.startswith((self._token, VISIT))


@frozen
class Marked:
    """A living process, the directory of its container, and the mark of its run."""

    found: Stat
    directory: Path
    run: str


def marking(directory: Path, run: str) -> dict[str, str]:
    """What marks a process as of a run in the container in `directory`: in its environment."""
    return {CONTAINER: str(directory), RUN: run}


def marked() -> list[Marked]:
    """All marked processes on this host; reads `/proc`, a few milliseconds."""
    result = []
    for found in everything():
        environ = environment(found.process.pid) if found.alive else {}
        if CONTAINER in environ:
            result.append(Marked(found, Path(environ[CONTAINER]), environ.get(RUN, "")))
    return result


def members(wanted: Callable[[Marked], bool]) -> list[Stat]:
    """The processes that carry a wanted mark, the sessions they lead, and their descendants."""
    chosen = {mark.found.process.pid for mark in marked() if wanted(mark)}
    return family(chosen) if chosen else []


def members_of_run(run: str) -> list[Stat]:
    return members(lambda mark: mark.run == run)


def members_of_container(directory: Path) -> list[Stat]:
    return members(lambda mark: mark.directory == directory)


def leader_of_run(run: str) -> Process | None:
    """The process that was spawned for this run, if it lives and can be seen."""
    for mark in marked():
        pid = mark.found.process.pid
        # A sandboxed command may call itself what it likes: it is not in our namespace.
        if mark.run == run and mark.found.session == pid and in_our_pid_namespace(pid):
            return mark.found.process
    return None


def ports_of_container(directory: Path) -> list[int]:
    """TCP ports on which the processes of this container listen, ascending."""
    found: set[int] = set()
    for member in members_of_container(directory):
        with suppress(psutil.Error):
            for connection in psutil.Process(member.process.pid).net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    found.add(connection.laddr.port)
    return sorted(found)
