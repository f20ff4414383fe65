"""What a build may write: it is looked at while it runs, and ended when it is too much.

No host of any kind bounds a tree of files at a price that each build could pay: what is asked is
how much room the disk has left, often, and how large the trees have become, as often as is cheap.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from stat import S_ISDIR
from typing import Any, TypeVar

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from containers.interface import ContainerError
from containers.watching import in_thread

Made = TypeVar("Made")

MB = 2**20
LOOK = 0.25  # seconds between two looks at the disk
CHEAP = 20  # looking at the trees is rested from this many times as long as it took
RARE = 2.0  # seconds that it is rested from at least


class NoRoom(ContainerError):
    """There is no room for what was to be written; why."""


@frozen
class Room:
    """What a build may have: `most` bytes in the trees that it writes, all together, and `least`
    bytes that stay free on their disk. Nothing where it is `None`."""

    trees: tuple[Path, ...]
    most: int | None
    least: int

    def refused(self, free: int) -> str:
        """Why a build cannot go on with so many bytes free on the disk; "" if it can."""
        if free >= self.least:
            return ""
        return (
            f"the ship's disk has {free // MB} MB left, and {self.least // MB} MB "
            "stay free (STARPHLEET_FREE_DISK)"
        )

    def outgrown(self, written: int) -> str:
        """Why a build that has written so many bytes cannot go on; "" if it can."""
        if self.most is None or written <= self.most:
            return ""
        return f"it wrote more than {self.most // MB} MB (STARPHLEET_BUILD_DISK)"


async def bounded(reactor: Any, running: Coroutine[Any, Any, Made], room: Room) -> Made:
    """Wait for `running`, and cancel it when there is no room for it any more: `NoRoom`."""
    why = ""
    writing = Deferred.fromCoroutine(running)

    async def watch() -> None:
        nonlocal why
        why = await _exceeded(reactor, room)
        writing.cancel()

    watching = Deferred.fromCoroutine(watch())
    watching.addErrback(_cancelled)
    try:
        return await writing
    except CancelledError:
        if not why:
            raise
        raise NoRoom(why) from None
    finally:
        if not why:
            watching.cancel()


def _cancelled(failure: Failure) -> None:
    failure.trap(CancelledError)


async def _exceeded(reactor: Any, room: Room) -> str:
    """Wait until there is no room; why."""
    rest_until = reactor.seconds() + RARE
    while True:
        await deferLater(reactor, LOOK)
        free = await in_thread(reactor, free_bytes, room.trees)
        if why := room.refused(free):
            return why
        if room.most is not None and (began := reactor.seconds()) >= rest_until:
            if why := room.outgrown(await in_thread(reactor, written, room.trees)):
                return why
            now = reactor.seconds()
            rest_until = now + max(RARE, CHEAP * (now - began))


def free_bytes(trees: Iterable[Path]) -> int:
    """Bytes that are free where these are; on the fullest disk, if they are on several. Blocks."""
    found = []
    for tree in trees:
        with suppress(OSError):  # it has just been replaced, or is not there yet
            found.append(shutil.disk_usage(tree).free)
    return min(found, default=sys.maxsize)


def written(trees: Iterable[Path]) -> int:
    """Bytes on the disk that all files in these trees take; a file of many names, once. Blocks."""
    known: set[tuple[int, int]] = set()
    total = 0
    for found in _files(list(trees)):
        if found.st_nlink > 1:
            if (found.st_dev, found.st_ino) in known:
                continue
            known.add((found.st_dev, found.st_ino))
        total += found.st_blocks * 512
    return total


def _files(trees: list[Path]) -> Iterator[os.stat_result]:
    """Every file in these trees, as far as one may look; what is gone meanwhile is left out."""
    directories = [str(tree) for tree in trees]
    while directories:
        try:
            entries = list(os.scandir(directories.pop()))
        except OSError:
            continue
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if S_ISDIR(found.st_mode):
                directories.append(entry.path)
            else:
                yield found
