"""Unpacks a root file system that somebody else packed, as root, into a directory.

Nothing is trusted: a member is laid below the directory, at a place that no symlink leads to,
or the archive is refused by a line that names the member. Blocks: `worker` runs it in a process
of its own, which sees nothing but the directory.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from attrs import define, field

from containers.interface import ContainerError
from containers.lxc.idmap import outside

EACH = 4096  # bytes that a member counts at least: what it takes on disk beside its data
MOST_HEADER = 64 << 10  # bytes of an extended header, which is read into memory
DAMAGED = (
    *(tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError),
    *(ValueError, RecursionError, MemoryError),
)
_EXTENDED = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
_REFUSED = {
    tarfile.CHRTYPE: "a device node",
    tarfile.BLKTYPE: "a device node",
    tarfile.FIFOTYPE: "a fifo",
}
_COMPRESSIONS: tuple[tuple[bytes, Callable[[BinaryIO], Any]], ...] = (
    (b"\x1f\x8b", lambda file: gzip.GzipFile(fileobj=file)),
    (b"\xfd7zXZ\0", lzma.LZMAFile),
    (b"BZh", bz2.BZ2File),
)


class Header(tarfile.TarInfo):
    """A header that is refused before more is read because of it, or that ends the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Header:
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if not any(buf):
                raise  # which is how an archive ends
            raise ContainerError(f"it is damaged, or no tar archive: {error}") from error
        if member.type in _EXTENDED and member.size > MOST_HEADER:
            raise ContainerError(f"a header of it says that it has {member.size} bytes")
        return member


def unpack(source: BinaryIO, directory: Path, budget: int) -> None:
    """Unpack a tar archive, plain or with gzip, xz or bzip2, into an empty directory.

    Owners become those of `idmap`, so this is for root. Raises `ContainerError` with one line.
    `budget` bounds the bytes that it may take, a file counting 4 KiB at least.
    """
    tree = Tree(directory, budget)
    try:
        with _decompressed(source) as stream, _archive(stream) as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined] # it would keep every one
                tree.lay(member, archive)
            while rest := stream.read(1 << 20):  # to the end, where gzip has its checksum
                tree.spend(len(rest), "what follows its end")
    except DAMAGED as error:
        raise ContainerError(f"it is damaged, or no tar archive: {error}") from error


def _decompressed(source: BinaryIO) -> IO[bytes]:
    start = source.read(6)
    source.seek(0)
    for magic, opened in _COMPRESSIONS:
        if start.startswith(magic):
            return cast(IO[bytes], opened(source))
    return source


def _archive(stream: IO[bytes]) -> tarfile.TarFile:
    return tarfile.open(fileobj=stream, mode="r|", tarinfo=Header, errors="surrogateescape")


@define
class Tree:
    """What is unpacked so far. The places are names from `top` on, so that a member can be told."""

    top: Path
    budget: int
    _spent: int = 0
    _directories: set[tuple[str, ...]] = field(factory=set)

    def lay(self, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        """Lay one member at its place. Raises `ContainerError` with its name, and `OSError`."""
        self.spend(max(EACH, member.size if member.isreg() else 0), member.name)
        parts = _parts(member.name, member.name)
        if member.isdir():
            self._parents((*parts, ""), member.name)
            self._finish(member, self._path(parts))
            return
        if not parts:
            raise ContainerError(f"{member.name!r} is its top and no directory")
        self._parents(parts, member.name)
        path = self._path(parts)
        self._clear(path, member.name)
        if member.islnk():
            self._link(member, path)
        elif member.issym():
            path.symlink_to(member.linkname)
            self._finish(member, path)
        elif member.isreg():
            self._write(member, archive, path)
        else:
            what = _REFUSED.get(member.type, "neither file, directory nor link")
            raise ContainerError(f"{member.name!r} is {what}")

    def spend(self, size: int, name: str) -> None:
        """Count bytes against the budget; `ContainerError` when it is spent."""
        self._spent += size
        if self._spent > self.budget:
            raise ContainerError(f"it has more than {self.budget} bytes, at {name!r}")

    def _path(self, parts: tuple[str, ...]) -> Path:
        return self.top.joinpath(*parts)

    def _parents(self, parts: tuple[str, ...], name: str) -> None:
        """Make or find the directories that lead to `parts`, each a directory and no symlink."""
        for end in range(1, len(parts)):
            leading = parts[:end]
            if leading in self._directories:
                continue
            path = self._path(leading)
            try:
                mode = path.lstat().st_mode
            except FileNotFoundError:
                path.mkdir()
                os.chown(path, outside(0), outside(0))
                path.chmod(0o755)
            else:
                if not stat.S_ISDIR(mode):
                    what = "symlink" if stat.S_ISLNK(mode) else "file"
                    raise ContainerError(f"{name!r} leads through the {what} {'/'.join(leading)!r}")
            self._directories.add(leading)

    def _clear(self, path: Path, name: str) -> None:
        """A later member takes the place of an earlier one, but of a directory's never."""
        try:
            path.unlink()
        except FileNotFoundError:
            return
        except IsADirectoryError as error:
            raise ContainerError(f"{name!r} is a directory, and then it is none") from error

    def _link(self, member: tarfile.TarInfo, path: Path) -> None:
        says = f"{member.name!r}, a link to {member.linkname!r},"
        parts = _parts(member.linkname, says)
        self._parents(parts, says)
        target = self._path(parts)
        if not target.is_symlink() and not target.is_file():
            raise ContainerError(f"{says} has no such file before it")
        os.link(target, path, follow_symlinks=False)

    def _write(self, member: tarfile.TarInfo, archive: tarfile.TarFile, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        data = archive.extractfile(member)
        with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
            if data is not None:
                shutil.copyfileobj(data, file)
            if file.tell() != member.size:
                raise ContainerError(f"{member.name!r} is cut off")
        self._finish(member, path)

    def _finish(self, member: tarfile.TarInfo, path: Path) -> None:
        """Owner first: a change of it would clear the setuid bit."""
        try:
            os.lchown(path, outside(member.uid), outside(member.gid))
        except ValueError as error:
            raise ContainerError(f"the owner of {member.name!r}: {error}") from error
        if not member.issym():
            path.chmod(stat.S_IMODE(member.mode))
        if not member.isdir():
            os.utime(path, (member.mtime, member.mtime), follow_symlinks=False)


def _parts(name: str, says: str) -> tuple[str, ...]:
    """The names that lead to a place below the top; `ContainerError` for another place."""
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if name.startswith("/") or ".." in parts:
        raise ContainerError(f"{says!r} leads out of it" if says == name else f"{says} leads out")
    return parts
