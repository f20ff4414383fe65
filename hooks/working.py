"""Working directories of a workstation, from which ordered services are served as they lie there.

They are their developer's, and services may write in them: nothing here follows a link, nothing is
read but regular files, and git is never run there.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from attrs import frozen

from hooks.errors import Refused
from hooks.fronts import in_devmode
from hooks.stamps import stamp
from hooks.standing import StandingOrders

UNBIND = "DEVMODE_UNBIND_GIT_DIR"
DEEPEST = 100  # directories in one another
_MOST = 256 * 1024  # bytes of a file that the ship reads
_NOT_OURS = frozenset({".git", "node_modules"})
_OF_EDITORS = re.compile(r"\..*\.sw[a-z]|.*~|\.#.*|#.*#|4913|\.DS_Store")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Away(Refused):
    """There is no working directory where it should be."""


@frozen
class Working:
    """Where the work tree of a service is. Its container sees it itself if it is `linked`, else a
    copy."""

    path: Path
    linked: bool


@frozen
class Look:
    """What lay in a tree: `newest` is when a file of it changed last (epoch seconds), `digest` hex
    digits that change when a file comes, goes or changes."""

    newest: float
    digest: str

    @property
    def commit(self) -> str:
        """What stands for the commit of this tree."""
        return stamp(self.newest, self.digest)


def develops(standing: StandingOrders, devmode: bool | None) -> bool:
    """Whether a service is served from a working directory. `devmode` is what the ship says."""
    return standing.source is not None and in_devmode(standing.environment, devmode)


def is_linked(environment: Mapping[str, str]) -> bool:
    """Whether the container is to see the working directory itself, else a copy of it."""
    text = environment.get(UNBIND, "").lower()
    if text not in ("", "true", "false"):
        raise Refused(f"{UNBIND}: {ascii(text)[:40]} is not true or false")
    return text != "true"


def place_of(working: Path, path: str) -> Path:
    """Where below `working` the service of the orders in `path` ("" the root) has its directory.

    Never in that of another service, which may write there: `a/b` is at `a+b`, the root at `+`. No
    path has a + of its own.
    """
    return working / (path.replace("/", "+") or "+")


def look(place: Path) -> Look:
    """Every file in `place`, but for dependencies, git's own files and what editors leave. Blocks.

    What is in directories is read, not when they changed: an editor that opens a file changes that.
    """
    digest, newest = sha256(), 0.0
    with opened(place) as top:
        for _, path, about in _below(top, _is_looked_at):
            if not stat.S_ISDIR(about.st_mode):
                kind = about.st_mode & 0o170100
                line = f"{path}\0{about.st_mtime_ns} {about.st_size} {kind:o}\n"
                digest.update(line.encode("utf-8", "surrogateescape"))
                newest = max(newest, about.st_mtime)
    return Look(newest, digest.hexdigest())


def texts(place: Path, names: tuple[str, ...]) -> dict[str, str]:
    """Those of the top-level files `names` that are there. Blocks.

    `Refused` when one is not a regular file, is over 256 KB, or is not UTF-8.
    """
    with opened(place) as top:
        found = {name: _text(top, name) for name in names}
    return {name: text for name, text in found.items() if text is not None}


def copy(place: Path, into: Path) -> None:
    """Copy everything in `place` but dependencies and git's own files into the directory `into`.

    Links stay links, wherever they lead; what is no file is left out. Blocks.
    """
    with opened(place) as top:
        for directory, path, about in _below(top, _is_copied):
            name, target = path.rpartition("/")[2], into / path
            if stat.S_ISDIR(about.st_mode):
                target.mkdir()
            elif stat.S_ISLNK(about.st_mode):
                target.symlink_to(os.readlink(name, dir_fd=directory))
            elif stat.S_ISREG(about.st_mode):
                _copy_file(directory, name, target)


def clear_away(place: Path, name: str) -> None:
    """Remove what an earlier build left in `place` under `name`. Blocks."""
    with opened(place) as top, suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(name, dir_fd=top, follow_symlinks=False).st_mode):
            shutil.rmtree(name, dir_fd=top)
        else:
            os.unlink(name, dir_fd=top)


@contextmanager
def opened(place: Path) -> Iterator[int]:
    """The directory `place`, which is no link. `Away` where there is none."""
    try:
        top = os.open(place, _DIRECTORY)
    except OSError as error:
        raise Away(f"the working directory {place}: {_in_words(error)}") from None
    try:
        yield top
    finally:
        os.close(top)


def _below(
    directory: int, wanted: Callable[[str], bool], at: str = "", deep: int = 1
) -> Iterator[tuple[int, str, os.stat_result]]:
    """What is `wanted` by its name below an open directory, each with the directory that it is in,
    its path and what it is; in one order always."""
    if deep > DEEPEST:
        raise Refused(f"the working directory has more than {DEEPEST} directories in one another")
    with os.scandir(directory) as found:
        entries = sorted((one for one in found if wanted(one.name)), key=lambda one: one.name)
    for entry in entries:
        try:
            about = entry.stat(follow_symlinks=False)
            yield directory, f"{at}{entry.name}", about
            if stat.S_ISDIR(about.st_mode):
                inner = os.open(entry.name, _DIRECTORY, dir_fd=directory)
                try:
                    yield from _below(inner, wanted, f"{at}{entry.name}/", deep + 1)
                finally:
                    os.close(inner)
        except OSError as error:  # somebody works there: it may be gone, or something else by now
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise


def _is_copied(name: str) -> bool:
    return name not in _NOT_OURS


def _is_looked_at(name: str) -> bool:
    return _is_copied(name) and not _OF_EDITORS.fullmatch(name)


def _text(directory: int, name: str) -> str | None:
    try:
        file = _regular(directory, name)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refused(f"{name}: {_in_words(error)}, it must be a regular file") from None
    if file is None:
        raise Refused(f"{name} is no file, it must be a regular file")
    with file:
        data = file.read(_MOST + 1)
    if len(data) > _MOST:
        raise Refused(f"{name} is over {_MOST // 1024} KB, no more is read")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Refused(f"{name} is not UTF-8 text") from None


def _copy_file(directory: int, name: str, target: Path) -> None:
    file = _regular(directory, name)
    if file is None:
        return
    with file as old:
        about = os.fstat(old.fileno())
        mode = 0o755 if about.st_mode & 0o100 else 0o644
        with os.fdopen(os.open(target, _NEW, mode), "wb") as new:
            shutil.copyfileobj(old, new, 1 << 20)
            new.flush()
            os.utime(new.fileno(), ns=(about.st_atime_ns, about.st_mtime_ns))


def _regular(directory: int, name: str) -> BinaryIO | None:
    """The file `name` in an open directory, to be read; `None` when it is something else."""
    fd = os.open(name, _FILE, dir_fd=directory)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return os.fdopen(fd, "rb")
    os.close(fd)
    return None


def _in_words(error: OSError) -> str:
    return "it is a link" if error.errno in (errno.ELOOP, errno.EMLINK) else str(error.strerror)
