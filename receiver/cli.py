"""The `starphleet` command."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hooks.errors import ShipError
from hooks.settings import git_address
from receiver import local  # what more a command needs, it imports itself: most are to be quick
from receiver.cloud.words import of_cloud
from receiver.config import Config, load
from receiver.install import options
from receiver.manual import ABOUT, GROUPS, MORE, NO_PAGE, PAGES, SETTINGS, Command, commands_of
from receiver.ssh.interface import Rank

_OF_A_SERVICE = {
    "redeploy": "remove a service with everything that was built for it, and build it anew",
    "retry-deploy": "build and deploy a service again; what serves goes on until the new one does",
    "stop": "stop a service until `start`",
    "start": "start a service that was stopped",
    "restart": "stop a service and start it again",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, 1 for a refusal in one line, 2 for wrong words."""
    words, parser = _words(sys.argv) if argv is None else list(argv), build_parser()
    try:
        if words[:2] == ["complete", "--"]:  # asked by shells: see completion
            return _complete(words[2:], parser)
        arguments = parser.parse_args(_asked(words, parser))
        return int(arguments.run(arguments, load()))
    except ShipError as error:
        print(f"starphleet: {error}", file=sys.stderr)
        return 1
    except PermissionError as error:
        print(f"starphleet: {local.foreign(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _words(argv: Sequence[str]) -> list[str]:
    """The words of `starphleet`, also when it was called as `starphleet-COMMAND`."""
    _, dash, command = Path(argv[0]).name.partition("-")
    return [command, *argv[1:]] if dash else list(argv[1:])


def _asked(words: list[str], parser: argparse.ArgumentParser) -> list[str]:
    """`words` as the parser reads them: `help` is an option, and a wrong command is answered."""
    if words[:1] in ([], ["help"]):
        words = [*words[1:2], "--help"]
    known = commands_of(parser)
    if words[0] not in known and not words[0].startswith("-"):
        from difflib import get_close_matches

        near = get_close_matches(words[0], known, 1)
        hint = f"did you mean {near[0]}?" if near else "`starphleet help` lists what is"
        parser.exit(2, f"starphleet: {ascii(words[0])[:60]} is no command; {hint}\n")
    return words


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"starphleet {version('starphleet')}")
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """All commands with their options; help, completion and the manual page are made of it."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "starphleet", "starphleet COMMAND …", epilog=SETTINGS, formatter_class=raw
    )
    parser.add_argument("--version", nargs=0, action=_Version, help="print the version, and exit")
    commands = parser.add_subparsers(
        prog=parser.prog, required=True, metavar="COMMAND", help=argparse.SUPPRESS
    )

    def command(name: str, run: object, about: str) -> argparse.ArgumentParser:
        page = PAGES.get(name, NO_PAGE)
        added = commands.add_parser(
            name, description=page.told(about), epilog=page.epilog, formatter_class=raw
        )
        added.set_defaults(run=run, command=name, about=about)
        return added

    _of_the_ship(command)
    _of_services(command)
    _of_the_front_door(command)
    _of_whoever_uses_it(command)
    _of_keys(command)
    parser.description = f"{ABOUT}\n{_listing(parser)}\n{MORE}"
    return parser


def _of_the_ship(command: Command) -> None:
    ship = command(
        "ship", _ship, "run the ship in the foreground; Ctrl-C stops it and its services"
    )
    ship.add_argument("--after", type=int, help=argparse.SUPPRESS)
    command("up", _up, "start the ship in the background; does nothing when it runs")
    command("down", _down, "stop the ship and what it serves; `up` brings all of it back")
    command("reload", _reload, "start the ship's own process anew; what it serves goes on")
    update = command(
        "update", _update, "install the newest version of Starphleet and let it be the ship"
    )
    update.add_argument("--json", action="store_true", help="for programs, of how it ended")
    command("check", _check, "say whether this version could be the ship here; `update` asks it")
    status = command("status", _status, "what the ship serves, builds and makes wait")
    status.add_argument("--json", action="store_true", help="for programs")
    status.add_argument("--trouble", action="store_true", help="only what is not as it should be")
    status.add_argument("--metadata", action="store_true", help="the ship too, beside a SERVICE")
    status.add_argument("service", nargs="?", help="this one alone")
    history = command("history", _history, "every deploy: who, what, why, how long, how it ended")
    history.add_argument("service", nargs="?")
    history.add_argument("--json", action="store_true", help="for programs")
    logs = command("logs", _logs, "what a service logged, or all of them and the ship")
    logs.add_argument("service", nargs="?", help="this one alone; starphleet is the ship itself")
    logs.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    logs.add_argument("-n", "--lines", type=int, help="how many to begin with (100)")
    logs.add_argument("--since", metavar="WHEN", help="10m, 2h, 2026-11-21 or 2026-11-21T12:00")
    logs.add_argument("--json", action="store_true", help="for programs, an object on each line")
    opening = command("open", _open, "print the URL of a service, or a link into the dashboard")
    opening.add_argument("what", metavar="SERVICE|dashboard")


def _of_services(command: Command) -> None:
    new = command("new", _new, "write a headquarters to begin with")
    new.add_argument("what", choices=["headquarters"])
    new.add_argument("directory", type=Path)
    headquarters = command(
        "headquarters", _headquarters, "show where the headquarters is, or set it"
    )
    headquarters.add_argument("--json", action="store_true", help="for programs, of what is")
    headquarters.add_argument("url", nargs="?", help="https, ssh or a path; #branch, tag or commit")
    for name, about in _OF_A_SERVICE.items():
        command(name, _do, about).add_argument("service")
    run = command("run", _run, "a command beside what serves, in its environment")
    run.add_argument("service")
    run.add_argument("words", nargs=argparse.REMAINDER, metavar="[--] COMMAND")
    attach = command("attach", _attach, "a shell, or a command, beside what serves")
    attach.add_argument("service", nargs="?")
    attach.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    backup = command("lxc-backup", _backup, "write a service's container into a file, a .tgz")
    backup.add_argument("service")
    backup.add_argument("file", type=Path)
    restore = command("lxc-restore", _restore, "make a base container of a backup")
    restore.add_argument("name", help="what STARPHLEET_BASE is to call it")
    restore.add_argument("source", help="a file or an https URL")
    cancel = command("cancel", _cancel, "end a deploy that waits or is underway")
    cancel.add_argument("deploy", metavar="ID", help="as `status` shows it, or a service")
    command("healthcheck", _do, "ask a service now whether it is well").add_argument("service")
    command("orphan-reaper", _do, "remove the services whose orders are gone")
    command("poll", _do, "ask now whether anything that is followed has moved")


def _of_the_front_door(command: Command) -> None:
    command("dns-offline", _do, "let /starphleet/nginx/status say that the ship is not to be asked")
    command("dns-online", _do, "let it say that the ship is there again")
    command("hup-nginx", _do, "give nginx its configuration anew; nothing is interrupted")
    command("restart-nginx", _do, "stop nginx and start it; what is open breaks off")


def _of_whoever_uses_it(command: Command) -> None:
    git = command("git", _git, "git with the ship's keys")
    git.add_argument("words", nargs=argparse.REMAINDER)
    completion = command("completion", _completion, "let a shell complete commands and services")
    completion.add_argument("shell", choices=["bash", "zsh", "fish"])
    command("man", _man, "the manual page")
    command("demo", _demo, "start the ship and push a sample app to it")
    options.of_install(command("install", _install, "make a ship of this host, as root"))
    options.of_uninstall(command("uninstall", _uninstall, "take back what `install` made"))
    of_cloud(command)


def _of_keys(command: Command) -> None:
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


def _listing(parser: argparse.ArgumentParser) -> str:
    """A line for each command, group by group."""
    there = commands_of(parser)
    names = sorted(there, key=lambda name: [*PAGES, name].index(name))
    lines = [
        (PAGES.get(name, NO_PAGE).group, f"  {name:<16}{there[name].get_default('about')}\n")
        for name in names
    ]
    return "\n".join(
        f"{group}:\n{''.join(line for of, line in lines if of == group)}" for group in GROUPS
    )


def _ship(arguments: argparse.Namespace, config: Config) -> int:
    from receiver.updates import updating

    if arguments.after is None:
        updating.as_chosen(config)
    return local.foreground(config, arguments.after)


def _update(arguments: argparse.Namespace, config: Config) -> int:
    from receiver.updates import updating

    return updating.update(config, as_json=arguments.json)


def _check(arguments: argparse.Namespace, config: Config) -> int:
    from receiver.updates.fitness import check

    check(config)
    return 0


def _up(arguments: argparse.Namespace, config: Config) -> int:
    local.up(config)
    print("\n".join(local.welcome(config)))
    return 0


def _down(arguments: argparse.Namespace, config: Config) -> int:
    print("the ship is down" if local.down(config) else "no ship runs here")
    return 0


def _run(arguments: argparse.Namespace, config: Config) -> int:
    words = arguments.words[arguments.words[:1] == ["--"] :]
    if not words:
        raise ShipError("name what to run: starphleet run SERVICE COMMAND, or attach for a shell")
    return local.beside(config, arguments.service, words)


def _attach(arguments: argparse.Namespace, config: Config) -> int:
    from receiver.choosing import chosen

    service = chosen(config, arguments.service or "")
    return local.beside(config, service, arguments.words or ["bash"])


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
    from receiver.updates import updating

    updating.reload(config)
    print("\n".join(local.welcome(config)))
    return 0


def _status(arguments: argparse.Namespace, config: Config) -> int:
    status = _ship_status(config)
    if arguments.json:
        print(json.dumps(_about(status, arguments.service), indent=2))
        return 0
    from receiver import shown

    address = git_address(config.settings)
    trouble, metadata = arguments.trouble, arguments.metadata
    print(shown.status(address, status, arguments.service, trouble=trouble, metadata=metadata))
    return 0


def _ship_status(config: Config) -> dict[str, Any]:
    status = local.status(config)
    if status is None:
        raise ShipError(local.absent(config))
    return status


def _about(status: dict[str, Any], service: str | None) -> dict[str, Any]:
    """`status`, with one `service` alone where one is named."""
    if service is None:
        return status
    names = (service, f"/{service.strip('/')}")
    told = ("services", "ordered", "deploys")
    alone = {key: [one for one in status[key] if one["service"] in names] for key in told}
    return {**status, **alone}


def _history(arguments: argparse.Namespace, config: Config) -> int:
    from receiver import shown

    entries = local.history(config, arguments.service)
    print(json.dumps(entries, indent=2) if arguments.json else shown.history(entries))
    return 0


def _logs(arguments: argparse.Namespace, config: Config) -> int:
    from receiver import journal_shown

    asked = journal_shown.asked(arguments.service, arguments.lines, arguments.since)
    journal_shown.show(config, asked, follow=arguments.follow, as_json=arguments.json)
    return 0


def _open(arguments: argparse.Namespace, config: Config) -> int:
    print(local.opened(config, arguments.what))
    return 0


def _new(arguments: argparse.Namespace, config: Config) -> int:
    from receiver import new

    print("\n".join(new.headquarters(config, arguments.directory)))
    return 0


def _headquarters(arguments: argparse.Namespace, config: Config) -> int:
    if not arguments.json:
        return _do(arguments, config)
    print(json.dumps(_ship_status(config)["headquarters"], indent=2))
    return 0


def _do(arguments: argparse.Namespace, config: Config) -> int:
    """What the ship itself has to do."""
    about = getattr(arguments, "service", None) or getattr(arguments, "url", None)
    local.command(config, [arguments.command, *([about] if about else [])], print)
    return 0


def _cancel(arguments: argparse.Namespace, config: Config) -> int:
    local.cancel(config, arguments.deploy, print)
    return 0


def _complete(words: Sequence[str], parser: argparse.ArgumentParser) -> int:
    from receiver.completion import candidates

    def names() -> list[str]:
        answer = local.status(load(), seconds=1.0) or {"services": ()}
        return [one["service"] for one in answer["services"]]

    print("\n".join(candidates(parser, words, names)))
    return 0


def _completion(arguments: argparse.Namespace, config: Config) -> int:
    from receiver.completion import script

    print(script(arguments.shell, commands_of(build_parser())), end="")
    return 0


def _man(arguments: argparse.Namespace, config: Config) -> int:
    from receiver.man import page

    print(page(build_parser(), time.strftime("%Y-%m-%d")), end="")
    return 0


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

    directory = config.layout.authorized_keys
    if arguments.json:
        print(json.dumps(keyring.told(directory), indent=2))
    else:
        print("".join(f"{line}\n" for line in keyring.listing(directory)), end="")
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
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not a text file"
        raise ShipError(f"{path}: {why}") from None


if __name__ == "__main__":
    sys.exit(main())
