"""`starphleet init ec2` and the others: each asks AWS, prints what it did, and gives its status."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from hooks.errors import Refused
from hooks.say import plain
from receiver.cloud import group, names, ships
from receiver.cloud.aws import HOME, ZONES, Aws, told
from receiver.cloud.wish import headquarters_of, wish_of
from receiver.config import Config


def init(config: Config) -> int:
    headquarters_of(config)

    def ready(ec2: Any) -> str:
        return group.ensure(ec2, group.default_vpc(ec2))[1]

    failed = 0
    for answer in Aws().in_each(ZONES, ready):
        failed += _say(answer.value, answer.trouble)
    return 1 if failed else 0


def add(config: Config, region: str, subnet: str | None) -> int:
    wish = wish_of(config)
    for line in wish.warnings:
        _warn(line)
    with told(region):
        ships.add(Aws().region(region), wish, subnet, print)
    print("It makes a ship of itself now, which takes some minutes: starphleet info ec2")
    return 0


def info(config: Config, *, as_json: bool) -> int:
    aws = Aws()
    regions, found, failed = aws.regions(), [], 0
    for answer in aws.in_each(regions, lambda ec2: [*ships.ours(ec2)]):
        failed += _say(None, answer.trouble)
        found += [shown(answer.region, one) for one in answer.value or ()]
    found.sort(key=lambda one: (one["Headquarters"], one["Region"], one["InstanceId"]))
    print(json.dumps(found, indent=2) if as_json else _yaml(found))
    if not found and not failed:
        _warn(f"no ships yet: starphleet add ship ec2 REGION, which is one of {', '.join(regions)}")
    return 1 if failed else 0


def remove(config: Config, region: str, instance: str, *, sure: bool) -> int:
    with told(region):
        ec2 = Aws().region(region)
        one = shown(region, ships.ship(ec2, instance))
        if not sure and not _confirmed(one):
            _warn(f"{instance} stays")
            return 1
        ec2.terminate_instances(InstanceIds=[instance])
    print(f"{region}: {instance} is being terminated")
    return 0


def name(config: Config, zone: str, domain: str, addresses: Sequence[str]) -> int:
    record, wanted = names.record_name(socket.gethostname(), domain), names.addresses_of(addresses)
    with told(record):
        for line in names.publish(Aws().client("route53", HOME), zone, record, wanted):
            print(line)
    return 0


def shown(region: str, instance: Mapping[str, Any]) -> dict[str, str]:
    """What is told of one ship; "" for what it has not, or not yet."""
    host = instance.get("PublicDnsName") or instance.get("PublicIpAddress") or ""
    return {
        "Headquarters": ships.tagged(instance)["Headquarters"],
        "Region": region,
        "InstanceType": instance["InstanceType"],
        "InstanceId": instance["InstanceId"],
        "State": instance["State"]["Name"],
        "PublicDnsName": instance.get("PublicDnsName", ""),
        "Diagnostic": f"http://{host}/starphleet/status" if host else "",
        "AdmiralSSH": f"ssh admiral@{host}" if host else "",
    }


def _yaml(found: Sequence[Mapping[str, str]]) -> str:
    text: str = yaml.safe_dump([*found], sort_keys=False, width=1000)
    return text.rstrip("\n")


def _confirmed(one: Mapping[str, str]) -> bool:
    """Whether somebody at a terminal says so; `Refused` where nobody is."""
    if not sys.stdin.isatty():
        raise Refused(f"{one['InstanceId']} would be gone with all that it keeps: say --yes")
    about = plain(f"{one['InstanceId']} ({one['State']}, {one['Headquarters']})")
    try:
        answer = input(f"Terminate {about}, with all that it keeps? [y/N] ")
    except EOFError:
        answer = ""
        print()
    return answer.strip().lower() in ("y", "yes")


def _say(done: str | None, trouble: str) -> bool:
    """Print what was done in a region; whether it went wrong."""
    if done:
        print(done, flush=True)
    if trouble:
        _warn(trouble)
    return bool(trouble)


def _warn(line: str) -> None:
    print(f"starphleet: {line}", file=sys.stderr)
