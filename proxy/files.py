"""What the ship keeps under nginx's prefix: generations of configuration, the table, the logs."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

KEPT = 3  # generations that stay on the disk
_LISTENS = re.compile(r"^\s*listen [0-9.\[\]a-f:]*:([0-9]+)\b", re.MULTILINE)


def _bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def write_whole(path: Path, text: str) -> None:
    """Write beside and rename, so that nobody ever reads half of it."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text)
    beside.replace(path)


def trim_log(log: Path, most: int) -> None:
    """Once `log` exceeds `most` bytes, move its content to `LOG.1`.

    Copied and emptied in place: nginx appends to the file it has open, and need not be told.
    """
    if log.stat().st_size > most:
        with log.open("rb+") as file:
            file.seek(-most, 2)
            log.with_name(f"{log.name}.1").write_bytes(file.read())
            file.truncate(0)


def log_tail(log: Path, since: int) -> str:
    """The last line that nginx logged as [emerg], after the first `since` bytes; or ""."""
    with log.open("rb") as file:
        file.seek(since)
        lines = file.read(1_000_000).decode(errors="replace").splitlines()
    urgent = [line for line in lines if "[emerg]" in line]
    return urgent[-1].partition("[emerg] ")[2] if urgent else ""


class Generations:
    """Numbered configurations under a prefix, and the one that nginx reads: `current`."""

    def __init__(self, prefix: Path) -> None:
        self._directory = prefix / "generations"
        self._current = prefix / "current"

    def prepare(self) -> None:
        """Make the directory; only the ship's user can list what is in it."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def next(self) -> int:
        """A number above all that are there."""
        return max((int(path.name) for path in self._directory.iterdir()), default=0) + 1

    def write(self, generation: int, files: Mapping[str, str | bytes]) -> None:
        """Lay down a generation, each file by its name in there; it is not current yet."""
        directory = self._directory / str(generation)
        directory.mkdir(mode=0o700, exist_ok=True)
        for name, content in files.items():
            path = directory / name
            path.parent.mkdir(mode=0o700, exist_ok=True)
            with open(path, "wb", opener=_private) as file:
                file.write(_bytes(content))

    def has(self, generation: int, files: Mapping[str, str | bytes]) -> bool:
        """Whether this generation is exactly these."""
        directory = self._directory / str(generation)
        there = {str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file()}
        return there == set(files) and all(
            (directory / name).read_bytes() == _bytes(content) for name, content in files.items()
        )

    def read(self, generation: int, beneath: str) -> dict[str, str]:
        """The texts that a generation has in a directory, by name; none if it is not there."""
        found = sorted((self._directory / str(generation) / beneath).glob("*"))
        return {path.name: path.read_text() for path in found if path.is_file()}

    @property
    def current(self) -> int:
        """The one that is current; 0 if none is."""
        try:
            return int(self._current.readlink().name)
        except (FileNotFoundError, ValueError):
            return 0

    def ports(self, generation: int) -> set[int]:
        """The ports that a generation listens on."""
        try:
            text = (self._directory / str(generation) / "nginx.conf").read_text()
        except FileNotFoundError:
            return set()
        return {int(port) for port in _LISTENS.findall(text)}

    def make_current(self, generation: int) -> None:
        """From now on nginx reads this one, when it starts or reloads."""
        beside = self._current.with_name(".current.new")
        beside.unlink(missing_ok=True)
        beside.symlink_to(f"generations/{generation}")
        beside.replace(self._current)

    def drop(self, generation: int) -> None:
        shutil.rmtree(self._directory / str(generation), ignore_errors=True)

    def drop_old(self, serving: int) -> None:
        """Keep the newest few and the one that serves."""
        numbers = sorted(int(path.name) for path in self._directory.iterdir())
        for number in numbers[:-KEPT]:
            if number != serving:
                self.drop(number)
