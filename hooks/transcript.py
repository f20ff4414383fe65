"""The lines of a deploy, for whoever watches it and for whoever joins later."""

from __future__ import annotations

from hooks.say import Listen

MOST = 10_000  # lines kept for those who join late


class Transcript:
    """Call it with each line; everyone who follows hears it, a late one hears the past first."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._listeners: list[Listen] = []

    def __call__(self, line: str) -> None:
        if len(self._lines) < MOST:
            self._lines.append(line)
        for listen in list(self._listeners):
            listen(line)

    @property
    def lines(self) -> tuple[str, ...]:
        """What was said so far, of which the beginning is kept."""
        return tuple(self._lines)

    def follow(self, listen: Listen) -> None:
        for line in self._lines:
            listen(line)
        self._listeners.append(listen)

    def leave(self, listen: Listen) -> None:
        """Stop hearing; does nothing for one who does not listen."""
        if listen in self._listeners:
            self._listeners.remove(listen)
