"""The `starphleet` command."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from hooks.errors import ShipError
from receiver import keyring, local
from receiver.config import Config, load
from receiver.demo import demo

_ABOUT = """\
A git-push deploy server for your own hosts. A ship is a host:

  starphleet up                     start the ship on this machine
  starphleet key add NAME FILE.pub  let somebody push
  git push ship master              build, check and serve what is committed
"""
_SETTINGS = """\
Settings are environment variables, or NAME=value lines in the file `settings` in the ship's root:
  STARPHLEET_ROOT         where everything is kept (/var/starphleet for root)
  STARPHLEET_HOST         the name people reach the ship by (localhost)
  STARPHLEET_BIND         the address to listen on (loopback while the host is localhost, else all)
  STARPHLEET_SSH_PORT     2222       STARPHLEET_HTTP_PORT    8080
  STARPHLEET_TEST_DOMAIN  a domain whose every sub-domain leads here
  STARPHLEET_TEST_TTL     how long a pushed service lives (24h)
docs/settings.md has all of them.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, 1 for a refusal in one line, 2 for wrong words."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments, load()))
    except ShipError as error:
        print(f"starphleet: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "starphleet", description=_ABOUT, epilog=_SETTINGS, formatter_class=raw
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: object, about: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=about, description=about)
        added.set_defaults(run=run)
        return added

    command("ship", _ship, "run the ship in the foreground; Ctrl-C stops it and what it serves")
    command("up", _up, "start the ship in the background; does nothing when it runs")
    command("down", _down, "stop the ship and what it serves; `up` brings all of it back")
    status = command("status", _status, "what the ship serves, builds and makes wait")
    status.add_argument("--json", action="store_true", help="for programs")
    command("demo", _demo, "start the ship and push a sample app to it")
    key = command("key", _keys, "who may push")
    key.set_defaults(name=None)
    actions = key.add_subparsers(title="actions", metavar="ACTION")
    add = actions.add_parser("add", help="let the owner of a public key push, under a name")
    add.add_argument("name")
    add.add_argument("file", help="a public key file, - for standard input")
    add.set_defaults(run=_add_key)
    remove = actions.add_parser("remove", help="take somebody's keys away")
    remove.add_argument("name")
    remove.set_defaults(run=_remove_key)
    return parser


def _ship(arguments: argparse.Namespace, config: Config) -> int:
    return local.foreground(config)


def _up(arguments: argparse.Namespace, config: Config) -> int:
    local.up(config)
    print("\n".join(local.welcome(config)))
    return 0


def _down(arguments: argparse.Namespace, config: Config) -> int:
    print("the ship is down" if local.down(config) else "no ship runs here")
    return 0


def _status(arguments: argparse.Namespace, config: Config) -> int:
    status = local.status(config)
    if status is None:
        print("no ship runs here: starphleet up", file=sys.stderr)
        return 1
    print(json.dumps(status, indent=2) if arguments.json else local.shown(config, status))
    return 0


def _demo(arguments: argparse.Namespace, config: Config) -> int:
    return demo(config)


def _keys(arguments: argparse.Namespace, config: Config) -> int:
    for line in keyring.listing(config.layout.authorized_keys):
        print(line)
    return 0


def _add_key(arguments: argparse.Namespace, config: Config) -> int:
    text = sys.stdin.read() if arguments.file == "-" else _read(Path(arguments.file))
    for line in keyring.add(config.layout.authorized_keys, arguments.name, text):
        print(line)
    return 0


def _remove_key(arguments: argparse.Namespace, config: Config) -> int:
    keyring.remove(config.layout.authorized_keys, arguments.name)
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not a text file"
        raise ShipError(f"{path}: {why}") from None


if __name__ == "__main__":
    sys.exit(main())
