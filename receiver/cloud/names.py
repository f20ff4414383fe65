"""Names of ships in Route 53."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from hooks.errors import Refused

TTL = 300  # seconds
_ZONE = re.compile(r"(?:/hostedzone/)?([A-Z0-9]{1,32})")
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*")


def record_name(host: str, domain: str) -> str:
    """`host`'s first label in `domain`."""
    name = f"{host.partition('.')[0]}.{domain.removesuffix('.')}".lower()
    if not _DOMAIN.fullmatch(name):
        raise Refused(f"{ascii(name)[:80]} is no name of a host")
    return name


def addresses_of(texts: Sequence[str]) -> dict[str, list[str]]:
    """IP addresses by the kind of record that they belong to."""
    found: dict[str, list[str]] = {}
    for text in texts:
        try:
            address: IPv4Address | IPv6Address = ip_address(text)
        except ValueError:
            raise Refused(f"{ascii(text)[:60]} is not an IP address") from None
        kind = "A" if address.version == 4 else "AAAA"
        if str(address) not in found.setdefault(kind, []):
            found[kind].append(str(address))
    return found


def publish(route53: Any, zone: str, name: str, addresses: dict[str, list[str]]) -> list[str]:
    """Let `name` lead to `addresses`, and to no others of the same kinds; what was done."""
    match = _ZONE.fullmatch(zone)
    if match is None:
        raise Refused(f"{ascii(zone)[:60]} is no id of a hosted zone")
    changes = [
        {
            "Action": "UPSERT",
            "ResourceRecordSet": {
                "Name": name,
                "Type": kind,
                "TTL": TTL,
                "ResourceRecords": [{"Value": one} for one in each],
            },
        }
        for kind, each in addresses.items()
    ]
    route53.change_resource_record_sets(HostedZoneId=match[1], ChangeBatch={"Changes": changes})
    return [f"{name} {kind} {' '.join(each)}" for kind, each in addresses.items()]
