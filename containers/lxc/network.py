"""The network of a ship's containers: two bridges, a pool of addresses, and nft tables of its own.

Ordered services are on one bridge, test services on the other. No container reaches another; what
wants to talk to another service goes through the ship's front door (`localship`), as everybody
does. Test services do not even reach that, unless the operator says so. Everything here is made
anew when it is missing, and no rule of anybody else is touched.
"""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path
from typing import Any

import psutil
from attrs import define, field, frozen
from twisted.internet.defer import DeferredLock

from containers.interface import ContainerError, Limits
from containers.sandbox import SYSTEM_PATH
from containers.spawn import run

CANDIDATES = IPv4Network("10.64.0.0/10")
PRIVATE = [IPv4Network(one) for one in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")]
SIZE = 20  # of a ship's network: 4,094 containers
INTERFACES = Path("/sys/class/net")
SYSCTLS = Path("/proc/sys/net")
INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
INSTANCES = 65536  # one count for all containers and the host's root; each container has 64
SECONDS = 20.0  # for one command
STANDS = 5.0  # seconds for which it is taken to be there still


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
    """The networks that this host is in already or has routes to, but for the ship's own."""
    found = []
    for name, addresses in psutil.net_if_addrs().items():
        for one in addresses:
            if one.family == socket.AF_INET and one.netmask and not name.startswith(tag):
                found.append(IPv4Network(f"{one.address}/{one.netmask}", strict=False))
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        name, destination, _, _, _, _, _, mask, *_ = line.split()
        if not name.startswith(tag) and int(mask, 16):
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
    """What the kernel must be told: to forward, and that `localship` may be a loopback port."""
    wanted = {"ipv4/ip_forward": "1"}
    for zone in (plan.ordered, plan.tests):
        wanted[f"ipv4/conf/{zone.bridge}/route_localnet"] = "1"
        if zone.network6 is not None:
            wanted[f"ipv6/conf/{zone.bridge}/accept_ra"] = "0"
            wanted[f"ipv6/conf/{zone.bridge}/forwarding"] = "1"
    if plan.ordered.network6 is not None:
        wanted |= {f"ipv6/conf/{name}/accept_ra": "2" for name in _hearing_routers()}
        wanted["ipv6/conf/all/forwarding"] = "1"
    return wanted


def _hearing_routers() -> list[str]:
    """The host's interfaces that would lose their default route with the first forwarded packet."""
    heard = SYSCTLS.glob("ipv6/conf/*/accept_ra")
    return [
        path.parent.name
        for path in sorted(heard)
        if path.read_text().strip() == "1"
        and (INTERFACES / path.parent.name).exists()
        and not (INTERFACES / path.parent.name / "brport").exists()
    ]


@frozen
class Exposed:
    """A port of the host that leads to the same port of a container."""

    port: int
    address: IPv4Address


def rules(plan: Plan, exposed: Sequence[Exposed]) -> str:
    """The whole of the ship's table, in place of the one that is there: one transaction."""
    ordered, tests, (front, port) = plan.ordered, plan.tests, plan.front
    ours = f'{{ "{ordered.bridge}", "{tests.bridge}" }}'
    from_them = ours if plan.tests_reach_ship else f'"{ordered.bridge}"'
    nets = f"{{ {ordered.network}, {tests.network} }}"
    nets6 = [str(zone.network6) for zone in (ordered, tests) if zone.network6]
    masquerade = [f"ip saddr {nets} ip daddr != {nets} masquerade"]
    if nets6:
        six = f"{{ {', '.join(nets6)} }}"
        masquerade.append(f"ip6 saddr {six} ip6 daddr != {six} masquerade")
    body = f"""
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname != {ours} accept
    ct state established,related accept
    meta l4proto {{ icmp, ipv6-icmp }} accept
    iifname {from_them} ct status dnat accept
    iifname {from_them} tcp dport {port} accept
    reject
  }}
  chain guard {{
    type filter hook prerouting priority raw; policy accept;
    iifname {ours} ip daddr 127.0.0.0/8 drop
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    ct state established,related accept
    iifname {ours} oifname {ours} reject
    iifname "{tests.bridge}" ip daddr 169.254.0.0/16 reject
    oifname {ours} ct status dnat accept
    oifname {ours} drop
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname {from_them} ip daddr {{ {ordered.gateway}, {tests.gateway} }} tcp dport 80 \
dnat ip to {front}:{port}
{_forwards(exposed)}  }}
  chain output {{
    type nat hook output priority -100; policy accept;
{_forwards(exposed)}  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname {ours} ip saddr 127.0.0.0/8 masquerade
    {f"{chr(10)}    ".join(masquerade)}
  }}
"""
    return (
        f"table inet {plan.tag}\ndelete table inet {plan.tag}\ntable inet {plan.tag} {{{body}}}\n"
    )


def inside(port: int) -> str:
    """The rules in a container's own network: its port 80 leads to its service too, and both lead
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


@define(eq=False)
class Net:
    """The network as it is on the host: made when it is missing, and taken away."""

    reactor: Any
    plan: Plan
    _exposed: dict[int, IPv4Address] = field(factory=dict)
    _closed: set[IPv4Address] = field(factory=set)
    _is_up: bool = False
    _stood: float = 0.0  # when it was last seen to be there
    _lock: DeferredLock = field(factory=DeferredLock)

    async def up(self) -> None:
        """Make what is missing. Raises `ContainerError`."""
        await self._lock.acquire()
        try:
            recently = self.reactor.seconds() - self._stood < STANDS
            if not (self._is_up and (recently or await self._stands())):
                for words in links(self.plan):
                    await self._tool("ip", *words)
                for name, value in sysctls(self.plan).items():
                    _tell_kernel(SYSCTLS / name, value)
                _tell_kernel_at_least(INOTIFY, INSTANCES)
                for zone in (self.plan.ordered, self.plan.tests):
                    flush = ("route", "flush", "type", "unreachable", "root", str(zone.network))
                    await self._tool("ip", *flush)
                self._closed.clear()
                await self._apply()
                self._is_up = True
            if not recently:
                self._stood = self.reactor.seconds()
        finally:
            self._lock.release()

    async def down(self) -> None:
        """Take the bridges and rules away."""
        await self._lock.acquire()
        try:
            for words in (
                ("nft", "delete", "table", "inet", self.plan.tag),
                *(
                    ("ip", "link", "delete", zone.bridge)
                    for zone in (self.plan.ordered, self.plan.tests)
                    if (INTERFACES / zone.bridge).exists()
                ),
            ):
                with suppress(ContainerError):
                    await self._tool(*words)
            self._is_up = False
        finally:
            self._lock.release()

    async def expose(self, ports: Mapping[int, IPv4Address]) -> None:
        """Lead exactly these ports of the host's addresses to the same ports there."""
        await self._lock.acquire()
        try:
            changed = dict(ports.items() ^ self._exposed.items())
            self._exposed = dict(ports)
            if changed and self._is_up:
                await self._apply()
                await self._forget_flows(sorted(changed))
        finally:
            self._lock.release()

    async def clear(self, address: IPv4Address) -> None:
        """Take away the interface that leads there: the kernel takes its time after a kill."""
        veth = self.plan.veth(address)
        if (INTERFACES / veth).exists():
            with suppress(ContainerError):  # it has just gone by itself
                await self._tool("ip", "link", "delete", veth)

    async def close(self, address: IPv4Address) -> None:
        """Nobody is there: who asks is told at once, and does not wait for an answer."""
        if address not in self._closed:
            self._closed.add(address)
            with suppress(ContainerError):
                await self._tool("ip", "route", "replace", "unreachable", f"{address}/32")

    async def open(self, address: IPv4Address) -> None:
        """Somebody will be there again."""
        if address in self._closed:
            self._closed.remove(address)
            with suppress(ContainerError):
                await self._tool("ip", "route", "delete", "unreachable", f"{address}/32")

    async def clear_strays(self, owned: Collection[IPv4Address]) -> None:
        """Take away the ship's interfaces that lead to none of these addresses."""
        names = {self.plan.veth(address) for address in owned}
        ours = re.compile(f"{self.plan.tag}[0-9a-f]{{4}}")
        for link in psutil.net_if_addrs().keys() - names:
            if ours.fullmatch(link):
                with suppress(ContainerError):
                    await self._tool("ip", "link", "delete", link)

    async def _forget_flows(self, ports: Sequence[int]) -> None:
        """UDP has no end that the kernel could see: a flow would go where it went before."""
        for port in ports:
            with suppress(ContainerError):  # there was none
                await self._tool("conntrack", "-D", "-p", "udp", "--orig-port-dst", str(port))

    async def _stands(self) -> bool:
        """Whether the rules are there still: a firewall that is loaded anew may flush them all."""
        try:
            await self._tool("nft", "--terse", "list", "table", "inet", self.plan.tag)
        except ContainerError:
            return False
        return all(
            (INTERFACES / one.bridge).exists() for one in (self.plan.ordered, self.plan.tests)
        )

    async def _apply(self) -> None:
        exposed = [Exposed(port, address) for port, address in sorted(self._exposed.items())]
        await self._tool("nft", "-f", "-", stdin=rules(self.plan, exposed).encode())

    async def _tool(self, *words: str, stdin: bytes = b"") -> None:
        done = await run(
            self.reactor,
            words,
            env={"PATH": SYSTEM_PATH},
            stdin=stdin,
            limits=Limits(seconds=SECONDS),
        )
        if not done.exit.ok:
            said = done.output.decode("utf-8", "replace").strip().partition("\n")[0]
            raise ContainerError(f"the network of the containers: {words[0]}: {said}")


def _tell_kernel(setting: Path, value: str) -> None:
    if setting.exists() and setting.read_text().strip() != value:
        setting.write_text(value)


def _tell_kernel_at_least(setting: Path, least: int) -> None:
    if setting.exists() and int(setting.read_text()) < least:
        setting.write_text(str(least))


@define
class Pool:
    """Which addresses are given out, each to one container at a time. Ownership is in memory."""

    plan: Plan
    _owners: dict[IPv4Address, str] = field(factory=dict)
    _next: dict[str, int] = field(factory=dict)

    def reserve(self, owner: str, zone: Zone, wanted: IPv4Address | None = None) -> IPv4Address:
        """An address of `zone`, `wanted` if that is free. Goes round, so that one just given back
        is the last to be given out again. Raises `ContainerError` if none is free.
        """
        self.release(owner)
        if wanted is not None and wanted in self._round(zone) and wanted not in self._owners:
            self._owners[wanted] = owner
            return wanted
        for address in self._round(zone):
            if address not in self._owners:
                self._next[zone.bridge] = int(address) - int(zone.network[0]) + 1
                self._owners[address] = owner
                return address
        raise ContainerError(f"no address is free in {zone.network}")

    def claim(self, owner: str, address: IPv4Address) -> None:
        """Note that `owner` has this address already."""
        self._owners[address] = owner

    @property
    def owned(self) -> Collection[IPv4Address]:
        """Those that are given out."""
        return self._owners.keys()

    def release(self, owner: str) -> None:
        """Give back what `owner` has, if anything."""
        for address in [one for one, other in self._owners.items() if other == owner]:
            del self._owners[address]

    def _round(self, zone: Zone) -> Iterator[IPv4Address]:
        first, count = 2, zone.network.num_addresses - 3  # not the network, the ship, all at once
        begin = self._next.get(zone.bridge, first)
        for step in range(count):
            yield zone.network[first + (begin - first + step) % count]


def hosts(plan: Plan, address: IPv4Address, name: str) -> str:
    """`/etc/hosts` of the container `name` at `address`: itself, and the ship."""
    local = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    return "\n".join(
        [*local, f"127.0.0.1\t{name}", f"{plan.zone_of(address).gateway}\tlocalship", ""]
    )


def _forwards(exposed: Sequence[Exposed]) -> str:
    here = "fib daddr type local"
    lines = (
        f"    {here} {protocol} dport {one.port} dnat ip to {one.address}:{one.port}\n"
        for one in exposed
        for protocol in ("tcp", "udp")
    )
    return "".join(lines)
