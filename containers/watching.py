"""Waiting for descriptors and processes on the reactor: no polling, no thread."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime, IReadDescriptor
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from zope.interface import implementer

P = ParamSpec("P")
T = TypeVar("T")

CHUNK = 65536
DRAINED_CHUNKS = 16  # 1 MiB, the most that a pipe of an unprivileged process holds


def readable(reactor: Any, fd: int) -> Deferred[None]:
    """Fires once `fd` is readable; for a pidfd, when its process has ended. May be cancelled."""
    return _Readable(reactor, os.dup(fd)).deferred


async def within(reactor: IReactorTime, what: Deferred[None], seconds: float) -> bool:
    """Wait for `what` at most so long; False when the time ran out (`what` is cancelled then)."""
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = True
        what.cancel()

    timer = reactor.callLater(seconds, expire)
    try:
        await what
    except CancelledError:
        if not expired:
            raise
    finally:
        if timer.active():
            timer.cancel()
    return not expired


class Waiters:
    """Who waits for something that may happen again and again."""

    def __init__(self) -> None:
        self._waiting: list[Deferred[None]] = []

    def wait(self) -> Deferred[None]:
        """Fires when it happens next. May be cancelled."""
        waiting: Deferred[None] = Deferred(lambda gone: self._waiting.remove(gone))
        self._waiting.append(waiting)
        return waiting

    def go_on(self) -> None:
        """It happened: all who wait by now go on."""
        for waiting in list(self._waiting):
            if waiting in self._waiting:  # none before it made it leave
                self._waiting.remove(waiting)
                waiting.callback(None)


async def all_ended(reactor: Any, pidfds: Sequence[int]) -> None:
    """Wait until all these processes have ended; owns (and closes) the descriptors."""
    try:
        for pidfd in pidfds:
            await readable(reactor, pidfd)
    finally:
        for pidfd in pidfds:
            os.close(pidfd)


def in_thread(reactor: Any, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
    """Do blocking work in the reactor's thread pool."""
    return deferToThreadPool(reactor, reactor.getThreadPool(), work, *args, **kwargs)


def shielded(work: Coroutine[Any, Any, None]) -> Deferred[None]:
    """Wait for `work`; cancelling the wait leaves `work` going on to its end."""
    outer: Deferred[None] = Deferred()

    def succeed(_: None) -> None:
        outer.callback(None)

    Deferred.fromCoroutine(work).addCallbacks(succeed, outer.errback)
    return outer


async def to_its_end(work: Deferred[T]) -> T:
    """What `work` comes to: cancelling the wait neither ends it nor the work."""
    while not work.called:
        waiting: Deferred[None] = Deferred()
        work.addBoth(_tell, waiting)
        with suppress(CancelledError):
            await waiting
    return await work


def _tell(result: T, waiting: Deferred[None]) -> T:
    waiting.callback(None)
    return result


@implementer(IReadDescriptor)
class _Readable:
    """A duplicate of a descriptor (the reactor knows one reader for each number)."""

    def __init__(self, reactor: Any, fd: int) -> None:
        self._reactor = reactor
        self._fd = fd
        self.deferred: Deferred[None] = Deferred(lambda _: self._close())
        reactor.addReader(self)

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:
        return "readable"

    def doRead(self) -> None:
        self._close()
        self.deferred.callback(None)

    def connectionLost(self, reason: Failure) -> None:
        self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            self._reactor.removeReader(self)
            os.close(self._fd)
            self._fd = -1


@implementer(IReadDescriptor)
class Reader:
    """Hands what arrives in a pipe to `take`, which must not block; owns the descriptor `fd`.

    What `take` raises goes to `failed`, and nothing more is read.
    """

    def __init__(
        self,
        reactor: Any,
        fd: int,
        take: Callable[[bytes], None],
        failed: Callable[[Exception], None],
    ) -> None:
        os.set_blocking(fd, False)
        self._reactor = reactor
        self._fd = fd
        self._take = take
        self._failed = failed
        reactor.addReader(self)

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:
        return "reader"

    def doRead(self) -> None:
        self._read()

    def connectionLost(self, reason: Failure) -> None:
        self.close()

    def drain(self) -> None:
        """Take what is already in the pipe: at most what a pipe holds."""
        for _ in range(DRAINED_CHUNKS):
            if self._fd < 0 or not self._read():
                return

    def close(self) -> None:
        if self._fd >= 0:
            self._reactor.removeReader(self)
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> bool:
        """One chunk; False when there is none now."""
        with suppress(BlockingIOError):
            data = os.read(self._fd, CHUNK)
            if not data:
                self.close()
                return False
            try:
                self._take(data)
            except Exception as error:
                self.close()
                self._failed(error)
                return False
            return True
        return False
