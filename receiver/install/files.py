"""Steps that are files: of the overlay, of settings, of keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from hooks.environment import read_env_file
from hooks.layout import Layout
from receiver import keyring
from receiver.install.host import Host, differs, put, remove

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,~#*-]*")


@frozen
class Directory:
    """`keeps` is what in it is somebody's work, and stays when the rest goes."""

    path: str
    mode: int
    data: bool = False
    keeps: str = ""

    @property
    def name(self) -> str:
        return f"directory {self.path}"

    def lacking(self, host: Host) -> str:
        place = host.at(self.path)
        if not place.is_dir():
            return f"make {self.path}"
        right = place.stat().st_mode & 0o7777 == self.mode
        return "" if right else f"give {self.path} the mode {self.mode:o}"

    def do(self, host: Host) -> None:
        host.at(self.path).mkdir(parents=True, exist_ok=True)
        host.at(self.path).chmod(self.mode)

    def undo(self, host: Host) -> None:
        """What others put there goes with it only where it is the ship's data. A disk that is
        mounted there is emptied."""
        place = host.at(self.path)
        work = place / self.keeps
        kept = bool(self.keeps) and work.is_dir() and any(work.iterdir())
        if self.data and (kept or place.is_mount()):
            for entry in place.iterdir():
                if not kept or entry != work:
                    remove(entry)
        elif self.data:
            remove(place)
        elif place.is_dir() and not any(place.iterdir()):
            place.rmdir()


@frozen
class File:
    """`check` is a program that must like it before it is there."""

    path: str
    content: bytes
    mode: int = 0o644
    check: tuple[str, ...] = ()
    data: bool = False

    @property
    def name(self) -> str:
        return f"file {self.path}"

    def lacking(self, host: Host) -> str:
        return differs(host, self.path, self.content, self.mode)

    def do(self, host: Host) -> None:
        put(host, self.path, self.content, self.mode, self.check)

    def undo(self, host: Host) -> None:
        host.at(self.path).unlink(missing_ok=True)


@frozen
class Link:
    path: str
    target: str
    data: bool = False

    @property
    def name(self) -> str:
        return f"link {self.path}"

    def lacking(self, host: Host) -> str:
        place = host.at(self.path)
        right = place.is_symlink() and str(place.readlink()) == self.target
        return "" if right else f"let {self.path} lead to {self.target}"

    def do(self, host: Host) -> None:
        place = host.at(self.path)
        growing = place.with_name(f".{place.name}.new")
        growing.unlink(missing_ok=True)
        growing.symlink_to(self.target)
        growing.replace(place)

    def undo(self, host: Host) -> None:
        place = host.at(self.path)
        if place.is_symlink() and str(place.readlink()) == self.target:
            place.unlink()


@frozen
class Commands:
    """Other names of a program, beside it."""

    program: str
    names: tuple[str, ...]
    data: bool = False
    name: str = "names of commands"

    def lacking(self, host: Host) -> str:
        missing = [link for link in self._links if link.lacking(host)]
        return f"give {self.program} {len(missing)} of its names" if missing else ""

    def do(self, host: Host) -> None:
        for link in self._links:
            link.do(host)

    def undo(self, host: Host) -> None:
        for link in self._links:
            link.undo(host)

    @property
    def _links(self) -> list[Link]:
        place = Path(self.program)
        return [Link(str(place.with_name(name)), place.name) for name in self.names]


@frozen
class SettingsFile:
    """The operator's own file: `seed` is what it begins with, `told` is set in it, and `usual`
    where it says nothing. What else it says stays."""

    path: str
    seed: str
    told: Mapping[str, str]
    usual: Mapping[str, str]
    mode: int = 0o640
    data: bool = False

    @property
    def name(self) -> str:
        return f"settings {self.path}"

    def lacking(self, host: Host) -> str:
        return differs(host, self.path, self._wanted(host).encode(), self.mode)

    def do(self, host: Host) -> None:
        put(host, self.path, self._wanted(host).encode(), self.mode)

    def undo(self, host: Host) -> None:
        host.at(self.path).unlink(missing_ok=True)

    def _wanted(self, host: Host) -> str:
        place = host.at(self.path)
        text = place.read_text() if place.is_file() else self.seed
        there = read_env_file(text, self.path)
        usual = {name: value for name, value in self.usual.items() if name not in there}
        return with_settings(text, {**usual, **self.told})


def with_settings(text: str, wanted: Mapping[str, str]) -> str:
    """`text`, lines of NAME=value, saying what is wanted; every other line as it is."""
    said = read_env_file(text, "")
    new = {name: value for name, value in wanted.items() if said.get(name) != value}
    kept = [
        line
        for line in text.splitlines()
        if line.partition("=")[0].removeprefix("export ").strip() not in new
    ]
    lines = [*kept, *(f"{name}={_quoted(value)}" for name, value in new.items())]
    return "".join(f"{line}\n" for line in lines)


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


@frozen
class Key:
    """The first keys of a ship; `text` as in a file of public keys."""

    layout: Layout
    owner: str
    text: str
    data: bool = True

    @property
    def name(self) -> str:
        return f"key of {self.owner}"

    def lacking(self, host: Host) -> str:
        place = self._place(host)
        wanted = [line for line in self.text.splitlines() if line.strip() and line[0] != "#"]
        there = place.read_text().splitlines() if place.is_file() else []
        return "" if there == wanted else f"let {self.owner} in, as an admiral"

    def do(self, host: Host) -> None:
        self._place(host).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        keyring.add(self._place(host).parent, self.owner, self.text)

    def undo(self, host: Host) -> None:
        self._place(host).unlink(missing_ok=True)

    def _place(self, host: Host) -> Path:
        return host.at(str(self.layout.authorized_keys / self.owner))


@frozen
class Secret:
    """A private key that git hosts know, for the ship alone."""

    path: str
    content: bytes
    data: bool = True

    @property
    def name(self) -> str:
        return f"private key {self.path}"

    def lacking(self, host: Host) -> str:
        return differs(host, self.path, self.content, 0o600)

    def do(self, host: Host) -> None:
        host.at(self.path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        put(host, self.path, self.content, 0o600)

    def undo(self, host: Host) -> None:
        host.at(self.path).unlink(missing_ok=True)
