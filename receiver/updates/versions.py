"""The versions of Starphleet on this host, each with its source and its interpreter in a directory
of its own, and which of them is the current one."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from attrs import frozen

from containers.interface import ContainerError
from containers.spawn import run_at_start
from hooks.errors import Refused, ShipError
from hooks.layout import Layout

DIGITS = 12  # of a commit, that name its version
_DIRECTORY = "versions"
_VENV = "venv"
_SOURCE = Path(__file__).parents[2]


@frozen
class Version:
    """One that is installed, or is to be."""

    directory: Path

    @property
    def source(self) -> Path:
        return self.directory / "source"

    @property
    def venv(self) -> Path:
        return self.directory / _VENV

    @property
    def interpreter(self) -> Path:
        return self.venv / "bin" / "python"


@frozen
class Versions:
    """All versions below `directory`; the link `current` beside it leads to one of them.

    A version that is not whole has a file `NAME.growing` beside it, or its name begins with a dot.
    """

    directory: Path

    @classmethod
    def of(cls, layout: Layout) -> Versions:
        """Those that this process is one of, else those below the ship's root."""
        own = own_version()
        return cls(own.directory.parent if own else layout.versions)

    @property
    def current(self) -> Path:
        return self.directory.with_name("current")

    def named(self, commit: str) -> Version:
        return Version(self.directory / commit[:DIGITS])

    def chosen(self) -> Version | None:
        """The current one, if there is one that can be run."""
        version = Version(self.current.resolve())
        usable = self.current.is_symlink() and os.access(version.interpreter, os.X_OK)
        return version if usable else None

    def choose(self, version: Version) -> None:
        """Make `version` the current one."""
        growing = self.current.with_name(".current")
        growing.unlink(missing_ok=True)
        growing.symlink_to(version.directory)
        growing.replace(self.current)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """`Refused` while somebody else installs a version."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / ".lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Refused("an update is under way already") from None
            yield

    @contextmanager
    def growing(self, version: Version) -> Iterator[None]:
        """While `version` is made: it counts only when this ends well, and goes when it fails, for
        the disk may be full of it."""
        mark = _mark(version)
        mark.touch()
        version.directory.mkdir()
        try:
            yield
        except Exception:
            self.remove_halves()
            raise
        os.sync()
        mark.unlink()

    def is_whole(self, version: Version) -> bool:
        return version.directory.is_dir() and not _mark(version).exists()

    def whole(self) -> list[Version]:
        """All that count."""
        found = [Version(path) for path in self.directory.iterdir() if path.name[0] != "."]
        return [version for version in found if self.is_whole(version)]

    def remove_halves(self) -> None:
        """What somebody who was killed left half made, or half removed."""
        for mark in self.directory.glob("*.growing"):
            half = mark.with_suffix("")
            if half.exists():  # renamed, for what was left running may still write there
                half.rename(half.with_name(f".going-{half.name}-{time.time_ns()}"))
            mark.unlink()
        for going in self.directory.glob(".going-*"):
            shutil.rmtree(going, ignore_errors=True)

    def discard(self, version: Version) -> None:
        """Remove a version, unless a process runs from it."""
        if not in_use(version.directory.resolve()):
            name = f".going-{version.directory.name}-{time.time_ns()}"
            going = version.directory.with_name(name)
            version.directory.rename(going)
            shutil.rmtree(going, ignore_errors=True)

    def prune(self, keep: Collection[Version]) -> list[Version]:
        """Remove all but these, and those that a process runs from; which they were."""
        kept = {version.directory.resolve() for version in keep}
        gone = []
        for path in self.directory.iterdir():
            version = Version(path)
            if path.name.startswith(".") or not path.is_dir() or path.resolve() in kept:
                continue
            self.discard(version)
            if not path.exists():
                gone.append(version)
        return gone

    def require_room(self, least: int) -> None:
        """`ShipError` when fewer than `least` bytes are free for one more."""
        free = shutil.disk_usage(self.directory).free
        if free < least:
            raise ShipError(
                f"{self.directory}: {free // 2**20} MB free, {least // 2**20} MB needed for one "
                "more version; nothing was changed"
            )


def own_version() -> Version | None:
    """The version that this process runs; `None` for a clone's own `.venv`, or another place."""
    prefix = Path(sys.prefix).resolve()
    version = Version(prefix.parent)
    ours = prefix.name == _VENV and version.directory.parent.name == _DIRECTORY
    return version if ours and version.source.is_dir() else None


def own_commit() -> str:
    """As `commit_in`, of the source that this process runs."""
    return commit_in(_SOURCE)


def commit_in(source: Path) -> str:
    """The commit of the clone `source` as it is on the disk; "" if git knows none.

    Blocks for some milliseconds."""
    argv = ["git", "-c", "safe.directory=*", "-C", str(source), "rev-parse", "HEAD"]
    with suppress(ContainerError):
        done = run_at_start(argv, env={"PATH": os.defpath}, seconds=10.0)
        return done.output.decode().strip() if done.exit.ok else ""
    return ""


def in_use(directory: Path) -> bool:
    """Whether a process runs an interpreter, or anything, from below `directory`."""
    beginning = f"{directory}/"
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(word.startswith(beginning) for word in process.cmdline()):
                return True
    return False


def _mark(version: Version) -> Path:
    return version.directory.with_name(f"{version.directory.name}.growing")
