"""Who made a commit, and its first line: learnt beside everything else, and remembered."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.logger import Logger

from containers.watching import within
from hooks.orders import NO_COMMIT
from hooks.repository import Repository
from hooks.say import plain
from hooks.stamps import when_stamped

AT_ONCE = 2  # repositories that are read
REMEMBERED = 20_000  # commits
AGAIN = 60.0  # seconds before one that is not there is looked for again
LONGEST = 200  # characters of a name or a subject
_AUTHOR = re.compile(r"(.*?) ?<[^<>]*> (-?\d{1,12}) [+-]\d{4}")


@frozen
class Made:
    """How a commit came about: harmless to show, `when` in epoch seconds."""

    author: str
    subject: str
    when: float


def read_commit(raw: bytes) -> Made:
    """What git's own form of a commit says; whatever is odd in it is left out."""
    head, _, message = raw.decode("utf-8", "replace").partition("\n\n")
    author = next((line[7:] for line in head.split("\n") if line.startswith("author ")), "")
    match = _AUTHOR.fullmatch(author)
    name, when = (match[1], float(match[2])) if match else ("", 0.0)
    first = " ".join(message.lstrip().partition("\n\n")[0].split())
    return Made(plain(name)[:LONGEST], plain(first)[:LONGEST], when)


@define(eq=False)
class Commits:
    """`places` gives where a commit may be: what was pushed or fetched; nothing is fetched."""

    reactor: Any
    clock: Callable[[], float] = time.monotonic
    _known: dict[str, Made] = field(factory=dict)
    _absent: dict[str, float] = field(factory=dict)
    _going: set[Deferred[None]] = field(factory=set)
    _turns: DeferredSemaphore = field(factory=lambda: DeferredSemaphore(AT_ONCE))
    _log: Logger = Logger()

    def known(self, commit: str) -> Made | None:
        return self._known.get(commit)

    async def learn(self, wanted: Iterable[tuple[Repository, str]], patience: float) -> None:
        """Know `wanted` if that is possible; after so many seconds that goes on by itself."""
        missing: dict[Path, tuple[Repository, set[str]]] = {}
        for repository, commit in wanted:
            if self._is_missing(commit):
                missing.setdefault(repository.path, (repository, set()))[1].add(commit)
        if missing:
            readings = [self._begin(*one) for one in missing.values()]
            await within(self.reactor, _all(readings), patience)

    def _is_missing(self, commit: str) -> bool:
        if commit in self._known or commit in ("", NO_COMMIT) or when_stamped(commit) is not None:
            return False
        return self.clock() >= self._absent.get(commit, 0.0)

    def _begin(self, repository: Repository, commits: Collection[str]) -> Deferred[None]:
        def read() -> Deferred[None]:
            return Deferred.fromCoroutine(self._read(repository, commits))

        reading: Deferred[None] = self._turns.run(read)
        self._going.add(reading)
        reading.addErrback(self._failed, repository)
        reading.addBoth(lambda _: self._going.discard(reading))
        return reading

    def _failed(self, failure: Any, repository: Repository) -> None:
        if failure.check(CancelledError) is None:
            self._log.failure("commits of {path} were not read", failure, path=repository.path)

    async def _read(self, repository: Repository, commits: Collection[str]) -> None:
        wanted = [commit for commit in commits if self._is_missing(commit)]
        if not wanted:
            return
        found = await repository.commits(wanted) if repository.exists() else {}
        self._remember({commit: read_commit(raw) for commit, raw in found.items()})
        until = self.clock() + AGAIN
        self._absent |= {commit: until for commit in wanted if commit not in found}

    def _remember(self, found: Mapping[str, Made]) -> None:
        self._known |= found
        _shorten(self._known)
        _shorten(self._absent)


def _shorten(remembered: dict[str, Any]) -> None:
    """Forget what was learnt first, beyond `REMEMBERED`."""
    for oldest in list(remembered)[: max(0, len(remembered) - REMEMBERED)]:
        del remembered[oldest]


def _all(under_way: Collection[Deferred[None]]) -> Deferred[None]:
    """Fires when all (one at least) have; cancelling it ends none of them."""
    left, fires = len(under_way), Deferred[None]()

    def one(result: object) -> object:
        nonlocal left
        left -= 1
        if left == 0 and not fires.called:
            fires.callback(None)
        return result

    for each in under_way:
        each.addBoth(one)
    return fires
