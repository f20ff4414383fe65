"""Objects of pushes that never came to their end.

Git keeps what arrives in a quarantine and removes it when it ends by itself. When a signal ends it,
as for a client that went away, it leaves it to `git gc`, which a ship does not run.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil


def empty(repositories: Path) -> None:
    """Remove each quarantine below `repositories` whose git does not run any more.

    Reads the disk, and `/proc` if there is one: call it in a thread.
    """
    # In this order: a quarantine that is new since then is not in it, its git is in the other.
    if found := list(repositories.glob("*.git/objects/*incoming-*")):
        words = set(_words())
        for quarantine in found:
            if str(quarantine.parent.parent) not in words:
                shutil.rmtree(quarantine, ignore_errors=True)


def _words() -> Iterator[str]:
    """Every argument of every process."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            yield from process.cmdline()
