"""How a service is, in a word; decided from what the ship knows, and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from hooks.ledger import Entry, Serving
from hooks.stamps import short
from receiver.headquarters import ordered as phases

GOOD, BUSY, WARN, BAD, QUIET = "good", "busy", "warn", "bad", "quiet"

TONES: Mapping[str, str] = {
    "live": GOOD,
    "asleep": QUIET,
    "stopped": QUIET,
    "deploying": BUSY,
    "waiting": BUSY,
    "restarting": BAD,
    "unhealthy": BAD,
    "failed": BAD,
    "down": BAD,
    "refused": BAD,
    "out of reach": WARN,
    "orphaned": WARN,
}
"""Every state, and how good a one it is. `failed`: what served before still does; `down`: nothing
does."""


@frozen
class State:
    """A word of `TONES`, and what there is to say about it."""

    word: str
    reason: str = ""

    @property
    def tone(self) -> str:
        return TONES[self.word]

    @property
    def aloud(self) -> str:
        """How its reason is shown: a class of its own for what is no trouble."""
        return self.tone if self.trouble else "calm"

    @property
    def trouble(self) -> bool:
        return self.tone in (WARN, BAD)


@frozen
class Wish:
    """What the headquarters wants of a service and how far that is: phase and reason are those of
    `Ordered`."""

    phase: str
    reason: str
    commit: str = ""
    source: str = ""


@frozen
class Known:
    """All that bears on the state of one service.

    `failed` is its newest deploy, if that came to nothing. `place` is how many are before it in the
    queue, 0 when its deploy runs, `None` when none is on; `coming` is the commit that is to be
    deployed, of `by`. `refused` says why its orders are not followed, `ended` why it is to be
    started again.
    """

    serving: Serving | None = None
    failed: Entry | None = None
    wish: Wish | None = None
    place: int | None = None
    coming: str = ""
    by: str = ""
    refused: str = ""
    ended: str = ""
    unwell: bool = False
    asleep: bool = False


def state_of(known: Known) -> State:
    """The first of these that is so: what is under way, what keeps it from serving, what it is."""
    return _under_way(known) or _set_aside(known) or _amiss(known) or _failed(known) or _well(known)


def _under_way(known: Known) -> State | None:
    coming = f"{short(known.coming)} is to come" if known.serving is not None else ""
    if known.place:
        ahead = f"{known.place} ahead of it"
        return State("waiting", f"{coming}, {ahead}" if coming else ahead)
    if known.place == 0:
        return State("deploying", coming)
    if known.wish is not None and known.wish.phase in (phases.WAITING, phases.DEPLOYING):
        return State(known.wish.phase, "its source is being read")
    return None


def _set_aside(known: Known) -> State | None:
    if known.serving is not None and known.serving.orphaned:
        return State("orphaned", "its orders are gone: starphleet-orphan-reaper")
    if known.serving is not None and known.serving.stopped:
        return State("stopped", "somebody stopped it: starphleet-start")
    return None


def _amiss(known: Known) -> State | None:
    if known.serving is None:
        return None
    if known.ended:
        return State("restarting", f"it ended by itself: {known.ended}")
    if known.unwell:
        return State("unhealthy", "its health check fails; it is started again if that goes on")
    return None


def _failed(known: Known) -> State | None:
    """What was wanted last did not come about."""
    bad = "failed" if known.serving is not None else "down"
    if known.refused:
        return State("refused", known.refused)
    if known.wish is not None:
        if known.wish.phase == phases.FAILED:
            return State(bad, _of(known, known.wish.commit, known.wish.reason))
        if known.wish.phase == phases.UNREACHABLE:
            return State("out of reach", known.wish.reason)
        return None
    failed, serving = known.failed, known.serving
    if failed is not None and (serving is None or failed.started > serving.since):
        return State(bad, _of(known, failed.commit, failed.reason or failed.outcome))
    return None


def _of(known: Known, commit: str, reason: str) -> str:
    """The reason with the commit that failed, where another one is what serves."""
    return f"{short(commit)}: {reason}" if known.serving is not None and commit else reason


def _well(known: Known) -> State:
    if known.serving is None:
        return State("down", "nothing serves")
    return State("asleep", "the first request wakes it") if known.asleep else State("live")
