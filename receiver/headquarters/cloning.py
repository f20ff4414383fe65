"""Cloning a source into a working directory: once, whole or not at all, and then it is handed over.

git runs only where nobody else has written yet: in a repository that an app can write to, its
configuration could name any command.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from containers.watching import in_thread
from hooks.errors import ShipError
from hooks.standing import Source
from receiver.headquarters.git import upload_pack
from receiver.headquarters.refs import is_commit, may_be_short
from receiver.headquarters.sources import Sources

EXCLUDED = """\
# What a build of the ship leaves here.
/.built/
/.heroku/
/.profile.d/
/.venv/
/node_modules/
/vendor/bundle/
"""


async def clone(sources: Sources, source: Source, place: Path) -> None:
    """Make `place` a work tree of `source` that belongs to who has the directory above it.

    Submodules and files of Git LFS are left to its developer. `Unreachable` when it cannot be had.
    """
    growing = place.with_name(f".cloning {place.name}")  # no service is called so
    mine = sources.own(source.url)
    url = str(mine.path) if mine else source.url
    try:
        await in_thread(sources.reactor, _begin, growing)
        words = ["clone", "--quiet", "--no-local", "--template=", "--no-recurse-submodules"]
        words += [*upload_pack(url), *_branch(source.ref), "--", url, str(growing)]
        await sources.remote(url, words, seconds=sources.seconds)
        git = ["-C", str(growing)]
        if may_be_short(source.ref) or is_commit(source.ref):
            words = [*git, "checkout", "--quiet", source.ref, "--"]
            await sources.remote(url, words, seconds=sources.seconds)
        if mine:
            words = [*git, "remote", "set-url", "--", "origin", source.url]
            await sources.remote(url, words, seconds=sources.seconds)
        await in_thread(sources.reactor, _hand_over, growing, place)
    except OSError as error:
        raise ShipError(f"{place} cannot be made: {error.strerror}") from error
    finally:
        await in_thread(sources.reactor, shutil.rmtree, growing, True)


def _branch(ref: str) -> list[str]:
    """The option for a branch or a tag; what may be a commit is found in the whole history."""
    named = ref and not may_be_short(ref) and not is_commit(ref)
    return [f"--branch={ref}"] if named else []


def _begin(growing: Path) -> None:
    growing.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    shutil.rmtree(growing, ignore_errors=True)


def _hand_over(growing: Path, place: Path) -> None:
    """Give a clone to whose it is to be, and then its name; what is there by now is left alone."""
    information = growing / ".git" / "info"
    information.mkdir(exist_ok=True)
    (information / "exclude").write_text(EXCLUDED)
    with suppress(PermissionError):  # a shared folder's modes and owners are its own
        growing.chmod(0o755)
        _give(growing, growing.parent.stat())
    if not place.exists():
        growing.rename(place)


def _give(tree: Path, whose: os.stat_result) -> None:
    """Let everything in `tree` belong to who has what `whose` is about."""
    if os.geteuid() != 0:
        return
    for _, directories, files, fd in os.fwalk(tree):
        for name in (".", *directories, *files):
            if os.stat(name, dir_fd=fd, follow_symlinks=False).st_uid != whose.st_uid:
                os.chown(name, whose.st_uid, whose.st_gid, dir_fd=fd, follow_symlinks=False)
