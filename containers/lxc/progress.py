"""What is said while a base is made."""

from __future__ import annotations

from typing import Any

from attrs import define

from containers.lxc.sharing import Say


@define
class Progress:
    """Says what is done, with the seconds that each stage took."""

    _reactor: Any
    say: Say
    _label: str
    _since: float = 0.0
    _stage: float = 0.0

    def begin(self) -> None:
        self._since = self._stage = self._reactor.seconds()
        self.say(f"making the base {self._label}")

    def stage(self, line: str) -> None:
        """A stage has ended."""
        now = self._reactor.seconds()
        self.say(f"{line}: {now - self._stage:.1f} s")
        self._stage = now

    def end(self, size: int) -> None:
        seconds = self._reactor.seconds() - self._since
        self.say(f"made the base {self._label}, {size >> 20} MB: {seconds:.1f} s")


@define
class Lines:
    """Passes on what is printed, one line at a time."""

    _say: Say
    _rest: bytes = b""

    def take(self, data: bytes) -> None:
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            self._say(line.decode(errors="replace"))
