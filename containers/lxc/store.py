"""The bases on disk: one directory each, there whole or not at all, and which of them go. Blocks.

`ROOT/NAME/layer` is its layer and `ROOT/NAME/about` says what it is; when the directory was last
changed, by `touch`, is when the base was last asked for.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from containers import files
from containers.interface import ContainerError
from containers.lxc.idmap import outside

LAYER, ABOUT = "layer", "about"
MAKING, GOING = ".making-", ".going-"
MOUNTS = Path("/proc/self/mountinfo")


@frozen
class Kept:
    """A base that is there: `below` names the one it stands on ("" for none), `size` in bytes,
    `asked` when it was last asked for."""

    name: str
    label: str
    below: str
    size: int
    asked: float


def layer(root: Path, name: str) -> Path | None:
    """The layer of the base `name`, if it is there whole."""
    found = root / name / LAYER
    return found if found.is_dir() else None


def touch(layers: Iterable[Path]) -> None:
    """Note that these were asked for now."""
    for path in layers:
        with suppress(FileNotFoundError):
            os.utime(path.parent)


def beside(root: Path, name: str) -> Path:
    """Where the base `name` is made before it is there."""
    return root / (MAKING + name)


def begin(new: Path) -> None:
    """Make the directory to make a base in; what an earlier attempt left is removed."""
    discard(new)
    new.mkdir(mode=0o711)


def empty_layer(new: Path) -> Path:
    """A layer with nothing in it, whose top is what `/` is to be."""
    made = new / LAYER
    made.mkdir()
    os.chown(made, outside(0), outside(0))
    made.chmod(0o755)
    return made


def inner(made: Path) -> Path:
    """The root file system in an unpacked archive: its `rootfs` where it is as LXC packs them."""
    found = made / "rootfs"
    if not found.is_dir() or found.is_symlink():
        return made
    return found.parent.rename(made.with_name("outer")) / found.name


def finish(new: Path, made: Path, label: str, below: str, size: int) -> None:
    """Let what was made in `new`, its layer at `made`, be there: from one instant to the next."""
    if made != new / LAYER:
        made.rename(new / LAYER)
    for entry in list(new.iterdir()):
        if entry.name != LAYER:
            files.remove(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    (new / ABOUT).write_text(json.dumps({"label": label, "below": below, "size": size}))
    new.rename(new.parent / new.name.removeprefix(MAKING))


def kept(root: Path) -> list[Kept]:
    """All bases that are there."""
    return [
        Kept(entry.name, **json.loads((entry / ABOUT).read_text()), asked=entry.stat().st_mtime)
        for entry in root.iterdir()
        if not entry.name.startswith(".") and (entry / ABOUT).is_file()
    ]


def going(
    bases: Sequence[Kept], used: Collection[str], *, before: float, budget: int
) -> list[Kept]:
    """Those that go: what nobody uses or stands on, last asked for `before`, or beyond `budget`.

    The oldest go first. What one that goes stood on may go with it.
    """
    left = sorted(bases, key=lambda base: base.asked)
    gone: list[Kept] = []
    while True:
        needed = {*used, *(base.below for base in left)}
        free = [base for base in left if base.name not in needed]
        over = sum(base.size for base in left) > budget
        if not free or not (over or free[0].asked < before):
            return gone
        gone.append(free[0])
        left.remove(free[0])


def put_aside(path: Path) -> Path:
    """Let what is at `path` not be there any more; answers where it is to be removed."""
    aside = path.with_name(GOING + secrets.token_hex(8))
    path.rename(aside)
    return aside


def unasked(root: Path, base: Kept) -> bool:
    """Whether nobody asked for `base` since it was looked at."""
    return (root / base.name).stat().st_mtime == base.asked


def left_over(root: Path, making: Collection[str]) -> list[Path]:
    """What was left half-made or half-removed, but for what is being made."""
    under_way = {beside(root, name) for name in making}
    entries = [entry for entry in root.iterdir() if entry.name.startswith((MAKING, GOING))]
    return [entry for entry in entries if entry not in under_way]


def discard(directory: Path) -> None:
    """Remove a tree, unless something is mounted in it: that would be removed from its place."""
    inside = f"{directory}/".replace(" ", "\\040")
    for line in MOUNTS.read_text().splitlines():
        if line.split()[4].startswith(inside):
            raise ContainerError(f"{directory} is not removed: {line.split()[4]} is mounted in it")
    files.remove(directory)
