"""Container directories: made whole or not at all, handed to a user, removed whole."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from containers.interface import Container, ContainerError
from containers.sandbox import User

NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,199}\Z")
MAKING, GOING = ".making-", ".going-"  # a name begins with no dot: these are nobody's
WRITABLE = ("app", "tmp")


def container_of(root: Path, name: str) -> Container:
    """Raises `ContainerError` for what is no name."""
    if not NAME.match(name):
        raise ContainerError(f"container: {name!r} is not a name ([a-z0-9][a-z0-9.-]*, up to 200)")
    return Container(name, root / name)


def make(container: Container, user: User | None) -> None:
    """Make the directory under another name, then rename it. Finds an existing one."""
    if container.directory.is_dir():
        return
    new = container.directory.parent / (MAKING + container.name)
    remove(new)
    new.mkdir()
    for part in WRITABLE:
        (new / part).mkdir(mode=0o700)
        if user is not None:
            os.chown(new / part, user.uid, user.gid)
    # The directory itself stays the ship's: what runs inside cannot forge the ship's records.
    new.chmod(0o711)
    new.rename(container.directory)


def names(root: Path) -> set[str]:
    """Names of all containers under `root`, half-made and half-removed ones included."""
    found = {entry.name for entry in root.iterdir() if entry.is_dir()}
    bare = {name.removeprefix(MAKING).removeprefix(GOING) for name in found}
    return {name for name in bare if NAME.match(name)}


def remove_container(container: Container) -> None:
    """Remove it and what is half-made or half-removed of it. May take long."""
    root = container.directory.parent
    going = root / (GOING + container.name)
    remove(going)
    with suppress(FileNotFoundError):
        container.directory.rename(going)
    remove_halves(root, container.name)


def remove_halves(root: Path, name: str) -> None:
    """Remove what was left half-made and half-removed under this name."""
    remove(root / (GOING + name))
    remove(root / (MAKING + name))


def remove(directory: Path) -> None:
    """Remove a tree, also one whose directories its owner has closed. Follows no symlink."""
    try:
        shutil.rmtree(directory)
    except FileNotFoundError:
        return
    except PermissionError:
        for closed in _directories(directory):
            closed.chmod(0o700)
        shutil.rmtree(directory)


def _directories(directory: Path) -> Iterator[Path]:
    """`directory` and all below it, each before it is looked into."""
    yield directory
    for entry in os.scandir(directory):
        if entry.is_dir(follow_symlinks=False):
            yield from _directories(Path(entry.path))


def own(container: Container, also: Sequence[Path], user: User) -> None:
    """Hand all that the container can write, and `also`, to `user`. Follows no symlink."""
    for part in (container.app, container.directory / "tmp", *also):
        for _, directories, files, fd in os.fwalk(part):
            os.fchown(fd, user.uid, user.gid)
            for name in (*directories, *files):
                os.chown(name, user.uid, user.gid, dir_fd=fd, follow_symlinks=False)


def own_top(directory: Path, user: User) -> None:
    """Let `user` write into this one directory (not what is below it)."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_uid != user.uid:
            os.fchown(fd, user.uid, user.gid)
    finally:
        os.close(fd)


def open_log(log: Path, user: User | None) -> int:
    """A descriptor to append to `log`, which is `user`'s: it may open `/dev/stdout` again."""
    log.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(log, flags, 0o640)
    if user is not None:
        os.fchown(fd, user.uid, user.gid)
    return fd


def write_accounts(directory: Path, user: User) -> None:
    """The `passwd` and `group` that are seen inside: root, the user `app`, and nobody."""
    directory.mkdir(exist_ok=True)
    passwd = [
        "root:x:0:0:root:/nonexistent:/usr/sbin/nologin",
        f"app:x:{user.uid}:{user.gid}:app:/app:/bin/sh",
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin",
    ]
    group = ["root:x:0:", f"app:x:{user.gid}:", "nogroup:x:65534:"]
    for name, lines in (("passwd", passwd), ("group", group)):
        new = directory / f"{name}.new"
        new.write_text("\n".join(lines) + "\n")
        new.chmod(0o644)
        new.rename(directory / name)
