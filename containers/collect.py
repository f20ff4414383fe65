"""What a command prints, as it comes: counted against a limit, passed on, its end kept."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred

from containers.interface import Output


def fire(done: Deferred[str], reason: str) -> None:
    """The first reason to end a command counts."""
    if not done.called:
        done.callback(reason)


@define
class Bound:
    """Counts what is printed against the limit; `done` fires when it is passed."""

    most: int | None
    done: Deferred[str]
    seen: int = 0
    reason: str = ""

    def admit(self, data: bytes) -> bytes:
        """The part of `data` that is still within the limit."""
        if self.most is None:
            return data
        room = max(0, self.most - self.seen)
        self.seen += len(data)
        if self.seen > self.most and not self.reason:
            self.reason = f"printed more than {self.most} bytes"
            fire(self.done, self.reason)
        return data[:room]


@define
class Tail:
    """Passes output on and keeps its last `keep` bytes."""

    keep: int
    bound: Bound
    output: Output | None
    kept: bytearray = field(factory=bytearray)

    def take(self, data: bytes) -> None:
        data = self.bound.admit(data)
        if data and self.output is not None:
            self.output(data)
        self.kept += data
        if len(self.kept) > self.keep:
            del self.kept[: len(self.kept) - self.keep]
