"""What the ship keeps under nginx's prefix: generations of configuration, the table, the logs."""

from __future__ import annotations

import shutil
from pathlib import Path

KEPT = 3  # generations that stay on the disk


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

    def write(self, generation: int, config: str, lua: str) -> None:
        """Lay down a generation; it is not current yet."""
        directory = self._directory / str(generation)
        directory.mkdir(mode=0o700, exist_ok=True)
        (directory / "starphleet.lua").write_text(lua)
        (directory / "nginx.conf").write_text(config)

    def has(self, generation: int, config: str, lua: str) -> bool:
        """Whether this generation says exactly this."""
        directory = self._directory / str(generation)
        try:
            return (directory / "nginx.conf").read_text() == config and (
                directory / "starphleet.lua"
            ).read_text() == lua
        except FileNotFoundError:
            return False

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
