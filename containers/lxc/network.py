"""The network of a ship's containers: two bridges, a pool of addresses, and nft tables of its own.

Ordered services are on one bridge, test services on the other. No container reaches another; what
wants to talk to another service goes through the ship's front door (`localship`), as everybody
does. Test services do not even reach that, unless the operator says so. Everything here is made
anew when it is missing, and no rule of anybody else is touched.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Collection, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path

import psutil
from attrs import frozen

from containers.interface import ContainerError

CANDIDATES = IPv4Network("10.64.0.0/10")
PRIVATE = [IPv4Network(one) for one in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")]
SIZE = 20  # of a ship's network: 4,094 containers
INTERFACES = Path("/sys/class/net")
SYSCTLS = Path("/proc/sys/net")
NOWHERE = "*"  # the interface of a route that leads to none


@frozen
class Zone:
    """One bridge: its name, and the addresses on it, the first of which is the ship's."""

    bridge: str
    network: IPv4Network
    network6: IPv6Network | None

    @property
    def gateway(self) -> IPv4Address:
        return self.network[1]

    @property
    def gateway6(self) -> IPv6Address | None:
        return self.network6[1] if self.network6 else None


@frozen
class Plan:
    """The whole network of one ship. `tag` tells its interfaces and tables from another ship's."""

    tag: str
    ordered: Zone
    tests: Zone
    front: tuple[IPv4Address, int]  # where the ship's front door is, on the host
    tests_reach_ship: bool = False
    mtu: int = 1500

    def zone(self, *, ordered: bool) -> Zone:
        return self.ordered if ordered else self.tests

    def zone_of(self, address: IPv4Address) -> Zone:
        return self.ordered if address in self.ordered.network else self.tests

    def veth(self, address: IPv4Address) -> str:
        """The name of the interface on the ship that leads to the container at `address`."""
        return f"{self.tag}{int(address) - int(self.ordered.network[0]):04x}"

    def has(self, address: IPv4Address) -> bool:
        """False for one that the ship gave out when its network was another."""
        return any(address in zone.network for zone in (self.ordered, self.tests))

    def address6(self, address: IPv4Address) -> IPv6Address | None:
        """The other address of the container at `address`."""
        zone = self.zone_of(address)
        return zone.network6[int(address) - int(zone.network[0])] if zone.network6 else None


def tag_of(root: Path) -> str:
    """What the names of a ship's interfaces, tables and cgroups begin with, of 15 letters at most.

    `root` is that of its containers.
    """
    return f"sp{hashlib.sha256(str(root).encode()).hexdigest()[:6]}"


def plan(
    tag: str,
    network: IPv4Network,
    *,
    front: tuple[IPv4Address, int],
    tests_reach_ship: bool = False,
    ipv6: bool,
    mtu: int,
) -> Plan:
    """Divide `network` between the two zones; names and IPv6 addresses come from `tag`."""
    unique = hashlib.sha256(tag.encode()).digest()[:7]
    six = IPv6Network((b"\xfd" + unique + bytes(8), 64)) if ipv6 else None
    halves = list(network.subnets(1))
    halves6 = list(six.subnets(1)) if six else [None, None]
    zones = [
        Zone(f"{tag}{letter}", half, half6)
        for letter, half, half6 in zip("ot", halves, halves6, strict=True)
    ]
    return Plan(tag, zones[0], zones[1], front, tests_reach_ship, mtu)


def choose(root: Path, taken: Sequence[IPv4Network]) -> IPv4Network:
    """A network that overlaps none of `taken`; the same for a root as long as it is free."""
    networks = 2 ** (SIZE - CANDIDATES.prefixlen)
    first = int.from_bytes(hashlib.sha256(str(root).encode()).digest()[-4:])
    for step in range(networks):
        start = CANDIDATES[((first + step) % networks) << (32 - SIZE)]
        network = IPv4Network((start, SIZE))
        if not any(network.overlaps(other) for other in taken):
            return network
    raise ContainerError(f"no part of {CANDIDATES} is free: name a network, STARPHLEET_NETWORK")


def is_made(tag: str) -> bool:
    """Whether bridges of the ship are there, and so perhaps containers on them."""
    return any(INTERFACES.glob(f"{tag}?"))


def read_network(text: str) -> IPv4Network:
    """An operator's STARPHLEET_NETWORK. Raises `ContainerError`."""
    try:
        network = ip_network(text)
    except ValueError as error:
        raise ContainerError(f"STARPHLEET_NETWORK: {error}") from error
    if not isinstance(network, IPv4Network) or not 16 <= network.prefixlen <= 26:
        raise ContainerError(f"STARPHLEET_NETWORK: {text} is not an IPv4 network from /16 to /26")
    if not any(network.subnet_of(one) for one in PRIVATE):
        raise ContainerError(f"STARPHLEET_NETWORK: {text} is not private")
    return network


def taken_networks(tag: str) -> list[IPv4Network]:
    """The networks that this host is in already or has routes to, but for the ship's own.

    None to which a route says that nobody is there: who narrows it down, as a bridge does, goes
    before it.
    """
    found = []
    for name, addresses in psutil.net_if_addrs().items():
        for one in addresses:
            if one.family == socket.AF_INET and one.netmask and not name.startswith(tag):
                found.append(IPv4Network(f"{one.address}/{one.netmask}", strict=False))
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        name, destination, _, _, _, _, _, mask, *_ = line.split()
        if name != NOWHERE and not name.startswith(tag) and int(mask, 16):
            start, size = (IPv4Address(socket.ntohl(int(word, 16))) for word in (destination, mask))
            found.append(IPv4Network(f"{start}/{size}", strict=False))
    return found


def uplink_mtu() -> int:
    """The MTU of the interface of the default route: more would be lost on the way out."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        name, destination, *_ = line.split()
        if int(destination, 16) == 0:
            return int((INTERFACES / name / "mtu").read_text())
    return 1500


def has_ipv6() -> bool:
    disabled = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")
    return disabled.exists() and disabled.read_text().strip() == "0"


def links(plan: Plan) -> list[list[str]]:
    """`ip` commands that make the bridges; each may be given again."""
    commands = []
    for zone in (plan.ordered, plan.tests):
        if not (INTERFACES / zone.bridge).exists():
            # Else it has the lowest of its ports' addresses, and whenever that one comes or goes,
            # all the others send to an address that nobody has, for seconds.
            own = ["address", mac(zone.bridge), "type", "bridge", "forward_delay", "0"]
            commands.append(["link", "add", zone.bridge, *own])
        address = f"{zone.gateway}/{zone.network.prefixlen}"
        commands.append(["address", "replace", address, "dev", zone.bridge])
        if zone.network6 is not None:
            address = f"{zone.gateway6}/{zone.network6.prefixlen}"
            commands.append(["address", "replace", address, "dev", zone.bridge, "nodad"])
        commands.append(["link", "set", zone.bridge, "mtu", str(plan.mtu), "up"])
    return commands


def mac(name: str) -> str:
    """An address for an interface of ours, by its name: locally administered, of one interface."""
    return f"02:{hashlib.sha256(name.encode()).digest()[:5].hex(':')}"


def sysctls(plan: Plan) -> dict[str, str]:
    """What the kernel must be told, in this order: to forward, and that `localship` may be a
    loopback port. The first interface that forwards IPv6 takes the routes of all that are deaf.
    """
    bridges = [zone.bridge for zone in (plan.ordered, plan.tests)]
    wanted = {"ipv4/ip_forward": "1"}
    wanted |= {f"ipv4/conf/{bridge}/route_localnet": "1" for bridge in bridges}
    if plan.ordered.network6 is not None:
        wanted |= {f"ipv6/conf/{bridge}/accept_ra": "0" for bridge in bridges}
        wanted |= {f"ipv6/conf/{name}/accept_ra": "2" for name in _hearing_routers(bridges)}
        wanted |= {f"ipv6/conf/{name}/forwarding": "1" for name in (*bridges, "all")}
    return wanted


def is_forwarding(plan: Plan) -> bool:
    """Whether the host still does: whoever loads its settings anew may have stopped it."""
    wanted = ["ipv4/ip_forward", *(["ipv6/conf/all/forwarding"] if plan.ordered.network6 else [])]
    return all(_says(SYSCTLS / setting) == "1" for setting in wanted)


def _hearing_routers(own: Collection[str]) -> list[str]:
    """The host's interfaces to which routers tell addresses and routes until the host forwards.

    None of the ship's `own`: whoever spoke there would be a container.
    """
    return [
        path.name
        for path in sorted(SYSCTLS.glob("ipv6/conf/*"))
        if path.name not in own
        and (_says(path / "accept_ra"), _says(path / "forwarding")) == ("1", "0")
        and (INTERFACES / path.name).exists()
        and not (INTERFACES / path.name / "brport").exists()
    ]


def _says(setting: Path) -> str:
    """What a setting is; "" when its interface has just gone."""
    try:
        return setting.read_text().strip()
    except OSError:
        return ""


def own(port: int | None) -> str:
    """The rules in a container's own network: what leaves it is from one of its addresses, and not
    from whatever a program asks for, as IPv6 allows. A service is led to, see `inside`.
    """
    kept = """table inet starphleet-own {
  chain output {
    type filter hook output priority filter;
    oifname "eth0" fib saddr type != local ip6 saddr != :: drop
  }
}
"""
    return kept if port is None else kept + inside(port)


def inside(port: int) -> str:
    """The rules of a service: its port 80 leads to its service too, and both lead
    to the loopback, so that it does not matter whether the service listens there alone.
    """
    ports = f"{{ 80, {port} }}" if port != 80 else "80"
    return f"""table inet starphleet {{
  chain prerouting {{
    type nat hook prerouting priority -100;
    iifname "eth0" tcp dport {ports} dnat ip to 127.0.0.1:{port}
  }}
  chain output {{
    type nat hook output priority -100;
    oifname "lo" tcp dport 80 redirect to :{port}
  }}
}}
"""


def hosts(plan: Plan, address: IPv4Address, name: str) -> str:
    """`/etc/hosts` of the container `name` at `address`: itself, and the ship."""
    local = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    return "\n".join(
        [*local, f"127.0.0.1\t{name}", f"{plan.zone_of(address).gateway}\tlocalship", ""]
    )
