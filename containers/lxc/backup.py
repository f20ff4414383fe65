"""Containers as archives: `starphleet-lxc-backup` and `-restore`."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from containers.interface import ContainerError
from containers.lxc import store
from containers.lxc.worker import Worker, settle

MOST = 1 << 40  # bytes of a backup unpacked; and at most half of what is free


async def backup(reactor: Any, layers: Sequence[Path], file: Path) -> None:
    """Write what `layers`, topmost first, are together into `file`, a tar with gzip.

    Owners are numbers as seen inside, so that it can be restored anywhere, or be a base. A file
    that was there is replaced once the new one is whole. Raises `ContainerError`.
    """
    new = file.with_name(f".{file.name}.new")
    try:
        await settle(reactor, new.unlink, missing_ok=True)
        await Worker(reactor).pack(layers, new)
        await settle(reactor, _replace, new, file)
    except OSError as error:
        raise ContainerError(f"backup to {file}: {error.strerror}") from error
    except BaseException:
        await settle(reactor, new.unlink, missing_ok=True)
        raise


def _replace(new: Path, file: Path) -> None:
    new.replace(file)


async def restore(reactor: Any, source: Path, directory: Path) -> None:
    """Unpack the backup `source` into `directory`, which is not there yet, with owners mapped.

    It is there whole or not at all. Raises `ContainerError`.
    """
    new = store.beside(directory.parent, directory.name)
    try:
        await settle(reactor, _begin, directory, new)
        made = store.empty_layer(new)
        budget = min(MOST, shutil.disk_usage(new).free // 2)
        await Worker(reactor).unpack(source, made, budget)
        await settle(reactor, _replace, store.inner(made), directory)
    except OSError as error:
        raise ContainerError(f"restore of {source}: {error.strerror}") from error
    finally:
        await settle(reactor, store.discard, new)


def _begin(directory: Path, new: Path) -> None:
    if directory.is_symlink() or directory.exists():
        raise ContainerError(f"{directory} is there already")
    store.begin(new)
