"""The words for the ship as a whole, and for what it says of itself."""

from __future__ import annotations

import argparse
import json
from typing import Any

from hooks.settings import git_address
from receiver import local
from receiver.config import Config
from receiver.manual import Command


def of_the_ship(command: Command) -> None:
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


def _reload(arguments: argparse.Namespace, config: Config) -> int:
    from receiver.updates import updating

    updating.reload(config)
    print("\n".join(local.welcome(config)))
    return 0


def _status(arguments: argparse.Namespace, config: Config) -> int:
    status = local.required_status(config)
    if arguments.json:
        print(json.dumps(_about(status, arguments.service), indent=2))
        return 0
    from receiver import shown

    address = git_address(config.settings)
    trouble, metadata = arguments.trouble, arguments.metadata
    print(shown.status(address, status, arguments.service, trouble=trouble, metadata=metadata))
    return 0


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
