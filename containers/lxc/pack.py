"""Packs layers as an overlay shows them into one archive, with owners as seen inside. Blocks."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from containers.interface import ContainerError
from containers.lxc.idmap import COUNT, INSIDE, outside

LEVEL = 3  # of gzip: a third of the time of 6, for a tenth more bytes
OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
ELSEWHERE = ("trusted.overlay.redirect", "trusted.overlay.metacopy")


def pack(layers: Sequence[Path], target: IO[bytes]) -> None:
    """Write a tar with gzip of what `layers`, topmost first, are together.

    What is no file, directory or link is left out: sockets and fifos mean nothing without a
    process, and a device node is how an overlay notes that a lower layer's file is gone.
    """
    if not layers or not layers[0].is_dir():
        raise ContainerError(f"{layers[0] if layers else 'nothing'} is no directory to back up")
    with tarfile.open(
        fileobj=target, mode="w:gz", format=tarfile.PAX_FORMAT, compresslevel=LEVEL
    ) as archive:
        for name, path in merged(layers, "."):
            _add(archive, name, path)


def merged(layers: Sequence[Path], name: str) -> Iterator[tuple[str, Path]]:
    """What an overlay of `layers` shows at `name` and below: each name with the path it is at."""
    here = _showing(layers, name)
    yield name, here[0] / name
    shown: set[str] = set()
    for depth, layer in enumerate(here):
        for entry in sorted(os.scandir(layer / name), key=lambda entry: entry.name):
            if entry.name in shown:
                continue
            shown.add(entry.name)
            below = f"{name}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                yield from merged(here[depth:], below)
            else:
                yield below, Path(entry.path)


def _showing(layers: Sequence[Path], name: str) -> list[Path]:
    """Those layers whose directory `name` is seen, the topmost being one."""
    showing = []
    for layer in layers:
        place = layer / name
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            break
        if not place.exists():
            continue
        names = os.listxattr(place)
        if any(attribute in names for attribute in ELSEWHERE):
            raise ContainerError(f"{place} is an overlay's directory that was renamed")
        showing.append(layer)
        if any(attribute in names for attribute in OPAQUE):
            break
    return showing


def _add(archive: tarfile.TarFile, name: str, path: Path) -> None:
    member = archive.gettarinfo(str(path), name)
    if member is None or not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        return
    member.uid, member.gid = _inside(member.uid, path), _inside(member.gid, path)
    member.uname = member.gname = ""
    if member.isreg():
        with path.open("rb") as file:
            archive.addfile(member, file)
    else:
        archive.addfile(member)


def _inside(host: int, path: Path) -> int:
    if host == outside(INSIDE.uid):
        return INSIDE.uid
    if 0 <= host - outside(0) < COUNT:
        return host - outside(0)
    raise ContainerError(f"{path} is owned by {host}, who is nobody inside")
