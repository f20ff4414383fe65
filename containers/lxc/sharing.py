"""One piece of work that several wait for: each hears of its progress, and gets its outcome."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

Say = Callable[[str], None]
"""Takes one line of progress."""


@define(eq=False)
class Shared:
    """Work under way. One who is cancelled only leaves; when the last has left, the work ends.

    `left` says that it was: its outcome is not to be waited for any more, its end is (`ended`).
    """

    left: bool = False
    _said: list[str] = field(factory=list)
    _waiting: dict[Deferred[None], Say] = field(factory=dict)
    _work: Deferred[None] | None = None
    _after: list[Deferred[None]] = field(factory=list)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin, after the first has joined."""
        self._work = Deferred.fromCoroutine(work)
        self._work.addBoth(self._end)

    def join(self, say: Say) -> Deferred[None]:
        """Wait for the outcome; `say` hears all that was said, from the first line on."""
        waiting: Deferred[None] = Deferred(self._leave)
        self._waiting[waiting] = say
        for line in self._said:
            self._tell(waiting, say, line)
        return waiting

    def say(self, line: str) -> None:
        """Tell a line to all who wait."""
        self._said.append(line)
        for waiting, say in list(self._waiting.items()):
            self._tell(waiting, say, line)

    def ended(self) -> Deferred[None]:
        """Fires when the work has ended, however it did."""
        after: Deferred[None] = Deferred(self._after.remove)
        self._after.append(after)
        return after

    def _tell(self, waiting: Deferred[None], say: Say, line: str) -> None:
        try:
            say(line)
        except Exception:
            if self._waiting.pop(waiting, None) is not None:
                waiting.errback(Failure())
                self._look()

    def _leave(self, waiting: Deferred[None]) -> None:
        self._waiting.pop(waiting, None)
        self._look()

    def _look(self) -> None:
        if not self._waiting and self._work is not None and not self._work.called:
            self.left = True
            self._work.cancel()

    def _end(self, outcome: Failure | None) -> None:
        waiting, self._waiting = list(self._waiting), {}
        after, self._after = self._after, []
        for one in waiting:
            one.callback(None) if outcome is None else one.errback(outcome)
        for one in after:
            one.callback(None)
