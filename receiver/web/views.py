"""What the dashboard shows, as values: rows, their filter, order and pages."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from attrs import frozen

from hooks.ledger import Entry, Serving
from receiver.web.charts import Bar, bars
from receiver.web.commits import Made
from receiver.web.states import TONES, Known, State, state_of

T = TypeVar("T")

PAGE = 100  # services on one page
RECENT = 86400.0  # seconds for which a push is shown that came to nothing


@frozen
class Row:
    """One service. `since` is when this state of its release began, `expires` its end."""

    service: str
    url: str
    commit: str
    owner: str
    since: float
    state: State
    ordered: bool
    expires: float | None = None
    made: Made | None = None
    source: str = ""

    @property
    def author(self) -> str:
        return self.made.author if self.made and self.made.author else self.owner

    @property
    def subject(self) -> str:
        return self.made.subject if self.made else ""


def row(service: str, known: Known, url: str) -> Row:
    """The row of a service of which something serves, is wanted, or was tried."""
    serving, failed, wish = known.serving, known.failed, known.wish
    state, ordered = state_of(known), service.startswith("/")
    source = wish.source if wish else _followed(serving) if serving and ordered else ""
    if serving is not None:
        release = serving.release
        return Row(
            service, url, release.commit, serving.owner, serving.since, state, ordered,
            expires=serving.expires, source=source,
        )  # fmt: skip
    if failed is not None:
        commit = wish.commit if wish and wish.commit else failed.commit
        return Row(service, "", commit, failed.owner, failed.ended, state, ordered, source=source)
    commit = known.coming or (wish.commit if wish else "")
    return Row(service, "", commit, known.by, 0.0, state, ordered, source=source)


def _followed(serving: Serving) -> str:
    """What was followed by what serves, when its orders are not to be had any more."""
    return serving.launch.env.get("STARPHLEET_DEPLOY_GITURL", "").rpartition("#")[0]


def is_shown(known: Known, now: float) -> bool:
    """Whether a service is one of the ship's: a push that failed and never served is forgotten."""
    if known.serving is not None or known.wish is not None or known.refused:
        return True
    if known.place is not None:
        return True
    return known.failed is not None and now - known.failed.ended < RECENT


_WORST = ("bad", "warn", "busy", "quiet", "good")
SORTS: Mapping[str, Callable[[Row], Any]] = {
    "service": lambda one: one.service,
    "state": lambda one: (_WORST.index(one.state.tone), one.state.word, one.service),
    "commit": lambda one: (one.subject.casefold(), one.commit, one.service),
    "author": lambda one: (one.author.casefold(), one.service),
    "since": lambda one: (-one.since, one.service),
}


def matching(rows: Iterable[Row], query: str, state: str) -> list[Row]:
    """Those with every word of `query` in what is shown of them, and in the state that is meant:
    a word of `TONES`, `trouble`, or "" for any."""
    words = query.casefold().split()
    return [
        one
        for one in rows
        if _is_meant(one.state, state) and all(word in _text(one) for word in words)
    ]


def _is_meant(state: State, wanted: str) -> bool:
    return not wanted or state.word == wanted or (wanted == "trouble" and state.trouble)


def _text(one: Row) -> str:
    shown = (one.service, one.url, one.commit, one.author, one.owner, one.subject, one.state.word)
    return "\n".join(shown).casefold()


def ordered_by(rows: Iterable[Row], sort: str) -> list[Row]:
    """By one of `SORTS`, upside down with a dash before it; what is unknown means `service`."""
    key = SORTS.get(sort.removeprefix("-"), SORTS["service"])
    return sorted(rows, key=key, reverse=sort.startswith("-"))


def counts(rows: Iterable[Row]) -> dict[str, int]:
    """How many are in each state, and in `trouble`; the worst first."""
    words = [one.state for one in rows]
    found = {word: sum(state.word == word for state in words) for word in TONES}
    by_tone = sorted(found, key=lambda word: _WORST.index(TONES[word]))
    trouble = sum(state.trouble for state in words)
    return {"trouble": trouble} | {word: found[word] for word in by_tone if found[word]}


@frozen
class Paged(Generic[T]):
    """One page of something, counted from 1; `total` is how many there are on all."""

    items: Sequence[T]
    number: int
    total: int
    size: int

    @property
    def pages(self) -> int:
        return max(1, -(-self.total // self.size))

    @property
    def first(self) -> int:
        return (self.number - 1) * self.size + 1 if self.items else 0

    @property
    def last(self) -> int:
        return self.first + len(self.items) - 1 if self.items else 0


def page_of(items: Sequence[T], number: int, size: int = PAGE) -> Paged[T]:
    """The page `number`, or the last one when there are not so many."""
    number = min(number, max(1, -(-len(items) // size)))
    return Paged(items[(number - 1) * size : number * size], number, len(items), size)


@frozen
class Deploy:
    """One deploy that ended, with its commit and its time as bars."""

    entry: Entry
    made: Made | None
    steps: tuple[Bar, ...]

    @property
    def tone(self) -> str:
        return {"live": "good", "failed": "bad"}.get(self.entry.outcome, "warn")


def deploys(entries: Sequence[Entry], made: Callable[[str], Made | None]) -> list[Deploy]:
    """For each a row; the longest of them is as wide as the chart."""
    longest = max((sum(entry.steps.values()) for entry in entries), default=0.0)
    return [Deploy(one, made(one.commit), bars(one.steps, longest)) for one in entries]


@frozen
class Going:
    """A deploy that has not ended: `place` is how many are before it, 0 when it runs."""

    service: str
    release: str
    commit: str
    owner: str
    why: str
    began: float
    place: int
    lines: tuple[str, ...]
    made: Made | None = None

    @property
    def last(self) -> str:
        """What it said last."""
        return next((line.strip() for line in reversed(self.lines) if line.strip()), "")


def places(service: str, running: Collection[str], waiting: Sequence[str]) -> int:
    """How many deploys must end or start before that of `service` may: 0 when it runs."""
    if service in running or service not in waiting:
        return 0
    return waiting.index(service) + len(running)
