"""Directories that others write into meanwhile: reached by descriptors, and through no link."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SHARED = 0o777  # of a directory that is everybody's

_EXCHANGE = 2  # RENAME_EXCHANGE
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def opened(start: Path | int, path: str = "", *, make: bool = False) -> Iterator[int]:
    """A descriptor of the directory `path` below `start`, a directory or a descriptor of one.

    `make` makes what is missing. `NotADirectoryError` where there is a link or a file.
    """
    fd = os.dup(start) if isinstance(start, int) else os.open(start, _DIRECTORY & ~os.O_NOFOLLOW)
    try:
        for name in filter(None, path.split("/")):
            above, fd = fd, _descended(fd, name, make)
            os.close(above)
        yield fd
    finally:
        os.close(fd)


def _descended(fd: int, name: str, make: bool) -> int:
    if make:
        with suppress(FileExistsError):
            make_shared(fd, name)
    try:
        return os.open(name, _DIRECTORY, dir_fd=fd)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name) from None
        raise


def make_shared(above: int, name: str) -> None:
    """Make a directory for everybody, whatever the umask is."""
    os.mkdir(name, dir_fd=above)
    with opened(above, name) as made:
        os.fchmod(made, SHARED)


def take_after(pattern: int, directory: int) -> None:
    """Give `directory` the owner, if this process may, and the mode of `pattern`."""
    status = os.fstat(pattern)
    with suppress(PermissionError):
        os.fchown(directory, status.st_uid, status.st_gid)
    os.fchmod(directory, stat.S_IMODE(status.st_mode))


def entries(directory: int) -> list[tuple[str, os.stat_result]]:
    """What is in a directory, without what goes away meanwhile."""
    found = []
    for name in os.listdir(directory):
        if (status := status_of(directory, name)) is not None:
            found.append((name, status))
    return found


def status_of(directory: int, name: str) -> os.stat_result | None:
    """Of the entry itself, if it is there: a link is a link."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def inode(directory: int, name: str) -> int | None:
    status = status_of(directory, name)
    return status.st_ino if status else None


def is_directory(above: int, name: str) -> bool:
    status = status_of(above, name)
    return status is not None and stat.S_ISDIR(status.st_mode)


def move(name: str, source: int, into: int) -> None:
    os.rename(name, name, src_dir_fd=source, dst_dir_fd=into)


def swap(name: str, one: int, other: int, aside: Path) -> None:
    """Exchange the entries `name` of two directories; where only one has it, the other gets it.

    In one step, but where the filesystem knows none: there the entry of `other` is in the
    directory `aside` for a moment.
    """
    if inode(other, name) is None:
        move(name, one, other)
    elif inode(one, name) is None:
        move(name, other, one)
    else:
        try:
            exchange(name, one, other)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS):
                raise
            aside.mkdir(exist_ok=True)
            with opened(aside) as third:
                move(name, other, third)
                move(name, one, other)
                move(name, third, one)


def exchange(name: str, one: int, other: int) -> None:
    """Exchange the entries `name` of two directories in one step; `OSError` if that cannot be."""
    raw = os.fsencode(name)
    if _libc.renameat2(one, raw, other, raw, _EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
