"""Where the data of a remote is and what the ship knows of it; `remotes.py` lays it there."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import quote

from attrs import field, frozen

from receiver.headquarters.directories import opened


@frozen
class Manifest:
    """What the ship laid, and of which commit ("" when it is not all of one)."""

    commit: str = ""
    laid: frozenset[str] = frozenset()
    units: dict[str, int | None] = field(factory=dict)
    """Of an exchange that goes on: the inode of each new unit, `None` where there is none."""

    def write(self, path: Path) -> None:
        new = path.with_name(f".new{path.name}")
        said = {"commit": self.commit, "laid": sorted(self.laid), "units": self.units}
        with new.open("w") as file:
            json.dump(said, file)
            file.flush()
            os.fsync(file.fileno())
        new.rename(path)

    @classmethod
    def read(cls, path: Path) -> Manifest | None:
        try:
            said = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        return cls(said["commit"], frozenset(said["laid"]), said["units"])


@frozen
class Remote:
    """Where a remote is. Its units are what is exchanged as a whole: the directory `data/path`, or
    each top-level entry of the root's; all paths are relative to the directory they are in.
    `manifests` is a private directory on the same filesystem.
    """

    data: Path
    path: str
    manifests: Path
    nested: frozenset[str] = frozenset()

    @classmethod
    def among(cls, data: Path, path: str, manifests: Path, others: Collection[str]) -> Remote:
        """The one at `path`, which leaves alone what is below it of `others`."""
        nested = frozenset(_inside(other, path) for other in others if _is_below(other, path))
        return cls(data, path, manifests, nested)

    @property
    def unit(self) -> str:
        """The name of the only unit; "" for the root's remote."""
        return self.path.rpartition("/")[2]

    @property
    def name(self) -> str:
        return quote(f"/{self.path}", safe="")

    @property
    def manifest(self) -> Path:
        return self.manifests / self.name

    @property
    def place(self) -> Path:
        """Where a version is built, and the one before is taken apart."""
        return self.manifests / ".laying" / self.name

    @property
    def fresh(self) -> Path:
        """For git; of a name that nothing else has that git lays."""
        return self.place / self.name

    @property
    def tree(self) -> Path:
        """The units that are not in the data: new ones, then old ones."""
        return self.place / "tree"

    @property
    def journal(self) -> Path:
        return self.place / "journal"

    @property
    def aside(self) -> Path:
        return self.place / "aside"

    def known(self) -> Manifest:
        """What is laid here; for a new remote, what the remotes around it laid."""
        return Manifest.read(self.manifest) or Manifest(laid=frozenset(self._inherited()))

    def is_ours(self, path: str) -> bool:
        """Whether a file at `path` is in the way of no other remote, and not in its data."""
        return not any(path == other or _is_below(path, other) for other in self.nested)

    def parent(self) -> AbstractContextManager[int]:
        """A descriptor of the directory with the units, made if need be."""
        return opened(self.data, self.path.rpartition("/")[0], make=True)

    def _inherited(self) -> Iterator[str]:
        parts = self.path.split("/") if self.path else []
        for count in range(len(parts)):
            above = "/".join(parts[:count])
            theirs = Manifest.read(Remote(self.data, above, self.manifests).manifest)
            for path in theirs.laid if theirs else ():
                whole = "/".join([*parts[: max(count - 1, 0)], path])
                if whole == self.path or _is_below(whole, self.path):
                    yield _inside(whole, self.path)


def _is_below(path: str, above: str) -> bool:
    return path != above and (not above or path.startswith(f"{above}/"))


def _inside(path: str, remote: str) -> str:
    """A path below data, from where the units of `remote` are."""
    parent = remote.rpartition("/")[0]
    return path.removeprefix(f"{parent}/") if parent else path
