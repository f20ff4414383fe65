"""Steps that are the system's own: packages, accounts, what systemd starts, the ship's unit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from hooks.errors import ShipError
from hooks.say import clean
from receiver.install.host import Host, remove
from receiver.unit import NAME as UNIT
from receiver.unit import PLACE

PACKAGES = "packages"
_READ_AT_START = ("version", "link /opt/", "settings", "private key", "file /etc/systemd/")


@frozen
class Packages:
    """Debian packages, by the script that knows which of them a host has in another way."""

    script: Path
    packages: tuple[str, ...]
    data: bool = False
    name: str = PACKAGES

    def lacking(self, host: Host) -> str:
        missing = host.run(str(self.script), "--missing", *self.packages).split()
        return f"install {' '.join(missing)}" if missing else ""

    def do(self, host: Host) -> None:
        host.run(str(self.script), *self.packages)

    def undo(self, host: Host) -> None:
        """They stay: something else may have come to need them."""


@frozen
class Quiet:
    """A unit that comes with a package, and that the ship does not want at the next boot. One that
    runs is somebody's and is left alone. `brought` are packages that the installation itself
    installed: what came with those was not there before."""

    unit: str
    package: str
    brought: frozenset[str] = frozenset()
    data: bool = False

    @property
    def name(self) -> str:
        return f"unit {self.unit}"

    def lacking(self, host: Host) -> str:
        enabled = host.systemctl("is-enabled", self.unit).text.strip() == "enabled"
        runs = host.booted and host.systemctl("is-active", self.unit).status == 0
        return f"do not start {self.unit} at boot" if enabled and not runs else ""

    def do(self, host: Host) -> None:
        host.system("disable", self.unit)

    def undo(self, host: Host) -> None:
        if self.package in self.brought:
            return
        if "disabled" in host.systemctl("is-enabled", self.unit).text:
            host.system("enable", self.unit)


@frozen
class Account:
    """Somebody who logs in by keys alone."""

    account: str
    home: str
    data: bool = False

    @property
    def name(self) -> str:
        return f"account {self.account}"

    def lacking(self, host: Host) -> str:
        there = host.call(["/usr/bin/getent", "passwd", self.account]).status == 0
        return "" if there else f"make it, with {self.home} and no password"

    def do(self, host: Host) -> None:
        words = ["--no-create-home", "--home-dir", self.home, "--shell", "/bin/bash"]
        host.run("/usr/sbin/useradd", *words, "--user-group", self.account)

    def undo(self, host: Host) -> None:
        if host.call(["/usr/bin/getent", "passwd", self.account]).status == 0:
            host.run("/usr/sbin/userdel", "--force", self.account)


@frozen
class Home:
    account: str
    path: str
    data: bool = True

    @property
    def name(self) -> str:
        return f"directory {self.path}"

    def lacking(self, host: Host) -> str:
        return "" if host.at(self.path).is_dir() else f"make {self.path}"

    def do(self, host: Host) -> None:
        host.run("/usr/sbin/mkhomedir_helper", self.account, "0027")

    def undo(self, host: Host) -> None:
        remove(host.at(self.path))


@frozen
class Unit:
    """The ship's own. `answers` says whether the ship does, waiting for it; `down` stops the ship
    and what it serves."""

    answers: Callable[[], bool]
    down: Callable[[], object]
    data: bool = False
    name: str = f"unit {UNIT}"

    def lacking(self, host: Host) -> str:
        if host.systemctl("is-enabled", UNIT).text.strip() != "enabled":
            return "start it, now and at boot" if host.booted else "start it at boot"
        if not host.booted:
            return ""
        if host.systemctl("is-active", UNIT).status != 0:
            return "start it"
        why = [name for name in host.changed if name.startswith(_READ_AT_START)]
        return f"start it anew, for: {', '.join(why)}" if why else ""

    def do(self, host: Host) -> None:
        runs = host.booted and host.systemctl("is-active", UNIT).status == 0
        is_new = host.systemctl("is-enabled", UNIT).text.strip() != "enabled"
        if host.booted:
            host.system("daemon-reload")
        host.system("enable", UNIT)
        if not host.booted:
            return
        started = host.systemctl("restart" if runs else "start", UNIT).status == 0
        if not (started and self.answers()):
            last = _last_words(host)
            if is_new:  # it serves nothing yet, and would try for ever
                _give_up(host)
            raise ShipError(f"the ship does not answer: {last}journalctl -u {UNIT} says more")

    def undo(self, host: Host) -> None:
        """Nothing of it runs any more. What a ship that is stopped left serving, it takes over
        first, for it knows best how to stop it."""
        if not host.at(str(PLACE)).is_file():
            return
        if host.booted:
            host.systemctl("start", UNIT)
            self.answers()
            self.down()
            host.systemctl("stop", UNIT)
        host.system("disable", UNIT)


def _last_words(host: Host) -> str:
    """What the ship itself said last, without what systemd says about it."""
    words = ("--identifier=starphleet", "--lines=1", "--output=cat", "--quiet")
    said = host.call(["journalctl", f"--unit={UNIT}", *words]).text.strip()
    return f"{clean(said.removeprefix('starphleet: '))}; " if said else ""


def _give_up(host: Host) -> None:
    host.systemctl("disable", "--now", UNIT)
    host.systemctl("kill", "--kill-whom=all", "--signal=KILL", UNIT)
    host.systemctl("reset-failed", UNIT)
