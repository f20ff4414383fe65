"""The host that becomes a ship, as the steps of an installation see it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from attrs import define, field

from containers.calling import Called, call
from hooks.errors import ShipError
from hooks.say import clean
from receiver.unit import BOOTED


@define
class Host:
    """`root` is where its `/` is. `booted` says whether systemd runs it: else it is one that is
    prepared, such as an image. `changed` names the steps that did something in this run."""

    root: Path = Path("/")
    booted: bool = False
    call: Callable[..., Called] = call
    changed: list[str] = field(factory=list)

    def at(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def run(self, *argv: str, env: Mapping[str, str] | None = None) -> str:
        """What it prints; `ShipError` with the end of that if it fails."""
        done = self.call(argv, env=env)
        if done.status != 0:
            raise ShipError(f"{Path(argv[0]).name}: {_end(done)}")
        return done.text

    def systemctl(self, *words: str) -> Called:
        """Of the running systemd, or of the files of one that is not."""
        return self.call(["systemctl", *(() if self.booted else ("--root=/",)), *words])

    def system(self, *words: str) -> None:
        done = self.systemctl(*words)
        if done.status != 0:
            raise ShipError(f"systemctl {' '.join(words)}: {_end(done)}")


def this_host() -> Host:
    return Host(booted=BOOTED.is_dir())


class Step(Protocol):
    """One thing that an installation sees to. `data` is left by an uninstallation that is not
    told to purge."""

    @property
    def name(self) -> str: ...

    @property
    def data(self) -> bool: ...

    def lacking(self, host: Host) -> str:
        """What is to be done, in words for a person; "" where it is as it should be."""

    def do(self, host: Host) -> None:
        """Do that. `ShipError` when it cannot be done: then it is as it was."""

    def undo(self, host: Host) -> None:
        """Take back what `do` did; nothing where that is gone."""


def put(host: Host, path: str, data: bytes, mode: int, check: Sequence[str] = ()) -> None:
    """Write a file at once, whole; `ShipError` when the program `check` does not like it, which is
    given its path. Beside its place it has a name that the programs which read there leave out."""
    place = host.at(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    growing = place.with_name(f".{place.name}.new")
    growing.unlink(missing_ok=True)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(growing, flags, 0o600), "wb") as file:
            file.write(data)
            os.fsync(file.fileno())
        growing.chmod(mode)
        if check:
            host.run(*check, str(growing))
        growing.replace(place)
    finally:
        growing.unlink(missing_ok=True)


def differs(host: Host, path: str, data: bytes, mode: int) -> str:
    """What is to be done so that a file is this one."""
    place = host.at(path)
    if place.is_symlink() or not place.is_file():
        return f"write {path}"
    if place.read_bytes() != data:
        return f"change {path}"
    return "" if place.stat().st_mode & 0o7777 == mode else f"give {path} the mode {mode:o}"


def remove(place: Path) -> None:
    """A file, a link, or a directory with all that is in it."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def _end(done: Called) -> str:
    lines = [clean(line) for line in done.text.strip().splitlines()]
    return lines[-1] if lines else f"it ended with {done.status}"
