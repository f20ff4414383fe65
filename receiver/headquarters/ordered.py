"""One ordered service and how far it is with what its orders want."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred, succeed

from containers.watching import Waiters
from hooks.say import Listen
from hooks.standing import StandingOrders

WAITING, DEPLOYING = "waiting", "deploying"
LIVE, FAILED, UNREACHABLE, STOPPED = "live", "failed", "unreachable", "stopped"
SETTLED = frozenset({LIVE, FAILED, UNREACHABLE, STOPPED})


@define(eq=False)
class Ordered:
    """`phase` is one of the words above; `reason` says why when it is no good one.

    `commit` is what was last seen of the source. `turn` counts what was wanted of it, so that a
    slow answer to an older wish is known as such.
    """

    standing: StandingOrders
    commit: str = ""
    phase: str = WAITING
    reason: str = ""
    turn: int = 0
    tries: int = 0
    said: list[str] = field(factory=list)
    _listeners: list[Listen] = field(factory=list)
    _awaited: Waiters = field(factory=Waiters)

    def begin(self, phase: str = WAITING) -> int:
        """Something new is wanted; its number."""
        self.turn += 1
        self.phase, self.reason = phase, ""
        return self.turn

    def say(self, line: str) -> None:
        for listen in list(self._listeners):
            listen(line)

    def follow(self, listen: Listen) -> None:
        self._listeners.append(listen)

    def leave(self, listen: Listen) -> None:
        if listen in self._listeners:
            self._listeners.remove(listen)

    def settle(self, phase: str, reason: str = "") -> None:
        """What was wanted has come to this, for now."""
        self.phase, self.reason = phase, reason
        self._awaited.go_on()

    def settled(self) -> Deferred[None]:
        """Fires when there is nothing under way; at once if there is not."""
        return succeed(None) if self.phase in SETTLED else self._awaited.wait()
