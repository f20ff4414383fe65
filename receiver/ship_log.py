"""What the ship itself logs: what of it is told, and that it is in the journal too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from attrs import define
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    eventAsText,
    globalLogPublisher,
)
from zope.interface import implementer

from hooks.journal.journal import IN_THE_JOURNAL, Journal
from hooks.journal.lines import SHIP

ROOMS = ("receiver", "hooks", "containers", "buildpacks", "proxy")


def told(observer: ILogObserver) -> ILogObserver:
    """For `observer` what the ship says, and from Twisted what somebody should see to."""
    wanted = LogLevelFilterPredicate(LogLevel.warn)
    for room in ROOMS:
        wanted.setLogLevelForNamespace(room, LogLevel.info)
    for chatty in ("channel", "connection"):  # Conch logs by the names of our sub-classes
        wanted.setLogLevelForNamespace(f"receiver.ssh.{chatty}", LogLevel.warn)
    return FilteringLogObserver(observer, [wanted])


@contextmanager
def logged_in(reactor: Any, journal: Journal) -> Iterator[None]:
    """Have the ship's log in the journal while this lasts."""
    observer = told(_IntoJournal(reactor, journal))
    globalLogPublisher.addObserver(observer)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(observer)


@implementer(ILogObserver)
@define(eq=False)
class _IntoJournal:
    reactor: Any
    journal: Journal

    def __call__(self, event: LogEvent) -> None:
        """From whatever thread it comes."""
        if IN_THE_JOURNAL not in event:
            lines = eventAsText(event, includeTimestamp=False).splitlines()
            self.reactor.callFromThread(self.journal.write, "", "", SHIP, lines)
