"""What the ship writes for the checker: who may use which service."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path

from attrs import define, field, frozen
from cattrs.preconf.json import make_converter

from proxy.certificates import write_private
from proxy.protection import Crew, LdapServer, Protection

_values = make_converter()


@frozen
class Guards:
    """Protections by service; members of groups and directories of users by name; who has a key
    of the ship."""

    services: Mapping[str, Protection] = field(factory=dict)
    groups: Mapping[str, tuple[str, ...]] = field(factory=dict)
    ldap_servers: Mapping[str, LdapServer] = field(factory=dict)
    crew: Crew = Crew()


def place(prefix: Path) -> Path:
    """The directory of the checker under nginx's prefix."""
    return prefix / "guard"


def write(prefix: Path, guards: Guards) -> None:
    """Whole or not at all, and for its owner alone. Raises `OSError`."""
    write_private(place(prefix) / "guards.json", _values.dumps(guards).encode())


def own_key(prefix: Path) -> bytes:
    """The ship's own key, made when there is none."""
    file = place(prefix) / "key"
    if not file.exists():
        write_private(file, secrets.token_bytes(32))
    return file.read_bytes()


@define(eq=False)
class Reader:
    """Gives what was written last: who asks after a `write` has it. Raises `OSError`."""

    prefix: Path
    _seen: tuple[int, int, int] | None = None
    _guards: Guards = field(factory=Guards)

    def __call__(self) -> Guards:
        file = place(self.prefix) / "guards.json"
        found = file.stat()
        seen = (found.st_mtime_ns, found.st_ino, found.st_size)
        if seen != self._seen:
            self._guards, self._seen = _values.loads(file.read_bytes(), Guards), seen
        return self._guards
