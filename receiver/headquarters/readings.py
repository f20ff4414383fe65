"""What commits of the headquarters say, and their files: each is read once, into a directory."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any
from weakref import WeakValueDictionary

from attrs import define, field
from twisted.internet.defer import DeferredLock

from containers.watching import in_thread
from hooks.layout import Layout
from hooks.repository import Repository
from hooks.standing import Source
from receiver.headquarters.headquarters import Headquarters
from receiver.headquarters.reading import Reader

YOUNG = 600.0  # seconds

_Key = tuple[Source, str]


@define(eq=False)
class Readings:
    """By the reader, each in a directory of its own below `layout.trees`, which is the ship's."""

    reactor: Any
    layout: Layout
    reader: Reader
    _known: dict[_Key, Headquarters] = field(factory=dict)
    _turns: WeakValueDictionary[_Key, DeferredLock] = field(factory=WeakValueDictionary)
    """Of each commit: who reads it second finds what it says."""
    _kept: Headquarters | None = None

    async def read(self, repository: Repository, source: Source, commit: str) -> Headquarters:
        """What `commit` of the headquarters in `repository` says; it is followed at `source`."""
        key = source, commit
        async with self._turns.setdefault(key, DeferredLock()):
            if key not in self._known:
                self._known[key] = await self._read(repository, source, commit)
            return self._known[key]

    async def forget(self, headquarters: Headquarters) -> None:
        """It came to nothing: whoever wants it again reads it anew. Not the one that counts."""
        key = headquarters.source, headquarters.commit
        if headquarters is not self._kept and self._known.get(key) is headquarters:
            del self._known[key]
            await in_thread(self.reactor, shutil.rmtree, headquarters.tree, True)

    async def keep(self, headquarters: Headquarters) -> None:
        """Let go of the others; the files of one that is young may be read just now, and scripts
        may run in those of the one before."""
        before, self._kept = self._kept, headquarters
        self._known = {(headquarters.source, headquarters.commit): headquarters}
        left = before.tree if before is not None else headquarters.tree
        await in_thread(self.reactor, _remove_old, self.layout.trees, headquarters.tree, left)

    async def _read(self, repository: Repository, source: Source, commit: str) -> Headquarters:
        tree = self.layout.trees / f"{commit}.{token_hex(4)}"
        try:
            await in_thread(self.reactor, tree.mkdir, parents=True)
            return await self.reader.read(repository, source, commit, tree, self.layout.scratch)
        except BaseException:
            await in_thread(self.reactor, shutil.rmtree, tree, True)
            raise


def _remove_old(trees: Path, current: Path, left: Path) -> None:
    """`left` is the tree that was the current one until now."""
    for tree in trees.iterdir():
        with suppress(FileNotFoundError):
            if tree == left != current:
                os.utime(tree)
            elif tree != current and tree.stat().st_mtime < time.time() - YOUNG:
                shutil.rmtree(tree, ignore_errors=True)
