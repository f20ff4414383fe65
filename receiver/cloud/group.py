"""The security group of ships: who reaches which port."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hooks.errors import ShipError
from receiver.cloud.aws import unless

NAME = "starphleet"
PORTS = (22, 80, 443)
_EVERYWHERE = (("IpRanges", "CidrIp", "0.0.0.0/0"), ("Ipv6Ranges", "CidrIpv6", "::/0"))
_ABOUT = "Starphleet: ssh, http and https from anywhere"


def default_vpc(ec2: Any) -> str:
    """The id of the region's; `ShipError` if there is none."""
    found = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not found:
        raise ShipError(
            f"{ec2.meta.region_name}: there is no default VPC; starphleet add ship ec2 "
            f"{ec2.meta.region_name} --vpc SUBNET takes another one"
        )
    return str(found[0]["VpcId"])


def ensure(ec2: Any, vpc: str) -> tuple[str, str]:
    """Let there be the group in `vpc`, with its ports open: its id, and what was done."""
    region = ec2.meta.region_name
    there = _find(ec2, vpc)
    group = there or _made(ec2, vpc)
    closed = lacking(group["IpPermissions"])
    name = f"security group {NAME} {group['GroupId']}"
    if closed:
        with unless("InvalidPermission.Duplicate"):
            ec2.authorize_security_group_ingress(GroupId=group["GroupId"], IpPermissions=closed)
    if there is None:
        return group["GroupId"], f"{region}: made {name}, which opens {_ports(closed)}"
    did = f"opened {_ports(closed)} too" if closed else f"is there, and opens {_ports(_all())}"
    return group["GroupId"], f"{region}: {name} {did}"


def lacking(permissions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What of a group's inbound rules is missing, a rule for each port and protocol of IP."""
    return [rule for rule in _all() if not any(_covers(one, rule) for one in permissions)]


def _all() -> list[dict[str, Any]]:
    return [
        {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, ranges: [{key: everybody}]}
        for port in PORTS
        for ranges, key, everybody in _EVERYWHERE
    ]


def _covers(there: Mapping[str, Any], rule: Mapping[str, Any]) -> bool:
    """Whether a group's rule lets in whom `rule` does."""
    every = there["IpProtocol"] == "-1"
    ports = there["IpProtocol"] == "tcp" and (
        there.get("FromPort", 0) <= rule["FromPort"] <= there.get("ToPort", 65535)
    )
    from_all = any(
        each.get(key) == everybody and ranges in rule
        for ranges, key, everybody in _EVERYWHERE
        for each in there.get(ranges, ())
    )
    return (every or ports) and from_all


def _ports(rules: Iterable[Mapping[str, Any]]) -> str:
    return ", ".join(str(port) for port in sorted({rule["FromPort"] for rule in rules}))


def _find(ec2: Any, vpc: str) -> dict[str, Any] | None:
    filters = [{"Name": "group-name", "Values": [NAME]}, {"Name": "vpc-id", "Values": [vpc]}]
    found = ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
    return found[0] if found else None


def _made(ec2: Any, vpc: str) -> dict[str, Any]:
    tags = [{"ResourceType": "security-group", "Tags": [{"Key": "Name", "Value": "Starphleet"}]}]
    with unless("InvalidGroup.Duplicate"):
        made = ec2.create_security_group(
            GroupName=NAME, Description=_ABOUT, VpcId=vpc, TagSpecifications=tags
        )
        # AWS answers before all of it knows.
        ec2.get_waiter("security_group_exists").wait(GroupIds=[made["GroupId"]])
    group = _find(ec2, vpc)
    if group is None:
        raise ShipError(f"{ec2.meta.region_name}: security group {NAME} was made, and is not there")
    return group
