"""The words for the host, and for whoever works on it: git, the demo, the installation, keys."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from hooks.errors import ShipError
from receiver import local
from receiver.config import Config
from receiver.install import options
from receiver.manual import Command
from receiver.ssh.interface import Rank


def of_the_host(command: Command) -> None:
    git = command("git", _git, "git with the ship's keys")
    git.add_argument("words", nargs=argparse.REMAINDER)
    command("demo", _demo, "start the ship and push a sample app to it")
    options.of_install(command("install", _install, "make a ship of this host, as root"))
    options.of_uninstall(command("uninstall", _uninstall, "take back what `install` made"))


def of_keys(command: Command) -> None:
    key = command("key", _keys, "who may log in, and as what")
    key.add_argument("--json", action="store_true", help="for programs")
    actions = key.add_subparsers(title="actions", metavar="ACTION")
    add = actions.add_parser("add", help="let the owner of a public key in, under a name")
    add.add_argument("name")
    add.add_argument("file", help="a public key file, - for standard input")
    ranks = [rank.name.lower() for rank in Rank]
    add.add_argument("--rank", choices=ranks, default="admiral", help="what they may do (admiral)")
    add.set_defaults(run=_add_key)
    remove = actions.add_parser("remove", help="take somebody's keys away")
    remove.add_argument("name")
    remove.set_defaults(run=_remove_key)


def _git(arguments: argparse.Namespace, config: Config) -> int:
    return local.git(config, arguments.words)


def _demo(arguments: argparse.Namespace, config: Config) -> int:
    from receiver.demo import demo

    return demo(config)


def _install(arguments: argparse.Namespace, config: Config) -> int:
    from receiver.install.command import install

    return install(arguments)


def _uninstall(arguments: argparse.Namespace, config: Config) -> int:
    from receiver.install.command import uninstall

    return uninstall(arguments)


def _keys(arguments: argparse.Namespace, config: Config) -> int:
    from receiver import keyring

    directories = (config.layout.authorized_keys, config.layout.admirals)
    if arguments.json:
        print(json.dumps(keyring.told(*directories), indent=2))
    else:
        print("".join(f"{line}\n" for line in keyring.listing(*directories)), end="")
    return 0


def _add_key(arguments: argparse.Namespace, config: Config) -> int:
    from receiver import keyring

    text = sys.stdin.read() if arguments.file == "-" else _read(Path(arguments.file))
    rank = Rank[arguments.rank.upper()]
    for line in keyring.add(config.layout.authorized_keys, arguments.name, text, rank):
        print(line)
    return 0


def _remove_key(arguments: argparse.Namespace, config: Config) -> int:
    from receiver import keyring

    keyring.remove(config.layout.authorized_keys, arguments.name)
    print(f"no key lets {arguments.name} in any more")
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not a text file"
        raise ShipError(f"{path}: {why}") from None
