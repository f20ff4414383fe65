"""Ending processes: asked first, killed then, and waited for."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred

from containers.interface import ContainerError
from containers.marks import members_of_run
from containers.proc import Process, Stat, open_processes
from containers.record import Record
from containers.watching import all_ended, in_thread, within

UNKILLABLE = 10.0  # seconds after which a process that was killed counts as stuck


async def ask(reactor: Any, known: Record, grace: float, *, sandboxed: bool) -> None:
    """TERM to all of a service, and wait until all of it has ended, at most `grace` seconds."""
    found = await in_thread(reactor, members_of_run, known.mark)
    asked, init = found, []
    if sandboxed and known.leader is not None:
        # Not bubblewrap's two: one would end the wait for the others, one does not listen.
        init = [one for one in found if one.parent == known.leader.pid]
        asked = [one for one in found if one not in init and one.process != known.leader]
    # The init of a sandbox ends when the last of its processes has.
    await term(reactor, [one.process for one in asked], [one.process for one in init], grace)


async def term(
    reactor: Any, asked: Sequence[Process], init: Sequence[Process], grace: float
) -> None:
    """TERM to those `asked`, and wait until they and `init` have ended, at most `grace` seconds.

    Does not wait when there is nobody to ask.
    """
    if not asked:
        return
    pidfds = open_processes(asked)
    for pidfd in pidfds:
        _send(pidfd, signal.SIGTERM)
    pidfds += open_processes(init)
    await within(reactor, Deferred.fromCoroutine(all_ended(reactor, pidfds)), grace)


async def kill_all(reactor: Any, find: Callable[[], list[Stat]]) -> None:
    """KILL what `find` (called in a thread) finds, and wait for it, until it finds nothing.

    Raises `ContainerError` for a process that does not end although it was killed.
    """
    while found := await in_thread(reactor, find):
        processes = [one.process for one in found]
        await kill(reactor, processes, processes)


async def kill_run(reactor: Any, run: str) -> None:
    """KILL all of one run. Raises `ContainerError` as `kill_all`."""
    await kill_all(reactor, lambda: members_of_run(run))


async def kill(reactor: Any, killed: Sequence[Process], ending: Sequence[Process]) -> None:
    """KILL those `killed`, and wait for all that are `ending` by it. Raises `ContainerError`."""
    pidfds = open_processes(ending)
    tell(killed, signal.SIGKILL)
    gone = Deferred.fromCoroutine(all_ended(reactor, pidfds))
    if not await within(reactor, gone, UNKILLABLE):
        raise ContainerError(f"process {ending[0].pid} was killed but does not end")


def tell(processes: Iterable[Process], number: signal.Signals) -> None:
    """Signal those that have not ended."""
    pidfds = open_processes(processes)
    for pidfd in pidfds:
        _send(pidfd, number)
        os.close(pidfd)


def _send(pidfd: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)
