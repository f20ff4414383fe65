"""The network of a ship's containers at work: what `network` decides is made so on the host."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Address
from itertools import product
from pathlib import Path
from typing import Any

import psutil
from attrs import define, field
from twisted.internet.defer import DeferredLock

from containers.interface import ContainerError, Limits
from containers.lxc.firewall import Watch
from containers.lxc.network import INTERFACES, SYSCTLS, Plan, is_forwarding, links, sysctls
from containers.lxc.rules import Exposed, rules
from containers.sandbox import SYSTEM_PATH
from containers.spawn import run

SECONDS = 20.0  # for one command
STANDS = 5.0  # seconds for which it is taken to be there still
INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
INSTANCES = 65536  # one count for all containers and the host's root; each container has 64


@define(eq=False)
class Net:
    """The network as it is on the host: made when it is missing, and taken away."""

    reactor: Any
    plan: Plan
    _exposed: dict[int, IPv4Address] = field(factory=dict)
    _closed: set[IPv4Address] = field(factory=set)
    _is_up: bool = False
    _stood: float = 0.0  # when it was last seen to be there
    _watch: Watch = field(factory=Watch)
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
                await self._open_all()
                await self._apply()
                self._is_up = True
            if not recently:
                self._stood = self.reactor.seconds()
        finally:
            self._lock.release()

    async def down(self) -> None:
        """Take the bridges, rules and routes away."""
        await self._lock.acquire()
        try:
            with suppress(ContainerError):
                await self._open_all()
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

    async def dropped(self) -> list[str]:
        """What the host's own firewall keeps from the containers, in lines for people."""
        if not self._is_up:
            return []
        counters = ("nft", "--json", "list", "counters", "table", "inet", self.plan.tag)
        try:
            return self._watch.look(self.plan, await self._tool(*counters))
        except ContainerError:  # flushed just now: it will be back
            return []

    async def clear(self, address: IPv4Address) -> None:
        """Take away the interface that leads there: the kernel takes its time after a kill."""
        veth = self.plan.veth(address)
        if (INTERFACES / veth).exists():
            with suppress(ContainerError):  # it has just gone by itself
                await self._tool("ip", "link", "delete", veth)

    async def close(self, address: IPv4Address) -> None:
        """Nobody is there: who asks is told at once, and does not wait for an answer."""
        if address not in self._closed and self.plan.has(address):
            self._closed.add(address)
            with suppress(ContainerError):
                await self._tool("ip", "route", "replace", "unreachable", f"{address}/32")

    async def open(self, address: IPv4Address) -> None:
        """Somebody will be there again."""
        if address in self._closed:
            self._closed.remove(address)
            with suppress(ContainerError):
                await self._tool("ip", "route", "delete", "unreachable", f"{address}/32")

    async def _open_all(self) -> None:
        for zone in (self.plan.ordered, self.plan.tests):
            flush = ("route", "flush", "type", "unreachable", "root", str(zone.network))
            await self._tool("ip", *flush)
        self._closed.clear()

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
        for family, port in product(("ipv4", "ipv6"), ports):
            flows = ("-f", family, "-p", "udp", "--orig-port-dst", str(port))
            with suppress(ContainerError):  # there was none
                await self._tool("conntrack", "-D", *flows)

    async def _stands(self) -> bool:
        """Whether the rules are there still: a firewall that is loaded anew may flush them all."""
        try:
            await self._tool("nft", "--terse", "list", "table", "inet", self.plan.tag)
        except ContainerError:
            return False
        bridges = (zone.bridge for zone in (self.plan.ordered, self.plan.tests))
        return is_forwarding(self.plan) and all((INTERFACES / one).exists() for one in bridges)

    async def _apply(self) -> None:
        exposed = [Exposed(port, address) for port, address in sorted(self._exposed.items())]
        await self._tool("nft", "-f", "-", stdin=rules(self.plan, exposed).encode())

    async def _tool(self, *words: str, stdin: bytes = b"") -> str:
        done = await run(
            self.reactor,
            words,
            env={"PATH": SYSTEM_PATH},
            stdin=stdin,
            limits=Limits(seconds=SECONDS),
        )
        said = done.output.decode("utf-8", "replace").strip()
        if not done.exit.ok:
            why = said.partition("\n")[0]
            raise ContainerError(f"the network of the containers: {words[0]}: {why}")
        return said


def _tell_kernel(setting: Path, value: str) -> None:
    if setting.exists() and setting.read_text().strip() != value:
        setting.write_text(value)


def _tell_kernel_at_least(setting: Path, least: int) -> None:
    if setting.exists() and int(setting.read_text()) < least:
        setting.write_text(str(least))
