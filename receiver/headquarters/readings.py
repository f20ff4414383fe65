"""What commits of the headquarters say, and their files: each is read once, into a directory."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
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


@define(eq=False)
class Readings:
    """By the reader, below `layout.trees`, which is the ship's alone."""

    reactor: Any
    layout: Layout
    reader: Reader
    _known: dict[str, Headquarters] = field(factory=dict)
    _turns: WeakValueDictionary[str, DeferredLock] = field(factory=WeakValueDictionary)
    """Of each commit: who reads it second finds what it says."""

    async def read(self, repository: Repository, source: Source, commit: str) -> Headquarters:
        """What `commit` of the headquarters in `repository` says."""
        async with self._turns.setdefault(commit, DeferredLock()):
            if commit not in self._known:
                tree = self.layout.trees / commit
                await in_thread(self.reactor, _emptied, tree)
                self._known[commit] = await self.reader.read(
                    repository, source, commit, tree, self.layout.scratch
                )
            return self._known[commit]

    async def keep(self, headquarters: Headquarters) -> None:
        """Let go of the others; the files of one that is young may be read just now."""
        self._known = {headquarters.commit: headquarters}
        await in_thread(self.reactor, _remove_old, self.layout.trees, headquarters.commit)


def _emptied(tree: Path) -> None:
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)


def _remove_old(trees: Path, current: str) -> None:
    for tree in trees.iterdir():
        if tree.name != current and tree.stat().st_mtime < time.time() - YOUNG:
            shutil.rmtree(tree, ignore_errors=True)
