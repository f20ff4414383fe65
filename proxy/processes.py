"""The nginx processes of one prefix, known by the log file they hold open and by nothing else.

A pid alone proves nothing after a crash; a process that calls itself nginx and has this prefix's
error log open is ours. Workers outlive a killed master and keep its port: they are found too.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Sequence
from pathlib import Path

import psutil
from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer


@frozen
class Process:
    """One process of ours; `started` (epoch seconds) tells it from a later one with its pid."""

    pid: int
    parent: int
    started: float


@frozen
class Family:
    """All processes of a prefix: the master if it lives, and what has lost its master."""

    master: Process | None
    orphans: tuple[Process, ...]
    all: tuple[Process, ...]


def family(found: Sequence[Process], master: int) -> Family:
    """Sort what was found, by the pid in the master's pid file.

    Titles tell nothing: a worker just forked still bears its master's.
    """
    return Family(
        next((nginx for nginx in found if nginx.pid == master), None),
        tuple(nginx for nginx in found if master not in (nginx.pid, nginx.parent)),
        tuple(found),
    )


def _described(process: psutil.Process, log: str) -> Process | None:
    try:
        if not " ".join(process.cmdline()).startswith("nginx: "):
            return None
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        if all(file.path != log for file in process.open_files()):
            return None
        return Process(process.pid, process.ppid(), process.create_time())
    except psutil.Error:
        return None


def find(log: Path, pid_file: Path) -> Family:
    """Every process that has `log` (a resolved path) open. Reads /proc: run it in a thread."""
    described = (_described(process, str(log)) for process in psutil.process_iter())
    try:
        master = int(pid_file.read_text())
    except (FileNotFoundError, ValueError):  # `nginx -t` leaves an empty one
        master = 0
    return family([nginx for nginx in described if nginx is not None], master)


def _open(nginx: Process) -> int | None:
    """A pidfd of this very process, or `None` if it has ended. The caller closes it."""
    try:
        descriptor = os.pidfd_open(nginx.pid)
    except ProcessLookupError:
        return None
    try:
        same = psutil.Process(nginx.pid).create_time() == nginx.started
    except psutil.Error:
        same = False
    # Readable is ended: a zombie that nobody reaps still has a pid, and takes signals.
    end = select.poll()
    end.register(descriptor, select.POLLIN)
    if same and not end.poll(0):
        return descriptor
    os.close(descriptor)
    return None


def alive(nginx: Process) -> bool:
    """Whether this very process still runs."""
    descriptor = _open(nginx)
    if descriptor is None:
        return False
    os.close(descriptor)
    return True


def tell(nginx: Process, number: signal.Signals) -> bool:
    """Signal this very process; false if it has ended."""
    descriptor = _open(nginx)
    if descriptor is None:
        return False
    try:
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


@implementer(IReadDescriptor)
class _End:
    """Readable once the process has ended, though it is not a child of ours."""

    def __init__(self, reactor: IReactorFDSet, descriptor: int) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self.ended: Deferred[None] = Deferred(lambda _: self.close())
        reactor.addReader(self)

    def fileno(self) -> int:
        return self._descriptor

    def doRead(self) -> None:
        self.close()
        self.ended.callback(None)

    def connectionLost(self, reason: Failure) -> None:
        self.close()

    def logPrefix(self) -> str:
        return "nginx"

    def close(self) -> None:
        if self._descriptor >= 0:
            self._reactor.removeReader(self)
            os.close(self._descriptor)
            self._descriptor = -1


async def ended(reactor: IReactorFDSet, nginx: Process) -> None:
    """Wait until the process is gone; at once if it is."""
    descriptor = _open(nginx)
    if descriptor is not None:
        await _End(reactor, descriptor).ended
