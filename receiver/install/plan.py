"""What it takes to make a ship of a host: decided here, done by the steps."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from attrs import frozen

from hooks.layout import Layout
from receiver.install.files import Commands, Directory, File, Key, Link, Secret, SettingsFile
from receiver.install.host import Step
from receiver.install.sshd import Sshd
from receiver.install.system import Account, Home, Packages, Quiet, Unit
from receiver.install.version import CURRENT, VERSIONS, Version
from receiver.unit import ROOT

LAYOUT = Layout(ROOT)
SETTINGS = "/etc/starphleet"
PROGRAM = "/usr/local/bin/starphleet"
_ADMIRAL = ("admiral", "/home/admiral")
_MODES = {"/etc/sudoers.d/starphleet": 0o440}
_CHECKS = {"/etc/sudoers.d/starphleet": ("/usr/sbin/visudo", "--check", "--quiet", "--file")}
_READ_IN_PLACE = "usr/share/"  # of the version that runs
# lxc.service is for containers of others that start at boot, and wants lxc-net.service.
_QUIET = (("nginx.service", "nginx-light"), ("lxc.service", "lxc"), ("lxc-net.service", "lxc"))
LEAST = {"debian": (12,), "ubuntu": (22, 4)}


@frozen
class Wish:
    """What the operator wants. `told` are settings that were given, `usual` those of a ship that
    nobody said anything about, `settled` all as they will be; `keys` are owners and their public
    keys; `sshd_port` is where sshd goes if it has the ship's port, `None` to leave it where it is.
    """

    told: Mapping[str, str]
    usual: Mapping[str, str]
    settled: Mapping[str, str]
    ssh_port: int
    sshd_port: int | None
    keys: tuple[tuple[str, str], ...] = ()
    private_key: tuple[str, bytes] | None = None

    @property
    def web_ports(self) -> list[int]:
        both = (int(self.settled[f"STARPHLEET_{kind}_PORT"]) for kind in ("HTTP", "HTTPS"))
        return [port for port in both if port]


def unsupported(release: Mapping[str, str]) -> str:
    """Why no ship is made of a host with this os-release; "" if one is."""
    name = release.get("PRETTY_NAME") or release.get("ID") or "something unknown"
    least = LEAST.get(release.get("ID", ""))
    wanted = "a ship needs Debian 12 or Ubuntu 22.04, or newer"
    if least is None:
        return f"{wanted}; this is {name}"
    version = release.get("VERSION_ID", "")  # none: not released yet
    numbers = tuple(int(part) for part in version.split(".") if part.isdigit())
    return f"{wanted}; this is {name}" if numbers and numbers < least else ""


def steps(
    wish: Wish,
    version: Version,
    packages: Sequence[str],
    *,
    answers: Callable[[], bool],
    down: Callable[[], object],
    brought: frozenset[str] = frozenset(),
) -> tuple[Step, ...]:
    """In the order in which they are done; taken back in the opposite one. `brought` are packages
    that an installation installed."""
    overlay = version.clone / "overlay"
    return (
        Directory(str(LAYOUT.root), 0o711, data=True, keeps=LAYOUT.working.name),
        Packages(overlay / "usr/share/starphleet/packages", tuple(packages)),
        *(Quiet(unit, package, brought) for unit, package in _QUIET),
        Account(*_ADMIRAL),
        Home(*_ADMIRAL),
        Directory("/opt/starphleet", 0o755),
        Directory(VERSIONS, 0o755),
        version,
        Link(CURRENT, version.path),
        Directory("/etc/starphleet.d", 0o750),
        SettingsFile(SETTINGS, (overlay / SETTINGS[1:]).read_text(), wish.told, wish.usual),
        *(Key(LAYOUT, owner, text) for owner, text in wish.keys),
        *_private_key(wish),
        *laid(overlay),
        Commands(PROGRAM, _commands(version.clone)),
        *_sshd(wish),
        Unit(answers, down),
    )


def laid(overlay: Path) -> Iterable[File]:
    """The files of the overlay, which is an image of `/`; those that a version reads where they
    are, and the settings, are not laid."""
    for place in sorted(overlay.rglob("*")):
        path = f"/{place.relative_to(overlay)}"
        if place.is_file() and path != SETTINGS and not path[1:].startswith(_READ_IN_PLACE):
            mode = _MODES.get(path, 0o755 if place.stat().st_mode & 0o100 else 0o644)
            yield File(path, place.read_bytes(), mode, _CHECKS.get(path, ()))


def _private_key(wish: Wish) -> Iterable[Secret]:
    if wish.private_key is not None:
        name, content = wish.private_key
        yield Secret(str(LAYOUT.private_keys / name), content)


def _sshd(wish: Wish) -> Iterable[Sshd]:
    if wish.sshd_port is not None:
        yield Sshd(wish.ssh_port, wish.sshd_port)


def _commands(clone: Path) -> tuple[str, ...]:
    """The other names of `starphleet`."""
    scripts = tomllib.loads((clone / "pyproject.toml").read_text())["project"]["scripts"]
    return tuple(sorted(name for name in scripts if name != "starphleet"))


def notes(wish: Wish, *, booted: bool, user: str, sshd: int | None, offered: str) -> list[str]:
    """What whoever installs has to know. `user` is their account here, `sshd` the port that sshd
    was moved to, `offered` a file of keys if nobody may log in yet."""
    host = wish.settled["STARPHLEET_HOST"]
    at = f"-p {wish.ssh_port} " if wish.ssh_port != 22 else ""
    ports = [str(port) for port in (wish.ssh_port, *wish.web_ports)]
    said = [
        f"The ship is reached as {host}: ssh {at}admiral@{host}, and",
        f"  git remote add ship ssh://git@{host}{f':{at[3:-1]}' if at else ''}/NAME",
        f"  Is that not its name out there, set STARPHLEET_HOST in {SETTINGS}.",
        f"No firewall was touched: let ports {', '.join(ports)} through.",
    ]
    if sshd is not None:
        said += [
            f"sshd of the host is on port {sshd}: ssh -p {sshd} {user}@{host}",
            "  Try that from elsewhere before you leave; sessions that are open go on.",
        ]
    if offered:
        said.append(f"Let somebody in: sudo starphleet key add {user} {offered}")
    if not booted:
        said.append("No systemd runs here: the ship starts when this system is booted.")
    return said
