"""The files of the headquarters, a directory for each commit of it that is read."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from attrs import frozen

from containers.watching import in_thread

YOUNG = 600.0  # seconds


@frozen
class Trees:
    """Below `directory`, which is the ship's alone."""

    reactor: Any
    directory: Path

    async def fresh(self, commit: str) -> Path:
        """An empty directory for the files of `commit`."""
        tree = self.directory / commit
        await in_thread(self.reactor, _emptied, tree)
        return tree

    async def keep(self, commit: str) -> None:
        """Remove those of other commits; one that is young may be read just now."""
        await in_thread(self.reactor, _remove_old, self.directory, commit)


def _emptied(tree: Path) -> None:
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)


def _remove_old(trees: Path, current: str) -> None:
    for tree in trees.iterdir():
        if tree.name != current and tree.stat().st_mtime < time.time() - YOUNG:
            shutil.rmtree(tree, ignore_errors=True)
