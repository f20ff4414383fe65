"""One URL that is followed: when it is to be asked, and what came of that."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred

from hooks.standing import Source

LONGEST = 300.0  # seconds between two questions to what does not answer


def delay(failures: int, pulse: float, chance: float) -> float:
    """Seconds until the next question after so many failures in a row. `chance` is 0 to 1."""
    return float(min(LONGEST, pulse * 2 ** min(failures - 1, 20))) * (0.75 + chance / 2)


@define
class Followed:
    """One URL: when it is due, what is wanted of it, and what is wrong with it.

    `phase` is when in each pulse it is asked; `unclear` when short ids are looked for again;
    `stale` that the answer to the question that is out is not to count.
    """

    url: str
    due: float
    phase: float
    sources: dict[str, Source] = field(factory=dict)  # by ref
    failures: int = 0
    heard: float | None = None  # when it answered last
    again: bool = False  # something was wanted while a question was out
    stale: bool = False
    asking: Deferred[None] | None = None
    waiting: list[Deferred[None]] = field(factory=list)
    trouble: dict[Source, str] = field(factory=dict)
    unclear: dict[Source, float] = field(factory=dict)

    def next_after(self, now: float, pulse: float) -> float:
        return now + pulse - (now - self.phase) % pulse

    def answered(self) -> None:
        """Let those go on who waited for an answer."""
        waiting, self.waiting = self.waiting, []
        for one in waiting:
            one.callback(None)

    def leave(self) -> None:
        """Ask no more; nobody goes on waiting."""
        self.again = False
        if self.asking is not None:
            self.asking.cancel()
        self.answered()
