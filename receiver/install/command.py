"""`starphleet install` and `uninstall`: read what is wanted, and go through the steps."""

from __future__ import annotations

import argparse
import platform
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from hooks.environment import read_env_file
from hooks.errors import Refused
from receiver import keyring, local
from receiver.config import installer, load
from receiver.install import doors, record
from receiver.install.host import Host, Step, this_host
from receiver.install.plan import LAYOUT, SETTINGS, Wish, notes, steps, unsupported
from receiver.install.sshd import moved_to
from receiver.install.system import PACKAGES
from receiver.install.version import CURRENT, Version, has_changes, of_clone

CLONE = Path(__file__).parents[2]
SECONDS = 120.0  # for the ship to answer
USUAL = {
    "STARPHLEET_SSH_PORT": "22",
    "STARPHLEET_HTTP_PORT": "80",
    "STARPHLEET_HTTPS_PORT": "443",
}
SSHD_PORT = 2022
Print = Callable[[str], None]


def _say(line: str) -> None:
    """Print it, if anybody is there: who came over the ship's own SSH leaves when it is stopped."""
    with suppress(OSError):
        print(line, flush=True)


def install(arguments: argparse.Namespace, say: Print = _say) -> int:
    host = _host()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    there = _settings(host)
    version = of_clone(host, CLONE, _interpreter(), installer().environ)
    wish = wish_of(arguments, there, moved_to(host), socket.gethostname(), version.origin)
    _refuse_taken(wish)
    if has_changes(host, CLONE):
        say(f"note: {CLONE} has changes that are not committed; they are not installed")
    todo = _steps(host, wish, version)
    done = go(host, todo, record.read(host, LAYOUT.installed), say, dry=arguments.dry_run)
    say(f"{done} of {len(todo)} steps {'are to be done' if arguments.dry_run else 'done'}")
    if not arguments.dry_run:
        say("")
        for line in _notes(host, wish):
            say(line)
    return 0


def _notes(host: Host, wish: Wish) -> list[str]:
    who, known = installer(), keyring.listing(LAYOUT.authorized_keys)
    offered = "" if known else who.keys or "FILE.pub"
    sshd = moved_to(host)
    return notes(wish, booted=host.booted, user=who.name, sshd=sshd, offered=offered)


def uninstall(arguments: argparse.Namespace, say: Print = _say) -> int:
    host = _host()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    made = record.read(host, LAYOUT.installed)
    wish = wish_of(None, _settings(host), moved_to(host), "localhost", "")
    brought = frozenset(" ".join(made.made.get(PACKAGES, ())).split())
    every = _steps(host, wish, Version(CLONE, _current(host), "", ""), brought)
    undone = record.to_undo(every, made.made, purge=arguments.purge)
    if not undone:
        say("there is nothing that an installation made")
    for step in undone:
        say(f"{'to undo' if arguments.dry_run else 'undoing'}  {step.name}")
        if step.name == PACKAGES:
            say(f"         they stay, for others may need them: {'; '.join(made.made[PACKAGES])}")
        if not arguments.dry_run:
            step.undo(host)
            made.remove(step.name)
    if undone and host.booted and not arguments.dry_run:
        host.system("daemon-reload")
    if made.made and not arguments.dry_run:
        say(f"kept, --purge removes it: {', '.join(made.made)}")
    return 0


def go(host: Host, todo: tuple[Step, ...], made: record.Record, say: Print, *, dry: bool) -> int:
    """Do what is lacking, saying so of each step; how many that were."""
    count = 0
    for step in todo:
        lacking = step.lacking(host)
        say(
            f"{'so already' if not lacking else 'to do' if dry else 'doing':<10}  {step.name}"
            f"{f': {lacking}' if lacking else ''}"
        )
        if not lacking:
            continue
        count += 1
        if not dry:
            step.do(host)
            made.add(step.name, lacking)
        host.changed.append(step.name)
    return count


def wish_of(
    arguments: argparse.Namespace | None,
    there: Mapping[str, str],
    sshd: int | None,
    host: str,
    origin: str,
) -> Wish:
    """What is wanted: what is said now, else what the settings `there` say, else the usual.

    `sshd` is where that was moved before, `host` the name of this one, `origin` that of the clone.
    """
    told = {} if arguments is None else _told(arguments)
    usual = {"STARPHLEET_HOST": host, **USUAL}
    if origin.startswith(("https://", "ssh://", "git@")):
        usual["STARPHLEET_REMOTE"] = origin
    settled = {**usual, **there, **told}
    load({**settled, "STARPHLEET_ROOT": str(LAYOUT.root)})  # refused here, and not at its start
    shared = arguments is not None and arguments.ssh == "shared"
    if shared and sshd is not None:
        raise Refused(
            f"sshd was moved to port {sshd} when the ship got its own: starphleet uninstall gives "
            "that back, and leaves the data; then install with --ssh shared"
        )
    asked = arguments.sshd_port if arguments is not None else None
    ssh_port = int(settled["STARPHLEET_SSH_PORT"])
    stays = shared or (asked is None and sshd is None and ssh_port != 22)
    return Wish(
        told=told,
        usual=usual,
        settled=settled,
        ssh_port=ssh_port,
        sshd_port=None if stays else asked or sshd or SSHD_PORT,
        keys=tuple(_key(given) for given in (arguments.key if arguments is not None else ())),
        private_key=_private_key(arguments),
    )


def _told(arguments: argparse.Namespace) -> dict[str, str]:
    """Settings that were given, by their names."""
    ssh_port = arguments.ssh_port or (2222 if arguments.ssh == "shared" else None)
    given = {
        "STARPHLEET_HOST": arguments.host,
        "STARPHLEET_SSH_PORT": ssh_port,
        "STARPHLEET_HTTP_PORT": arguments.http_port,
        "STARPHLEET_HTTPS_PORT": arguments.https_port,
        "STARPHLEET_HEADQUARTERS": arguments.headquarters,
        "STARPHLEET_REMOTE": arguments.remote,
    }
    told = {name: str(value) for name, value in given.items() if value is not None}
    for one in arguments.set:
        told |= read_env_file(one, "--set")
    if broken := [name for name, value in told.items() if "\n" in value]:
        raise Refused(f"{broken[0]}: a setting is one line")
    return told


def _key(given: Path) -> tuple[str, str]:
    """Whose key it is, and the text of the file."""
    named, equals, path = str(given).partition("=")
    file = Path(path if equals else named).expanduser()
    text = _bytes(file, "--key").decode("utf-8", "replace")
    return (named.partition("@")[0] if equals else owner_of(file)), text


def owner_of(file: Path) -> str:
    """Whose public key a file has: whom it is named for, else who runs this."""
    usual = file.name.startswith(("id_", "authorized_keys"))
    return (installer().name if usual else file.name.removesuffix(".pub")).partition("@")[0]


def _private_key(arguments: argparse.Namespace | None) -> tuple[str, bytes] | None:
    if arguments is None or arguments.private_key is None:
        return None
    file = arguments.private_key.expanduser()
    return file.name, _bytes(file, "--private-key")


def _bytes(file: Path, option: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Refused(f"{option} {file}: {error.strerror}") from None


def _host() -> Host:
    """This one; `Refused` where no ship can be."""
    if not installer().is_root:
        raise Refused("only root makes a ship of a host: sudo starphleet …")
    if why := unsupported(platform.freedesktop_os_release()):
        raise Refused(why)
    if not Path("/usr/bin/systemctl").exists():
        raise Refused("there is no systemd on this host, which is to start the ship")
    return this_host()


def _settings(host: Host) -> dict[str, str]:
    place = host.at(SETTINGS)
    return read_env_file(place.read_text(), SETTINGS) if place.is_file() else {}


def _current(host: Host) -> str:
    """The name of the version that is current."""
    place = host.at(CURRENT)
    return place.readlink().name if place.is_symlink() else ""


def _interpreter() -> str:
    """The system's, where it is new enough: a user's own Python may be out of others' reach."""
    for minor in range(sys.version_info.minor, 10, -1):
        system = Path(f"/usr/bin/python3.{minor}")
        if system.exists():
            return str(system)
    return str(Path(sys.base_prefix) / f"bin/python3.{sys.version_info.minor}")


def _steps(
    host: Host, wish: Wish, version: Version, brought: frozenset[str] = frozenset()
) -> tuple[Step, ...]:
    config = load({"STARPHLEET_ROOT": str(LAYOUT.root)})
    share = CLONE / "overlay/usr/share/starphleet"
    packages = [
        *(share / "packages.ship").read_text().split(),
        *(share / "packages.lxc").read_text().split(),
        "sudo",
    ]

    def answers() -> bool:
        end = time.monotonic() + SECONDS
        while local.status(config) is None:
            if time.monotonic() > end:
                return False
            time.sleep(0.2)
        return True

    down = partial(local.down, config)
    return steps(wish, version, packages, answers=answers, down=down, brought=brought)


def _refuse_taken(wish: Wish) -> None:
    movable = wish.ssh_port if wish.sshd_port is not None else None
    wanted = [wish.ssh_port, *wish.web_ports]
    if trouble := doors.taken(wanted, doors.listeners(), movable=movable):
        raise Refused(f"{'; '.join(trouble)}: stop that, or give the ship another port (--help)")
