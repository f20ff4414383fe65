"""The words for services: where they come from, what is done to one, and how they are reached."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hooks.errors import ShipError
from receiver import local
from receiver.config import Config
from receiver.manual import Command

_OF_A_SERVICE = {
    "redeploy": "remove a service with everything that was built for it, and build it anew",
    "retry-deploy": "build and deploy a service again; what serves goes on until the new one does",
    "stop": "stop a service until `start`",
    "start": "start a service that was stopped",
    "restart": "stop a service and start it again",
}


def of_services(command: Command) -> None:
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
    gone = command("take-down", _do, "end a pushed service: its route, its container, its branch")
    gone.add_argument("service")
    command("healthcheck", _do, "ask a service now whether it is well").add_argument("service")
    command("orphan-reaper", _do, "remove the services whose orders are gone")
    command("poll", _do, "ask now whether anything that is followed has moved")


def of_the_front_door(command: Command) -> None:
    command("dns-offline", _do, "let /starphleet/nginx/status say that the ship is not to be asked")
    command("dns-online", _do, "let it say that the ship is there again")
    command("hup-nginx", _do, "give nginx its configuration anew; nothing is interrupted")
    command("restart-nginx", _do, "stop nginx and start it; what is open breaks off")


def _new(arguments: argparse.Namespace, config: Config) -> int:
    from receiver import new

    print("\n".join(new.headquarters(config, arguments.directory)))
    return 0


def _headquarters(arguments: argparse.Namespace, config: Config) -> int:
    if not arguments.json:
        return _do(arguments, config)
    print(json.dumps(local.required_status(config)["headquarters"], indent=2))
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


def _cancel(arguments: argparse.Namespace, config: Config) -> int:
    local.cancel(config, arguments.deploy, print)
    return 0


def _do(arguments: argparse.Namespace, config: Config) -> int:
    """What the ship itself has to do."""
    about = getattr(arguments, "service", None) or getattr(arguments, "url", None)
    local.command(config, [arguments.command, *([about] if about else [])], print)
    return 0
