"""`remote`: the files of a repository as data that ordered services share.

What services wrote beside them stays, with its owner and mode: a file is the same inode before and
after, and so is a directory that holds nothing of the repository. A path that both have is the
repository's, from its next version on, but a directory with files of services is never replaced
by a file. A link that a service made is a file like any other, and is never followed.

A version is built whole out of everybody's sight, with hard links to what services wrote, and then
exchanged for the one before: whoever opens a path sees one version or the other. Whoever holds the
old directory open sees the old version while it goes away, never the new one. The root's data is
a mount point of services, so there each top-level entry is whole, not all of them together.

What services do while the exchange goes on is done again in the new version: files that they
made, replaced or removed in the old one. A file that was changed in both is the newer of the two;
one that was made in the old one is away until it is taken over. Three things are lost: writes to a
file of the repository; a file that is made at that moment where the new version has something
else; and, if the ship is killed at that moment, the removal of a file, which is then there again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Any

from twisted.internet.defer import DeferredLock

from containers.files import remove
from containers.watching import in_thread, shielded
from hooks.errors import Refused, ShipError
from hooks.layout import Layout
from hooks.repository import Repository
from receiver.headquarters.carrying import (
    Carried,
    Carrying,
    Sweep,
    check_depth,
    directories_of,
    top,
)
from receiver.headquarters.directories import SHARED, inode, is_directory, move, opened, swap
from receiver.headquarters.remote import Manifest, Remote

_locks: dict[Path, DeferredLock] = defaultdict(DeferredLock)


async def lay_remote(
    reactor: Any,
    layout: Layout,
    path: str,
    repository: Repository,
    commit: str,
    *,
    nested: Collection[str],
) -> None:
    """Let the data at `path` ("" is all of it) have the files of `commit`; nothing if it has them.

    `nested` are the paths of the other remotes: those below `path` are left alone. `ShipError`:
    the version before stays. What a killed ship left half-done is settled first.
    """
    remote = Remote.among(layout.data, path, layout.standing / "remotes", nested)
    await shielded(_in_turn(reactor, remote, repository, commit, layout.scratch))


async def _in_turn(
    reactor: Any, remote: Remote, repository: Repository, commit: str, scratch: Path
) -> None:
    async with _locks[remote.data]:
        try:
            if await in_thread(reactor, _begin, remote, commit):
                return
            try:
                await repository.lay(commit, remote.fresh, scratch)
                await in_thread(reactor, _renew, remote, commit)
            finally:
                await in_thread(reactor, _settle, remote)
        except NotADirectoryError as error:
            what = ascii(error.filename)[:100]
            raise Refused(f"/var/data/{remote.path}: {what} is no directory there") from error
        except OSError as error:
            at = f"{ascii(error.filename)[:100]}: " if isinstance(error.filename, str) else ""
            raise ShipError(f"/var/data/{remote.path}: {at}{error.strerror}") from error


def _begin(remote: Remote, commit: str) -> bool:
    """Settle what was left. Whether `commit` is laid already; else there is a place for git."""
    _settle(remote)
    with remote.parent() as parent:
        there = not remote.unit or is_directory(parent, remote.unit)
    if there and remote.known().commit == commit:
        return True
    remote.fresh.mkdir(parents=True)
    remote.manifests.chmod(0o700)
    return False


def _renew(remote: Remote, commit: str) -> None:
    """Make a version of the files that git wrote, exchange it, and settle."""
    if remote.unit:
        remote.tree.mkdir()
    remote.fresh.rename(remote.tree / remote.unit)
    files, directories = _smoothed(remote)
    before = set(filter(remote.is_ours, remote.known().laid))
    carrying = Carrying(files, directories, before, directories_of(before))
    names = sorted({top(path) for path in (*files, *directories, *before)})
    with remote.parent() as parent, opened(remote.tree) as tree:
        units = {name: inode(tree, name) for name in names if carrying.unit(parent, tree, name)}
        Manifest(commit, frozenset(files), units).write(remote.journal)
        try:
            for name in units:
                swap(name, tree, parent, remote.aside)
        finally:
            _settle(remote, carrying.carried)


def _smoothed(remote: Remote) -> tuple[set[str], set[str]]:
    """The paths of files and of directories in what git wrote, which gets the modes of data.

    What is in the way of other remotes is taken out.
    """
    files: set[str] = set()
    directories: set[str] = set()
    above = directories_of(remote.nested)
    to_do = [""]
    while to_do:
        at = to_do.pop()
        check_depth(at)
        for path in sorted((remote.tree / at).iterdir()):
            relative = f"{at}{path.name}"
            if path.is_dir() and not path.is_symlink():
                if relative in remote.nested:
                    remove(path)
                    continue
                path.chmod(SHARED)
                directories.add(relative)
                to_do.append(f"{relative}/")
            elif relative in remote.nested or relative in above:
                path.unlink()
            else:
                files.add(relative)
                if not path.is_symlink():
                    path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
    return files, directories


def _settle(remote: Remote, carried: Carried | None = None) -> None:
    """Bring an exchange to its end, wherever it is, and remove all that was made for it.

    Of units that were exchanged, what services did in the old ones is done in the new ones; of the
    others, the old version still counts.
    """
    journal = Manifest.read(remote.journal)
    if journal is not None:
        with remote.parent() as parent, opened(remote.tree) as tree:
            _end(remote, journal, parent, tree, carried or Carried())
        remote.journal.unlink()
    remove(remote.place)


def _end(remote: Remote, journal: Manifest, parent: int, tree: int, carried: Carried) -> None:
    torn = _mended(remote, parent, tree)
    pending = {name for name, new in journal.units.items() if inode(tree, name) == new}
    exchanged = journal.units.keys() - pending
    before = remote.known()
    laid = set(filter(remote.is_ours, before.laid)) | journal.laid
    sweep = Sweep(parent, laid, directories_of(laid), carried)
    for name in exchanged:
        sweep.unit(tree, name)
    now = {path for path in journal.laid if top(path) not in pending}
    now |= {path for path in before.laid if top(path) in pending}
    Manifest("" if pending or torn else journal.commit, frozenset(now)).write(remote.manifest)
    for name in exchanged:
        sweep.end(tree, name)


def _mended(remote: Remote, parent: int, tree: int) -> bool:
    """End an exchange in several steps that was broken off; whether there was one."""
    left = [path.name for path in remote.aside.iterdir()] if remote.aside.is_dir() else []
    for name in left:
        with opened(remote.aside) as aside:
            if inode(parent, name) is None:
                move(name, aside, parent)
                continue
            if inode(tree, name) is not None:
                (remote.tree / name).rename(remote.place / "torn")
            move(name, aside, tree)
    return bool(left)
