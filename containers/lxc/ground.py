"""What all containers of a ship share, below one directory: a layer of mount points, the seccomp
profiles, the host's name servers, and which network is theirs."""

from __future__ import annotations

import os
from ipaddress import IPv4Network
from pathlib import Path

from attrs import frozen

from containers.interface import ContainerError
from containers.lxc import config, network
from containers.lxc.idmap import ROOT_OUTSIDE

NAME_SERVERS = Path("/etc/resolv.conf")
BEHIND_STUB = Path("/run/systemd/resolve/resolv.conf")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


@frozen
class Ground:
    """`directory` and the parts of it."""

    directory: Path

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

    def network(self, wanted: IPv4Network | None, tag: str) -> IPv4Network:
        """The ship's network: `wanted`, else the one it had, else one that nobody here uses."""
        note = self.directory / "network"
        if wanted is None and note.exists():
            return network.read_network(note.read_text().strip())
        taken = network.taken_networks(tag)
        if wanted is not None and any(wanted.overlaps(other) for other in taken):
            raise ContainerError(f"STARPHLEET_NETWORK: {wanted} is in use on this host")
        chosen = wanted or network.choose(self.directory, taken)
        _write(note, f"{chosen}\n".encode())
        return chosen


def name_servers() -> str:
    """`/etc/resolv.conf`, or what is behind it where it names a stub on the host's loopback."""
    for path in (NAME_SERVERS, BEHIND_STUB):
        if path.is_file() and "nameserver 127." not in (text := path.read_text()):
            return text
    return ""


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
