"""A container's own directory: what it is made of, and its layers, made whole or not at all.

NAME/made.json       the layers below, and which network it is in
NAME/build/          what builds wrote; `build/app` is the app: the layer below the release
NAME/release/upper/  what the service writes: the topmost layer; bounded, it is in release.img
NAME/tmp/            /tmp of builds
NAME/address         its own, from its service's first start
NAME/run/, service/  what the ship wrote for LXC
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

from attrs import frozen

from containers import files
from containers.boxing import DEFAULT_USER
from containers.interface import Container, ContainerError
from containers.lxc.idmap import ROOT_OUTSIDE

SPEC = "made.json"
OPAQUE = "user.overlay.opaque"  # overlayfs does not look below a directory that has it
BUILD, RELEASE = "build", "release"
IMAGE = "release.img"  # a file system for the release, where it is bounded
COMMAND, SERVICE = "run", "service"
ADDRESS = "address"


@frozen
class Made:
    """Of what a container is made: its base's layers, topmost first; its network; how many bytes
    its service may write, if that is bounded."""

    layers: tuple[Path, ...]
    ordered: bool
    disk: int | None = None


def upper(layer: Path) -> Path:
    """Where the files of a layer are that is written to."""
    return layer / "upper"


def container_of(root: Path, name: str) -> Container:
    """Raises `ContainerError` for what is no name."""
    container = files.container_of(root, name)
    return Container(name, container.directory, upper(container.directory / BUILD) / "app")


def make(container: Container, made: Made) -> None:
    """Make its directory under another name, then rename it. Finds an existing one. Blocks."""
    if container.directory.is_dir():
        return
    new = container.directory.parent / (files.MAKING + container.name)
    files.remove(new)
    new.mkdir()
    for place in (COMMAND, SERVICE):
        (new / place).mkdir()
    for layer in (new / BUILD, new / RELEASE):
        for part in (layer, upper(layer)):
            part.mkdir()
            part.chmod(0o755)
            os.chown(part, ROOT_OUTSIDE.uid, ROOT_OUTSIDE.gid)  # LXC makes `work` beside it
    for part in (upper(new / BUILD) / "app", new / "tmp"):
        part.mkdir(mode=0o700)
        os.chown(part, DEFAULT_USER.uid, DEFAULT_USER.gid)
    layers = [str(layer) for layer in made.layers]
    spec = {"layers": layers, "ordered": made.ordered, "disk": made.disk}
    (new / SPEC).write_text(json.dumps(spec) + "\n")
    # The directory itself stays the ship's: what runs inside cannot forge the ship's records.
    new.chmod(0o711)
    new.rename(container.directory)


def is_made(directory: Path) -> bool:
    """Whether a container's directory is one of this runtime."""
    return (directory / SPEC).exists()


def read(container: Container) -> Made:
    """Raises `ContainerError` when there is none, or one of another runtime."""
    try:
        found = json.loads((container.directory / SPEC).read_text())
        return Made(tuple(map(Path, found["layers"])), bool(found["ordered"]), found["disk"])
    except (FileNotFoundError, NotADirectoryError):
        raise ContainerError(f"there is no container {container.name}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ContainerError(f"container {container.name}: its {SPEC} is broken") from error


def cover(container: Container) -> None:
    """Let nothing of a base's /app be seen below the app that was built."""
    os.setxattr(container.app, OPAQUE, b"y")


def address(directory: Path) -> IPv4Address | None:
    with suppress(OSError, ValueError):
        return IPv4Address((directory / ADDRESS).read_text().strip())
    return None


def keep_address(directory: Path, given: IPv4Address) -> None:
    (directory / ADDRESS).write_text(f"{given}\n")


def prepare_base(directory: Path, file: Path, script: bytes) -> None:
    """Let LXC work beside the layer that is alone in `directory`, and write the script there."""
    os.chown(directory, ROOT_OUTSIDE.uid, ROOT_OUTSIDE.gid)  # LXC makes `work` there
    (directory / COMMAND).mkdir()
    file.write_bytes(script)
    file.chmod(0o755)


def used_layers(root: Path, names: Sequence[str]) -> set[Path]:
    """The layers that these containers stand on."""
    found: set[Path] = set()
    for name in names:
        try:
            found.update(read(container_of(root, name)).layers)
        except ContainerError:
            continue
    return found
