"""`overlay/` of the headquarters: files that are laid over `/` of a ship that was installed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from hooks.errors import Refused
from hooks.repository import Blob
from hooks.say import clean

_BELOW = "overlay/"
# What an installation laid, and would lay again: these two would fight over it.
_OURS = (
    "etc/starphleet", "etc/sudoers.d/starphleet", "etc/logrotate.d/starphleet",
    "etc/systemd/system/starphleet.service", "etc/ssh/sshd_config.d/00-starphleet.conf",
    "opt/starphleet/", "var/starphleet/", "usr/local/bin/starphleet",
)  # fmt: skip
_NOT_FILES = ("dev/", "proc/", "sys/")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def lay_overlay(tree: Path, files: Mapping[str, Blob], root: Path = Path("/")) -> list[str]:
    """Lay the files below `overlay/` of the headquarters in `tree` over `root`; what to say of it.

    Each is replaced at once and whole, belongs to whoever this is, and has the mode that git knows.
    One that is so already is not touched, and none is ever removed. Blocking.
    """
    said = []
    for name, blob in sorted(files.items()):
        if name.startswith(_BELOW):
            try:
                if _lay(tree / name, blob, root, name.removeprefix(_BELOW)):
                    said.append(f"{name}: laid")
            except Refused as error:
                said.append(f"{name}: {error}; not laid")
            except OSError as error:
                said.append(f"{name}: {error.strerror}; not laid")
    return [clean(line) for line in said]


def _lay(file: Path, blob: Blob, root: Path, path: str) -> bool:
    """False where it is so already."""
    if not blob.regular:
        raise Refused("it must be a regular file")
    if any(path == one or (one[-1] == "/" and path.startswith(one)) for one in _OURS):
        raise Refused("that is the installation's own")
    if path.startswith(_NOT_FILES):
        raise Refused("that is no place for files")
    place = PurePosixPath(path)
    mode = 0o755 if blob.executable else 0o644
    with _inside(root, place.parent) as directory:
        data = file.read_bytes()
        if _is(directory, place.name, data, mode):
            return False
        growing = f".{place.name}.new"
        try:
            with os.fdopen(os.open(growing, _NEW, 0o600, dir_fd=directory), "wb") as new:
                new.write(data)
                os.fchmod(new.fileno(), mode)
            os.rename(growing, place.name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(growing, dir_fd=directory)
            raise
    return True


@contextmanager
def _inside(root: Path, path: PurePosixPath) -> Iterator[int]:
    """The directory `path` below `root`, made where it is missing, by a way without links."""
    directory = os.open(root, _DIRECTORY)
    try:
        for number, part in enumerate(path.parts):
            with suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=directory)
            try:
                inner = os.open(part, _DIRECTORY, dir_fd=directory)
            except OSError:
                where = "/".join(path.parts[: number + 1])
                raise Refused(f"/{where} is a link, or no directory") from None
            os.close(directory)
            directory = inner
        yield directory
    finally:
        os.close(directory)


def _is(directory: int, name: str, data: bytes, mode: int) -> bool:
    """Whether there is this file. `Refused` where there is something that is no file."""
    try:
        there = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    except FileNotFoundError:
        return False
    except OSError:
        raise Refused("there is a link in its place, or no file") from None
    try:
        about = os.fstat(there)
        if not stat.S_ISREG(about.st_mode):
            raise Refused("there is no regular file in its place")
        same = (about.st_uid, stat.S_IMODE(about.st_mode)) == (os.geteuid(), mode)
        return same and about.st_size == len(data) and os.pread(there, len(data), 0) == data
    finally:
        os.close(there)
