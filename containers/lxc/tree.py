"""Root file systems on disk: whose their files are, what each of them must have. Blocks."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from containers.interface import ContainerError
from containers.lxc.idmap import INSIDE, outside

CAPABILITY = "security.capability"
USER = "ubuntu"
HOME = f"/home/{USER}"

# Where the runtime mounts something: (place, inside owner, mode).
DIRECTORIES = (
    *((place, 0, 0o755) for place in ("dev", "proc", "sys", "run", "etc", "env", "buildpacks")),
    *((place, 0, 0o755) for place in ("tools", "orders", "start", "var", "home")),
    *((place, INSIDE.uid, 0o755) for place in ("app", "cache", "var/data", f"home/{USER}")),
    ("tmp", 0, 0o1777),
)
FILES = ("etc/resolv.conf", "roots.pem")


def shift(top: Path) -> int:
    """Hand a tree with owners as seen inside to those of `idmap`; answers the bytes on disk.

    Extended attributes go, for an overlay would heed some, but for a file's capabilities, which
    are made the container's own. Raises `ContainerError` for what no base may have.
    """
    size, seen = 0, set[int]()
    for path in everything(top):
        status = os.lstat(path)
        if not _kept(status.st_mode):
            raise ContainerError(f"{os.path.relpath(path, top)!r} is a device node, fifo or socket")
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            if status.st_ino in seen:
                continue
            seen.add(status.st_ino)
        size += status.st_blocks * 512
        try:
            _hand_over(path, status)
        except ValueError as error:
            raise ContainerError(f"the owner of {os.path.relpath(path, top)!r}: {error}") from error
    return size


def everything(top: Path) -> Iterator[str]:
    """`top` and all that is below it, each directory before what is in it. Follows no symlink."""
    yield str(top)
    waiting = [str(top)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                yield entry.path
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)


def size_of(top: Path) -> int:
    """Bytes on disk, a file with several names counted once."""
    found = {}
    for path in everything(top):
        status = os.lstat(path)
        found[status.st_ino] = status.st_blocks * 512
    return sum(found.values())


def _kept(mode: int) -> bool:
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)


def _hand_over(path: str, status: os.stat_result) -> None:
    capability = b""
    for name in os.listxattr(path, follow_symlinks=False):
        if name == CAPABILITY:
            capability = os.getxattr(path, name, follow_symlinks=False)
        os.removexattr(path, name, follow_symlinks=False)
    os.lchown(path, outside(status.st_uid), outside(status.st_gid))
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(path, stat.S_IMODE(status.st_mode))  # noqa: PTH101 # chown clears setuid
    if capability:
        os.setxattr(path, CAPABILITY, _of_container(capability), follow_symlinks=False)


def _of_container(capability: bytes) -> bytes:
    """`vfs_ns_cap_data`: the same capabilities, valid where root is the container's root."""
    flags, *sets = struct.unpack_from("<5I", capability)
    revision, effective = 3 << 24, flags & 1
    return struct.pack("<6I", revision | effective, *sets, outside(0))


def furnish(top: Path) -> None:
    """Make what the runtime needs in a shifted tree: places to mount at, and the user `ubuntu`.

    Follows no symlink: one in the way of a directory is refused, one in that of a file goes.
    """
    os.chown(top, outside(0), outside(0))
    top.chmod(0o755)
    for place, owner, mode in DIRECTORIES:
        _directory(top, place, owner, mode)
    for place in FILES:
        _write(top / place, b"")
    _account(top / "etc/passwd", INSIDE.uid, f"{USER}:x:{{id}}:{{id}}::{HOME}:{_shell(top)}\n")
    _account(top / "etc/group", INSIDE.gid, f"{USER}:x:{{id}}:\n")


def _directory(top: Path, place: str, owner: int, mode: int) -> None:
    path = top / place
    with suppress(FileExistsError):
        path.mkdir()
        os.chown(path, outside(owner), outside(owner))
        path.chmod(mode)
    if not stat.S_ISDIR(path.lstat().st_mode):
        raise ContainerError(f"/{place} in it is no directory")
    if mode & stat.S_ISVTX:
        path.chmod(mode)


def _write(path: Path, data: bytes) -> None:
    if path.is_dir() and not path.is_symlink():
        raise ContainerError(f"/{'/'.join(path.parts[-2:])} in it is a directory")
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        os.fchown(file.fileno(), outside(0), outside(0))
        os.fchmod(file.fileno(), 0o644)
        file.write(data)


def _account(path: Path, number: int, line: str) -> None:
    """Add `line` unless an account has this number. A file that is none is made anew."""
    found = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
    fields = [entry.split(b":") for entry in found.splitlines()]
    if any(entry[2:3] == [b"%d" % number] for entry in fields):
        return
    if found and not found.endswith(b"\n"):
        found += b"\n"
    _write(path, found + line.format(id=number).encode())


def _shell(top: Path) -> str:
    bash = any((top / place).exists() for place in ("usr/bin/bash", "bin/bash"))
    return "/bin/bash" if bash else "/bin/sh"
