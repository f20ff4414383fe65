"""What all containers of a ship share, below one directory: a layer of mount points, the seccomp
profiles, the host's name servers, and which network is theirs."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from ipaddress import IPv4Network
from pathlib import Path

from attrs import evolve, field, frozen

from containers import files
from containers.boxing import DEFAULT_USER
from containers.interface import ContainerError, Mount
from containers.lxc import config, network
from containers.lxc.idmap import ROOT_OUTSIDE

NAME_SERVERS = Path("/etc/resolv.conf")
BEHIND_STUB = Path("/run/systemd/resolve/resolv.conf")
_STUB = re.compile(r"(?m)^\s*nameserver\s+(127\.|::1\s*$)")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


@frozen
class Ground:
    """`directory` and the parts of it."""

    directory: Path
    _copied: set[Path] = field(factory=set)

    @property
    def layer(self) -> Path:
        """Above every base: mount points that are no symlinks, the host's certificates."""
        return self.directory / "layer"

    @property
    def resolv(self) -> Path:
        return self.directory / "resolv.conf"

    @property
    def bases(self) -> Path:
        return self.directory / "bases"

    def seccomp(self, *, root: bool) -> Path:
        return self.directory / ("seccomp-root" if root else "seccomp")

    def prepare(self) -> None:
        """Make what is missing, bring up to date what may have changed. Blocks."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o711)
        for part in ("", "etc", "app", "var", "var/data"):
            _directory(self.layer / part)
        for part in ("etc/hosts", "etc/hostname", "etc/resolv.conf"):
            _file(self.layer / part, b"")
        if CERTIFICATES.is_file():
            for part in ("etc/ssl", "etc/ssl/certs"):
                _directory(self.layer / part)
            _file(self.layer / CERTIFICATES.relative_to("/"), CERTIFICATES.read_bytes())
        _write(self.resolv, name_servers().encode())
        for root in (False, True):
            _write(self.seccomp(root=root), config.seccomp(user_namespaces=root).encode())

    def seen(self, mount: Mount) -> Mount:
        """`mount` with a source that containers can reach: a copy, where only root can go. What is
        for the user of services alone, such as a build's settings, is shown as it is.

        Raises `ContainerError` if it is to be written to. Blocks while it copies: what is mounted
        from such places, the provided buildpacks and certificates, is small.
        """
        closed = closed_to_others(mount.source)
        if closed is None or (closed == mount.source and _of_services(closed)):
            return mount
        if mount.writable:
            raise ContainerError(f"{mount.source}: {unreachable(closed)}")
        copy = self.directory / "seen" / hashlib.sha256(str(mount.source).encode()).hexdigest()
        if copy not in self._copied:
            _copy(mount.source, copy)
            self._copied.add(copy)
        return evolve(mount, source=copy)

    def network(self, wanted: IPv4Network | None, tag: str) -> IPv4Network:
        """The ship's network: `wanted`, else the one it had, else one that nobody here uses."""
        note = self.directory / "network"
        had = network.read_network(note.read_text().strip()) if note.exists() else None
        taken = network.taken_networks(tag)
        if wanted is not None and any(wanted.overlaps(other) for other in taken):
            raise ContainerError(f"STARPHLEET_NETWORK: {wanted} is in use on this host")
        chosen = wanted or had
        if chosen is None or (wanted is None and _has_lost(chosen, tag, taken)):
            chosen = network.choose(self.directory, taken)
        _write(note, f"{chosen}\n".encode())
        return chosen


def closed_to_others(path: Path) -> Path | None:
    """The first directory on the way to `path` that only its owner and group may enter."""
    ways = [*reversed(path.resolve().parents), *([path] if path.is_dir() else [])]
    return next((one for one in ways if not one.stat().st_mode & 0o001), None)


def _has_lost(had: IPv4Network, tag: str, taken: Sequence[IPv4Network]) -> bool:
    """Whether somebody has taken the network of a ship that was down. A wider one is no matter:
    the ship's bridges go before it."""
    return not network.is_made(tag) and any(other.subnet_of(had) for other in taken)


def _of_services(path: Path) -> bool:
    """Whether it is of the user that services run as, who may enter what nobody else may."""
    return path.stat().st_uid == DEFAULT_USER.uid


def unreachable(closed: Path) -> str:
    return f"containers cannot enter {closed}: chmod o+x, or keep the ship elsewhere"


def name_servers() -> str:
    """`/etc/resolv.conf`, or what is behind it where it names a stub on the host's loopback."""
    for path in (NAME_SERVERS, BEHIND_STUB):
        if path.is_file() and not _STUB.search(text := path.read_text()):
            return text
    return ""


def _copy(source: Path, copy: Path) -> None:
    """Anew each time, and for everybody to read."""
    new = copy.with_name(f"{copy.name}.new")
    for old in (new, copy):
        if old.is_dir():
            files.remove(old)
        else:
            old.unlink(missing_ok=True)
    copy.parent.mkdir(exist_ok=True)
    copy.parent.chmod(0o711)
    if source.is_dir():
        shutil.copytree(source, new, symlinks=True)
    else:
        shutil.copyfile(source, new)
    for path in (new, *new.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(0o755 if path.is_dir() or mode & 0o100 else 0o644)
    new.rename(copy)


def _directory(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o755)
    os.chown(path, ROOT_OUTSIDE.uid, ROOT_OUTSIDE.gid)


def _file(path: Path, data: bytes) -> None:
    _write(path, data)
    os.chown(path, ROOT_OUTSIDE.uid, ROOT_OUTSIDE.gid)


def _write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; one that is as it should be is left alone."""
    if path.exists() and path.read_bytes() == data:
        return
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(data)
    new.chmod(0o644)
    new.rename(path)
