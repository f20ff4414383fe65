"""Following repositories: each is asked once in a pulse, and what moved or is lost is told."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from hooks.errors import ShipError
from hooks.standing import Source
from receiver.headquarters.followed import LONGEST, Followed, delay
from receiver.headquarters.refs import may_be_short
from receiver.headquarters.source import same
from receiver.headquarters.ssh import host_of

PULSE = 5.0
STEPS = 20  # looks in a pulse at who is to be asked

_log = Logger()

Tell = Callable[[Source, str], None]
Resolve = Callable[[Source], Awaitable[str]]


class Asks(Protocol):
    """What answers; see `asking.Asking`."""

    async def ask(self, url: str, refs: Collection[str]) -> dict[str, str | None]: ...


class Following:
    """Asks for each distinct URL among the sources once in `pulse` seconds, for all its refs.

    `moved(source, commit)` when a source names another commit than it did; `lost(source, reason)`
    when it cannot be read, or names nothing, for another reason than before. What does not answer
    is asked less and less often. `resolve` finds the commit that a short id means.
    """

    def __init__(
        self,
        reactor: Any,
        asking: Asks,
        *,
        pulse: float = PULSE,
        moved: Tell,
        lost: Tell,
        resolve: Resolve | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._reactor = reactor
        self._asking = asking
        self.pulse = pulse
        self._moved = moved
        self._lost = lost
        self._resolve = resolve
        self._chance = chance
        self._going = False
        self._places: dict[str, Followed] = {}
        self._known: dict[Source, str] = {}
        self._resolving: dict[Source, Deferred[None]] = {}

    @property
    def known(self) -> Mapping[Source, str]:
        """The commit of each source that has ever been answered for."""
        return self._known

    @property
    def troubles(self) -> Mapping[str, str]:
        """What is wrong now with which URL, in one line."""
        places = self._places.values()
        return {place.url: next(iter(place.trouble.values())) for place in places if place.trouble}

    def trouble(self, source: Source) -> str:
        """What is wrong now with `source`; "" for nothing."""
        place = self._places.get(source.url)
        return place.trouble.get(source, "") if place is not None else ""

    def silence(self, url: str) -> float | None:
        """Seconds since `url` answered last; `None` when it never has."""
        heard = self._places[url].heard if url in self._places else None
        return None if heard is None else self._reactor.seconds() - heard

    def follow(self, sources: Iterable[Source]) -> None:
        """Follow exactly these. What is new is asked for at once, what stays keeps its commit."""
        wanted = frozenset(sources)
        for place in list(self._places.values()):
            for source in frozenset(place.sources.values()) - wanted:
                self._drop(place, place.sources.pop(source.ref))
            if not place.sources:
                self._places.pop(place.url).leave()
        fresh = {source.url for source in sorted(wanted, key=str) if self._take(source)}
        for url in sorted(fresh):
            self._ask_now(self._places[url])

    def meant(self, urls: Collection[str] | None) -> list[str]:
        """The URLs that are followed and mean a repository of `urls` (`None`: any)."""
        wanted = None if urls is None else {same(url) for url in urls}
        return [url for url in self._places if wanted is None or same(url) in wanted]

    def hurry(self, urls: Collection[str] | None = None) -> Deferred[None]:
        """Ask these (`None`: all) now, even what does not answer; fires when all have answered.

        A URL means every followed one of the same repository.
        """
        answered: list[Deferred[None]] = []
        for url in self.meant(urls):
            place = self._places[url]
            waiting: Deferred[None] = Deferred(place.waiting.remove)
            answered.append(waiting)
            place.waiting.append(waiting)
            self._ask_now(place)
        return Deferred.fromCoroutine(_each(answered))

    def forget(self, source: Source) -> None:
        """Tell the next answer for `source` even if it is the same."""
        self._known.pop(source, None)

    def disregard(self, source: Source) -> None:
        """`source` was moved by somebody who says so: what was asked before does not count."""
        self.forget(source)
        place = self._places.get(source.url)
        if place is not None and place.asking is not None:
            place.stale = True

    async def go(self) -> None:
        """Ask, pulse after pulse, until cancelled; then every question that is out is ended."""
        self._going = True
        try:
            for place in self._places.values():
                self._ask_now(place)
            while True:
                await deferLater(self._reactor, self.pulse / STEPS)
                self._pass()
        finally:
            self._going = False
            for place in self._places.values():
                place.leave()
            for resolving in list(self._resolving.values()):
                resolving.cancel()

    def _pass(self) -> None:
        """Ask everyone who is due."""
        now = self._reactor.seconds()
        for place in list(self._places.values()):
            if place.due <= now and place.asking is None:
                self._start(place)

    def _take(self, source: Source) -> bool:
        """Whether `source` was not followed yet; now it is."""
        place = self._places.get(source.url)
        if place is None:
            phase = self._chance() * self.pulse
            place = self._places[source.url] = Followed(source.url, self._reactor.seconds(), phase)
        if source.ref in place.sources:
            return False
        place.sources[source.ref] = source
        return True

    def _drop(self, place: Followed, source: Source) -> None:
        self._known.pop(source, None)
        place.trouble.pop(source, None)
        place.unclear.pop(source, None)
        if resolving := self._resolving.pop(source, None):
            resolving.cancel()

    def _ask_now(self, place: Followed) -> None:
        """Ask, and if a question is out already, once more after it."""
        place.due = self._reactor.seconds()
        if place.asking is not None:
            place.again = True
        elif self._going:
            self._start(place)

    def _start(self, place: Followed) -> None:
        place.again = place.stale = False
        place.asking = Deferred.fromCoroutine(self._ask(place))
        place.asking.addBoth(self._asked, place)

    def _asked(self, result: Any, place: Followed) -> None:
        place.asking = None
        if isinstance(result, Failure) and not result.check(CancelledError):
            _log.failure("asking {url} failed", result, url=place.url)
        if place.again and self._going and place.sources:
            self._start(place)
        else:
            place.answered()

    async def _ask(self, place: Followed) -> None:
        try:
            answer = await self._asking.ask(place.url, tuple(place.sources))
        except CancelledError:
            raise
        except Exception as error:
            self._fail(place, _in_words(error, place.url))
        else:
            if not place.stale:
                self._hear(place, answer)

    def _fail(self, place: Followed, reason: str) -> None:
        place.failures += 1
        now = self._reactor.seconds()
        place.due = now + delay(place.failures, self.pulse, self._chance())
        for source in list(place.sources.values()):
            self._trouble(place, source, reason)

    def _hear(self, place: Followed, answer: Mapping[str, str | None]) -> None:
        now = place.heard = self._reactor.seconds()
        place.due = place.next_after(now, self.pulse)
        if place.failures:
            place.failures = 0
            self._hurry_neighbours(place, now)
        for source in list(place.sources.values()):
            if source.ref in answer:
                self._learn(place, source, answer[source.ref])

    def _hurry_neighbours(self, place: Followed, now: float) -> None:
        """What failed on a host that answers again is asked within a pulse."""
        host = host_of(place.url)
        for other in self._places.values():
            if other.failures and host and host_of(other.url) == host:
                other.due = min(other.due, other.next_after(now, self.pulse))

    def _learn(self, place: Followed, source: Source, commit: str | None) -> None:
        if commit is not None:
            self._found(place, source, commit)
        elif self._resolve is not None and may_be_short(source.ref):
            self._clear_up(place, source, self._resolve)
        elif source.ref:
            self._trouble(place, source, f"there is no branch or tag '{source.ref}' in {place.url}")
        else:
            self._trouble(place, source, f"{place.url} is empty: it has no default branch")

    def _found(self, place: Followed, source: Source, commit: str) -> None:
        place.trouble.pop(source, None)
        if self._known.get(source) != commit:
            self._known[source] = commit
            _tell(self._moved, source, commit)

    def _trouble(self, place: Followed, source: Source, reason: str) -> None:
        if place.trouble.get(source) != reason:
            place.trouble[source] = reason
            _tell(self._lost, source, reason)

    def _clear_up(self, place: Followed, source: Source, resolve: Resolve) -> None:
        """Find the commit of a short id, beside the questions: a history may have to be fetched."""
        retry = place.unclear.get(source, 0.0)
        if source in self._resolving or self._reactor.seconds() < retry:
            return
        if known := self._known.get(source):
            self._found(place, source, known)
            return
        resolving = Deferred.fromCoroutine(self._resolved(place, source, resolve))
        self._resolving[source] = resolving
        resolving.addBoth(self._cleared, source)

    async def _resolved(self, place: Followed, source: Source, resolve: Resolve) -> None:
        try:
            commit = await resolve(source)
        except CancelledError:
            raise
        except Exception as error:
            place.unclear[source] = self._reactor.seconds() + LONGEST
            self._trouble(place, source, _in_words(error, place.url))
        else:
            place.unclear.pop(source, None)
            self._found(place, source, commit)

    def _cleared(self, result: Any, source: Source) -> None:
        self._resolving.pop(source, None)
        if isinstance(result, Failure) and not result.check(CancelledError):
            _log.failure("resolving {source} failed", result, source=source)


async def _each(awaited: Iterable[Deferred[None]]) -> None:
    for one in awaited:
        await one


def _in_words(error: Exception, url: str) -> str:
    if isinstance(error, ShipError):
        return str(error)
    _log.failure("asking {url} failed", url=url)
    return f"cannot read {url}: {type(error).__name__} in the ship"


def _tell(tell: Tell, source: Source, said: str) -> None:
    """A listener that fails ends nothing."""
    try:
        tell(source, said)
    except Exception:
        _log.failure("telling of {source} failed", source=source)
