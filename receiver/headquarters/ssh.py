"""How the ship logs in to git hosts by ssh: its options, deploy keys, and known host keys."""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import urlsplit

from attrs import frozen

from hooks.layout import Layout

_SSH_URL = re.compile(r"ssh://(?:([^@/]+)@)?([^/:]+)(?::([0-9]+))?(/.*)")
_SCP_LIKE = re.compile(r"([^@/]+)@([^/:]+):(.*)")
_GLOBAL = Path("/etc/ssh/ssh_known_hosts")
_HEADER = 256  # bytes of a file in which a key's header stands
SECONDS = 10  # to connect; and of silence before the other side is asked whether it is there

OPTIONS = (
    *("-F", "none"),
    *("-o", "BatchMode=yes"),
    *("-o", "IdentityAgent=none"),
    *("-o", "ForwardAgent=no"),
    *("-o", "ClearAllForwardings=yes"),
    *("-o", "HashKnownHosts=no"),
    *("-o", "UpdateHostKeys=no"),
    *("-o", f"ConnectTimeout={SECONDS}"),
    *("-o", f"ServerAliveInterval={SECONDS}"),
    *("-o", "ServerAliveCountMax=2"),
)


@frozen
class Login:
    """Whom to log in as, and where. `port` is "" for ssh's own."""

    user: str
    host: str
    port: str = ""

    @property
    def argv(self) -> list[str]:
        """What ssh takes to mean it."""
        port = ["-p", self.port] if self.port else []
        user = ["-l", self.user] if self.user else []
        return [*port, *user, "--", self.host]

    @property
    def recorded_as(self) -> str:
        """The name of the host in a known_hosts file."""
        host = self.host.lower()
        return f"[{host}]:{self.port}" if self.port not in ("", "22") else host


def parted(url: str) -> tuple[Login, str] | None:
    """The login and the path on the host that an ssh URL names; `None` for any other URL."""
    if match := _SSH_URL.fullmatch(url):
        user, host, port, path = match.groups()
        return Login(user or "", host, port or ""), path.removeprefix("/~/")
    if match := _SCP_LIKE.fullmatch(url):
        user, host, path = match.groups()
        return Login(user, host), path
    return None


def host_of(url: str) -> str:
    """The host that a URL names; "" for a path."""
    if login := parted(url):
        return login[0].recorded_as
    return urlsplit(url).netloc.lower()


def options(layout: Layout, login: Login | None) -> list[str]:
    """ssh's options for a git host: the ship's keys alone if it has any, no agent, no question.

    A host key is taken on trust and recorded when the host shows it first. Once one is recorded,
    whatever its type, the host must show that one.
    """
    keys = list(deploy_keys(layout.private_keys))
    files = (layout.known_hosts, layout.standing / "known_hosts")
    known = login is not None and is_known(login.recorded_as, (*files, _GLOBAL))
    quoted = " ".join(f'"{file}"' for file in files)
    return [
        *OPTIONS,
        *("-o", f"UserKnownHostsFile={quoted}"),
        *("-o", f"StrictHostKeyChecking={'yes' if known else 'accept-new'}"),
        *("-o", f"IdentitiesOnly={'yes' if keys else 'no'}"),
        *(word for key in keys for word in ("-i", str(key))),
    ]


def deploy_keys(directory: Path) -> Iterator[Path]:
    """The files that hold a private key; ssh takes none that others may read, so nobody may."""
    for path in sorted(directory.glob("*")):
        if path.is_file() and b"PRIVATE KEY" in _beginning(path):
            if path.stat().st_mode & 0o077:
                path.chmod(0o600)
            yield path


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEADER)
    except OSError:
        return b""


def is_known(host: str, files: tuple[Path, ...]) -> bool:
    """Whether one of the known_hosts files has a key for `host`, as sshd(8) describes them."""
    return any(_names(line, host) for file in files for line in _lines(file))


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []


def _names(line: str, host: str) -> bool:
    names = line.partition(" ")[0]
    if names.startswith("|1|"):
        return _hashed(names, host)
    patterns = [] if names.startswith(("#", "@")) else names.lower().split(",")
    literal = {pattern: pattern.replace("[", "[[]") for pattern in patterns}
    return any(fnmatchcase(host, literal[pattern]) for pattern in patterns)


def _hashed(name: str, host: str) -> bool:
    try:
        salt, digest = (base64.b64decode(part) for part in name.split("|")[2:])
    except ValueError:
        return False
    return hmac.compare_digest(hmac.digest(salt, host.encode(), "sha1"), digest)
