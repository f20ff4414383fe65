"""What an installation made, kept on the ship, so that it can be taken back."""

from __future__ import annotations

import json
from collections.abc import Container, Sequence
from pathlib import Path

from attrs import define, field

from receiver.install.host import Host, Step, put


@define
class Record:
    """The names of steps that did something, at any time, and what. Kept in the file `path`."""

    host: Host
    path: str
    made: dict[str, list[str]] = field(factory=dict)

    def add(self, name: str, did: str) -> None:
        self.made[name] = [*self.made.get(name, ()), did]
        self._keep()

    def remove(self, name: str) -> None:
        """The record goes with what else is in its directory."""
        del self.made[name]
        if self.host.at(self.path).is_file():
            self._keep()

    def _keep(self) -> None:
        put(self.host, self.path, json.dumps({"made": self.made}, indent=2).encode(), 0o600)


def read(host: Host, path: Path) -> Record:
    """The record that an earlier installation left; an empty one if there was none."""
    place = host.at(str(path))
    made = json.loads(place.read_text())["made"] if place.is_file() else {}
    return Record(host, str(path), made)


def to_undo(steps: Sequence[Step], made: Container[str], *, purge: bool) -> list[Step]:
    """What an uninstallation takes back, in its order: the last thing first."""
    return [step for step in reversed(steps) if step.name in made and (purge or not step.data)]
