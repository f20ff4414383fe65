"""The words of the commands for EC2. What they do is imported when one of them runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from receiver.config import Config
from receiver.manual import Command


def of_cloud(command: Command) -> None:
    """Add `init`, `add`, `info`, `remove` and `name`."""
    _fixed(command("init", _init, "make the zones of EC2 ready for ships"), "ec2")
    add = command("add", _add, "make a ship on EC2")
    _fixed(add, "ship", "ec2")
    add.add_argument("region", help="any region of EC2, such as us-west-1")
    add.add_argument("--vpc", metavar="SUBNET", help="where, if not in the default VPC: subnet-…")
    info = command("info", _info, "every ship on EC2, in all regions")
    _fixed(info, "ec2")
    info.add_argument("--json", action="store_true", help="for programs")
    remove = command("remove", _remove, "terminate a ship on EC2, with all that it keeps")
    _fixed(remove, "ship", "ec2")
    remove.add_argument("region")
    remove.add_argument("id", help="as `info` shows it: i-…")
    remove.add_argument("--yes", action="store_true", help="do not ask first")
    name = command("name", _name, "give this host a name in a zone of Route 53")
    _fixed(name, "ship", "ec2")
    name.add_argument("zone_id", help="of the hosted zone")
    name.add_argument("domain", help="what stands behind the name of this host")
    name.add_argument("address", nargs="+", help="of IPv4 or IPv6")


def _fixed(parser: argparse.ArgumentParser, *words: str) -> None:
    """Words that a command is always followed by."""
    for word in words:
        parser.add_argument(f"_{word}", choices=[word], metavar=word)


def _init(arguments: argparse.Namespace, config: Config) -> int:
    from receiver.cloud import commands

    return commands.init(config)


def _add(arguments: argparse.Namespace, config: Config) -> int:
    from receiver.cloud import commands

    return commands.add(config, arguments.region, arguments.vpc)


def _info(arguments: argparse.Namespace, config: Config) -> int:
    from receiver.cloud import commands

    return commands.info(config, as_json=arguments.json)


def _remove(arguments: argparse.Namespace, config: Config) -> int:
    from receiver.cloud import commands

    return commands.remove(config, arguments.region, arguments.id, sure=arguments.yes)


def _name(arguments: argparse.Namespace, config: Config) -> int:
    from receiver.cloud import commands

    addresses: Sequence[str] = arguments.address
    return commands.name(config, arguments.zone_id, arguments.domain, addresses)
