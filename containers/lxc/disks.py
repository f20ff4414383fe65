"""A bound on what a service writes: its topmost layer in a file system of its own, in a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from containers.interface import ContainerError, Limits
from containers.lxc import made
from containers.lxc.idmap import ROOT_OUTSIDE
from containers.sandbox import SYSTEM_PATH
from containers.spawn import run

SECONDS = 60.0
MOUNTS = Path("/proc/self/mountinfo")
LEAST = 16 << 20  # bytes: less than that holds no file system worth the name


async def bound(reactor: Any, directory: Path, size: int) -> None:
    """Put the topmost layer of the container in `directory` into a file system of `size` bytes,
    unless it is in it already."""
    image, release = directory / made.IMAGE, directory / made.RELEASE
    if not image.exists():
        making = image.with_suffix(".new")
        await make(reactor, making, size)
        making.rename(image)
    await mount(reactor, image, release)
    lay_upper(release)


async def make(reactor: Any, image: Path, size: int) -> None:
    """A file system of `size` bytes, of which only what is written takes room on the disk."""
    if size < LEAST:
        raise ContainerError(f"STARPHLEET_DISK: at least {LEAST >> 20}M")
    with image.open("wb") as file:
        file.truncate(size)
    owner = f"root_owner={ROOT_OUTSIDE.uid}:{ROOT_OUTSIDE.gid}"
    await _tool(reactor, "mkfs.ext4", "-q", "-F", "-m", "0", "-E", owner, str(image))
    await _tool(reactor, "sync", str(image))


async def mount(reactor: Any, image: Path, at: Path) -> None:
    """Mount it at `at` if it is not; after a reboot it is not."""
    if not is_mounted(at):
        await _tool(reactor, "mount", "-o", "loop,nosuid,nodev", str(image), str(at))


async def unmount(reactor: Any, at: Path) -> None:
    """Unmount what is mounted at `at`, if anything."""
    if is_mounted(at):
        await _tool(reactor, "umount", str(at))


def is_mounted(at: Path) -> bool:
    wanted = str(at).replace("\\", r"\134").replace(" ", r"\040")
    return any(line.split()[4] == wanted for line in MOUNTS.read_text().splitlines())


def lay_upper(release: Path) -> None:
    """The layer itself, in a file system that was mounted for the first time."""
    upper = release / "upper"
    if not upper.is_dir():
        upper.mkdir()
        upper.chmod(0o755)
        os.chown(upper, ROOT_OUTSIDE.uid, ROOT_OUTSIDE.gid)


async def _tool(reactor: Any, *words: str) -> None:
    limits = Limits(seconds=SECONDS)
    done = await run(reactor, words, env={"PATH": SYSTEM_PATH}, limits=limits)
    if not done.exit.ok:
        said = done.output.decode("utf-8", "replace").strip().splitlines()
        why = done.exit.reason or (said or ["it failed"])[0]
        raise ContainerError(f"STARPHLEET_DISK cannot be kept on this host: {words[0]}: {why}")
