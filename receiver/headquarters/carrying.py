"""What services wrote in shared data, carried from one version of a directory to the next.

Paths are relative to the directory that holds the units, which are what is exchanged as a whole.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection
from contextlib import suppress

from attrs import define, field, frozen

from hooks.errors import Refused
from receiver.headquarters.directories import (
    entries,
    exchange,
    inode,
    is_directory,
    make_shared,
    move,
    opened,
    status_of,
    take_after,
)

DEEPEST = 100  # directories below each other
TRIES = 10  # rounds through a directory that somebody still writes into

_GONE = (FileNotFoundError, NotADirectoryError)


def top(path: str) -> str:
    """The unit that `path` is in."""
    return path.partition("/")[0]


def directories_of(paths: Collection[str]) -> set[str]:
    """All directories above any of `paths`."""
    found: set[str] = set()
    for path in paths:
        while (path := path.rpartition("/")[0]) and path not in found:
            found.add(path)
    return found


def check_depth(path: str) -> None:
    if path.count("/") > DEEPEST:
        raise Refused(f"directories are more than {DEEPEST} deep at {ascii(path)[:60]}")


@define
class Carried:
    """What services had when it was carried over: files by their inode, and directories.

    `apart` are directories that hold nothing of the repository and are in no other such one, with
    the inode of the copy.
    """

    files: dict[str, int] = field(factory=dict)
    directories: set[str] = field(factory=set)
    apart: dict[str, int] = field(factory=dict)


@frozen
class Carrying:
    """Links what services wrote into a new version.

    `files` and `directories` are the new one's, `before` the files of the one before.
    """

    files: Collection[str]
    directories: Collection[str]
    before: Collection[str]
    around: Collection[str]
    """The directories of `before`."""
    carried: Carried = field(factory=Carried)

    def unit(self, old: int, new: int, name: str) -> bool:
        """Whether the unit is to be exchanged: a new one is to come, or the old one is to go."""
        if is_directory(old, name):
            self._directory(old, new, name, name, False)
            return name not in self.carried.apart
        if not any(name in ours for ours in (self.files, self.directories, self.before)):
            return False
        return inode(old, name) is not None or inode(new, name) is not None

    def _everything(self, old: int, new: int, at: str, apart: bool) -> bool:
        """Carry over what is in a directory; whether there was anything."""
        check_depth(at)
        kept = False
        for name, status in entries(old):
            path = f"{at}{name}"
            if stat.S_ISDIR(status.st_mode):
                with suppress(*_GONE):
                    kept |= self._directory(old, new, name, path, apart)
            elif not any(path in ours for ours in (self.before, self.files, self.directories)):
                kept |= self._file(old, new, name, path)
        return kept

    def _directory(self, old: int, new: int, name: str, path: str, apart: bool) -> bool:
        with opened(old, name) as source:
            if path in self.files:
                self._must_be_free(source, path)
                return False
            theirs = path not in self.directories
            begins = theirs and not apart and path not in self.around
            if theirs:
                make_shared(new, name)
            with opened(new, name) as into:
                take_after(source, into)
                kept = self._everything(source, into, f"{path}/", apart or begins)
                copy = os.fstat(into).st_ino
        if theirs and not kept and path in self.around:
            os.rmdir(name, dir_fd=new)
            return False
        if theirs:
            self.carried.directories.add(path)
        if begins:
            self.carried.apart[path] = copy
        return True

    def _must_be_free(self, directory: int, at: str) -> None:
        """`Refused` when anything in the directory was not laid by the ship."""
        check_depth(at)
        for name, status in entries(directory):
            path = f"{at}/{name}"
            if path in self.around and stat.S_ISDIR(status.st_mode):
                with suppress(*_GONE), opened(directory, name) as inner:
                    self._must_be_free(inner, path)
            elif path not in self.before:
                raise Refused(
                    f"{ascii(path)[:100]} was written by a service, in a directory where the "
                    "repository has a file; nothing was changed"
                )

    def _file(self, old: int, new: int, name: str, path: str) -> bool:
        """A link. What cannot have one is moved after the exchange."""
        try:
            os.link(name, name, src_dir_fd=old, dst_dir_fd=new, follow_symlinks=False)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EMLINK):
                raise
        else:
            self.carried.files[path] = os.stat(name, dir_fd=new, follow_symlinks=False).st_ino
        return True


@define
class Sweep:
    """Takes the old version apart, after the exchange.

    `new` is a descriptor of the directory with the new units; `laid` all files of the repository
    in both versions, `around` their directories. `carried` is empty when nobody knows any more.
    """

    new: int
    laid: Collection[str]
    around: Collection[str]
    carried: Carried
    _seen: set[str] = field(factory=set)
    """What was in the old version, and was not removed by somebody else before it was taken."""

    def unit(self, old: int, name: str) -> None:
        """Do in the new one what services did in the old one; what is left there is nobody's."""
        for path, copy in self.carried.apart.items():
            if top(path) == name:
                self._put_back(old, path, copy)
        self._empty_unit(old, name)
        self._remove_again(name)

    def end(self, old: int, name: str) -> None:
        """Remove the old one; `OSError` if somebody who holds it open goes on writing into it."""
        if is_directory(old, name):
            self._empty_unit(old, name)
            os.rmdir(name, dir_fd=old)

    def _empty_unit(self, old: int, name: str) -> None:
        if is_directory(old, name):
            with opened(old, name) as inner:
                self._empty(inner, f"{name}/")

    def _put_back(self, old: int, path: str, copy: int) -> None:
        """Let a directory of services be the very one that it was, unless they moved it."""
        above, _, name = path.rpartition("/")
        with suppress(*_GONE), opened(old, above) as source, opened(self.new, above) as into:
            if inode(into, name) == copy and is_directory(source, name):
                with suppress(OSError):  # some filesystems cannot: the copy stays
                    exchange(name, source, into)

    def _empty(self, old: int, at: str) -> None:
        for _ in range(TRIES):
            found = entries(old)
            for name, status in found:
                self._seen.add(f"{at}{name}")
                if stat.S_ISDIR(status.st_mode):
                    self._directory(old, name, at)
                else:
                    self._file(old, name, at, status)
            if not found:
                return

    def _directory(self, old: int, name: str, at: str) -> None:
        path = f"{at}{name}"
        with suppress(*_GONE), opened(old, name) as inner:
            if path not in self.carried.directories and path not in self.around:
                self._make(inner, path)
            self._empty(inner, f"{path}/")
        try:
            os.rmdir(name, dir_fd=old)
        except FileNotFoundError:
            self._seen.discard(path)
        except OSError:
            pass  # the caller looks again

    def _make(self, pattern: int, path: str) -> None:
        above, _, name = path.rpartition("/")
        with suppress(*_GONE), opened(self.new, above, make=True) as into:
            if inode(into, name) is None:
                make_shared(into, name)
                with opened(into, name) as made:
                    take_after(pattern, made)

    def _file(self, old: int, name: str, at: str, status: os.stat_result) -> None:
        path = f"{at}{name}"
        if path not in self.laid and self.carried.files.get(path) != status.st_ino:
            with suppress(*_GONE), opened(self.new, at, make=True) as into:
                if self._counts(status, into, name, path):
                    move(name, old, into)
                    return
        try:
            os.unlink(name, dir_fd=old)
        except FileNotFoundError:
            self._seen.discard(path)

    def _counts(self, status: os.stat_result, into: int, name: str, path: str) -> bool:
        """Whether a file of the old version is to be that of the new one."""
        there = status_of(into, name)
        if there is None:
            return True
        if there.st_ino == status.st_ino or stat.S_ISDIR(there.st_mode):
            return False
        unchanged = self.carried.files.get(path) == there.st_ino
        return unchanged or there.st_mtime_ns < status.st_mtime_ns

    def _remove_again(self, unit: str) -> None:
        """Remove what services removed from the old version after it was carried over."""
        for path, linked in self.carried.files.items():
            above, _, name = path.rpartition("/")
            if top(path) == unit and path not in self._seen:
                with suppress(*_GONE), opened(self.new, above) as into:
                    if inode(into, name) == linked:
                        os.unlink(name, dir_fd=into)
        for path in sorted(self.carried.directories - self._seen, key=len, reverse=True):
            above, _, name = path.rpartition("/")
            if above and top(path) == unit:
                with suppress(OSError), opened(self.new, above) as into:
                    os.rmdir(name, dir_fd=into)
