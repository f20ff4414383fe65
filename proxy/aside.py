"""Blocking work, beside the reactor's thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorThreads, IReactorTime
from twisted.internet.threads import deferToThreadPool

P = ParamSpec("P")
T = TypeVar("T")


def aside(
    reactor: IReactorTime, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> Deferred[T]:
    """Do `work` in a thread. Whoever stops waiting does not end it."""
    pool = IReactorThreads(reactor).getThreadPool()
    return deferToThreadPool(IReactorFromThreads(reactor), pool, work, *args, **kwargs)
