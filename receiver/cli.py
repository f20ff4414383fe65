"""The `starphleet` command."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from hooks.errors import ShipError
from hooks.settings import git_address
from receiver import keyring, local, new, shown
from receiver.config import Config, load
from receiver.demo import demo
from receiver.ssh.interface import Rank

_ABOUT = """\
A git-push deploy server for your own hosts. A ship is a host:

  starphleet up                     start the ship on this machine
  starphleet key add NAME FILE.pub  let somebody push
  git push ship master              build, check and serve what is committed
  starphleet new headquarters DIR   a repository that says what ships run; push it to
                                    git@SHIP:headquarters, or starphleet headquarters URL

Commands about services are there as `starphleet-COMMAND` too: starphleet-status and so on.
"""
_OF_A_SERVICE = {
    "redeploy": "remove a service with everything that was built for it, and build it anew",
    "retry-deploy": "build and deploy a service again; what serves goes on until the new one does",
    "stop": "stop a service until `start`",
    "start": "start a service that was stopped",
    "restart": "stop a service and start it again",
}
_SETTINGS = """\
Settings are environment variables, or NAME=value lines in the file `settings` in the ship's root:
  STARPHLEET_ROOT         where everything is kept (/var/starphleet for root)
  STARPHLEET_HOST         the name people reach the ship by (localhost)
  STARPHLEET_BIND         the address to listen on (loopback while the host is localhost, else all)
  STARPHLEET_SSH_PORT     2222
  STARPHLEET_HTTP_PORT    8080       STARPHLEET_HTTPS_PORT   8443, 0 for none
  STARPHLEET_ACME         an e-mail address: certificates by Let's Encrypt
  STARPHLEET_TEST_DOMAIN  a domain whose every sub-domain leads here
  STARPHLEET_TEST_TTL     how long a pushed service lives (24h)
  STARPHLEET_HEADQUARTERS where the headquarters is, until `headquarters` says otherwise
  STARPHLEET_PRIVATE_KEY  the key that the git hosts of the headquarters know
docs/settings.md has all of them.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, 1 for a refusal in one line, 2 for wrong words."""
    arguments = _parser().parse_args(_words(sys.argv) if argv is None else argv)
    try:
        return int(arguments.run(arguments, load()))
    except ShipError as error:
        print(f"starphleet: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _words(argv: Sequence[str]) -> list[str]:
    """The words of `starphleet`, also when it was called as `starphleet-COMMAND`."""
    _, dash, command = Path(argv[0]).name.partition("-")
    return [command, *argv[1:]] if dash else list(argv[1:])


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "starphleet", description=_ABOUT, epilog=_SETTINGS, formatter_class=raw
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: object, about: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=about, description=about)
        added.set_defaults(run=run, command=name)
        return added

    command("ship", _ship, "run the ship in the foreground; Ctrl-C stops it and what it serves")
    command("up", _up, "start the ship in the background; does nothing when it runs")
    command("down", _down, "stop the ship and what it serves; `up` brings all of it back")
    command("reload", _reload, "start the ship's own process anew; what it serves goes on")
    status = command("status", _status, "what the ship serves, builds and makes wait")
    status.add_argument("--json", action="store_true", help="for programs")
    status.add_argument("--trouble", action="store_true", help="only what is not as it should be")
    status.add_argument("service", nargs="?", help="this one alone")
    history = command("history", _history, "every deploy: who, what, why, how long, how it ended")
    history.add_argument("service", nargs="?")
    history.add_argument("--json", action="store_true", help="for programs")
    logs = command("logs", _logs, "the log of a service, or of the ship itself")
    logs.add_argument("service", nargs="?")
    logs.add_argument("-f", "--follow", action="store_true", help="go on as it grows")
    logs.add_argument("-n", "--lines", type=int, default=100, help="how many to begin with (100)")
    new = command("new", _new, "write a headquarters to begin with")
    new.add_argument("what", choices=["headquarters"])
    new.add_argument("directory", type=Path)
    headquarters = command("headquarters", _do, "show where the headquarters is, or set it")
    headquarters.add_argument("url", nargs="?", help="https, ssh or a path; #branch, tag or commit")
    for name, about in _OF_A_SERVICE.items():
        command(name, _do, about).add_argument("service")
    attach = command("attach", _attach, "a shell, or a command, in the container of a service")
    attach.add_argument("service")
    attach.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    backup = command("lxc-backup", _backup, "write a service's container into a file, a .tgz")
    backup.add_argument("service")
    backup.add_argument("file", type=Path)
    restore = command("lxc-restore", _restore, "make a base container of a backup")
    restore.add_argument("name", help="what STARPHLEET_BASE is to call it")
    restore.add_argument("source", help="a file or an https URL")
    command("orphan-reaper", _do, "remove the services whose orders are gone")
    command("poll", _do, "ask now whether anything that is followed has moved")
    command("dns-offline", _do, "let /starphleet/nginx/status say that the ship is not to be asked")
    command("dns-online", _do, "let it say that the ship is there again")
    command("hup-nginx", _do, "give nginx its configuration anew; nothing is interrupted")
    command("restart-nginx", _do, "stop nginx and start it; what is open breaks off")
    git = command("git", _git, "git with the ship's keys")
    git.add_argument("words", nargs=argparse.REMAINDER)
    command("demo", _demo, "start the ship and push a sample app to it")
    key = command("key", _keys, "who may log in, and as what")
    key.set_defaults(name=None)
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


def _attach(arguments: argparse.Namespace, config: Config) -> int:
    local.attach(config, arguments.service, arguments.words)
    return 0


def _backup(arguments: argparse.Namespace, config: Config) -> int:
    words = ["lxc-backup", arguments.service, str(arguments.file.absolute())]
    local.command(config, words, print)
    return 0


def _restore(arguments: argparse.Namespace, config: Config) -> int:
    source = arguments.source
    source = source if "://" in source else str(Path(source).absolute())
    local.command(config, ["lxc-restore", arguments.name, source], print)
    return 0


def _reload(arguments: argparse.Namespace, config: Config) -> int:
    local.reload(config)
    print("\n".join(local.welcome(config)))
    return 0


def _status(arguments: argparse.Namespace, config: Config) -> int:
    status = local.status(config)
    if status is None:
        print("no ship runs here: starphleet up", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(status, indent=2))
        return 0
    address = git_address(config.settings)
    print(shown.status(address, status, arguments.service, trouble=arguments.trouble))
    return 0


def _history(arguments: argparse.Namespace, config: Config) -> int:
    entries = local.history(config, arguments.service)
    print(json.dumps(entries, indent=2) if arguments.json else shown.history(entries))
    return 0


def _logs(arguments: argparse.Namespace, config: Config) -> int:
    local.logs(config, arguments.service, arguments.lines, going_on=arguments.follow)
    return 0


def _new(arguments: argparse.Namespace, config: Config) -> int:
    print("\n".join(new.headquarters(config, arguments.directory)))
    return 0


def _do(arguments: argparse.Namespace, config: Config) -> int:
    """What the ship itself has to do."""
    about = getattr(arguments, "service", None) or getattr(arguments, "url", None)
    local.command(config, [arguments.command, *([about] if about else [])], print)
    return 0


def _git(arguments: argparse.Namespace, config: Config) -> int:
    return local.git(config, arguments.words)


def _demo(arguments: argparse.Namespace, config: Config) -> int:
    return demo(config)


def _keys(arguments: argparse.Namespace, config: Config) -> int:
    for line in keyring.listing(config.layout.authorized_keys):
        print(line)
    return 0


def _add_key(arguments: argparse.Namespace, config: Config) -> int:
    text = sys.stdin.read() if arguments.file == "-" else _read(Path(arguments.file))
    rank = Rank[arguments.rank.upper()]
    for line in keyring.add(config.layout.authorized_keys, arguments.name, text, rank):
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
