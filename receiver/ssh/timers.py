"""Named timers that end together."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Timers:
    """At most one timer a name; starting a name again starts it anew."""

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._calls: dict[str, IDelayedCall] = {}

    def start(self, name: str, seconds: float, do: Callable[[], object]) -> None:
        def ring() -> None:
            del self._calls[name]
            do()

        self.stop(name)
        self._calls[name] = self._reactor.callLater(seconds, ring)

    def stop(self, name: str) -> None:
        if call := self._calls.pop(name, None):
            call.cancel()

    def stop_all(self) -> None:
        for name in list(self._calls):
            self.stop(name)
