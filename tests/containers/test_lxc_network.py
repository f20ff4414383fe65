"""The network of containers: what is decided, and what it does to packets.

The latter is tried in network namespaces of the test's own: a ship, containers, and a world beside
the ship. `NET` is the ship's network at work in there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Network, collapse_addresses
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field, frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from containers.interface import ContainerError
from containers.lxc import config, network
from containers.lxc.network import CANDIDATES, Plan
from containers.lxc.pool import Pool
from containers.lxc.rules import Exposed, rules
from containers.sandbox import SYSTEM_PATH

CHECKOUT = Path(__file__).parents[2]
FRONT = (IPv4Address("127.0.0.1"), 8080)
TAG, OTHER = "sp0123ab", "sp0123ac"
BLOCK = IPv4Network("10.64.16.0/20")
UNUSABLE = os.geteuid() != 0 or not all(
    shutil.which(tool, path=SYSTEM_PATH)
    for tool in ("conntrack", "ip", "nft", "nsenter", "unshare")
)
ALONE = pytest.mark.skipif(UNUSABLE, reason="needs root, ip and nft")

networks = st.builds(
    lambda number, size: IPv4Network((number >> (32 - size) << (32 - size), size)),
    st.integers(0, 2**32 - 1),
    st.integers(0, 32),
)
within = st.builds(
    lambda number, size: IPv4Network(
        ((int(CANDIDATES[0]) + number) >> (32 - size) << (32 - size), size)
    ),
    st.integers(0, CANDIDATES.num_addresses - 1),
    st.integers(12, 32),
)
blocks = st.builds(
    lambda number, size: IPv4Network(((10 << 24 | number) >> (32 - size) << (32 - size), size)),
    st.integers(0, 2**24 - 1),
    st.integers(16, 26),
)


def plan(tag: str = TAG, block: IPv4Network = BLOCK, **given: Any) -> Plan:
    return network.plan(tag, block, **{"front": FRONT, "ipv6": True, "mtu": 1400, **given})


class ChoosingTests(SynchronousTestCase):
    @given(
        st.lists(within | networks.filter(lambda one: one.prefixlen > 10), max_size=12), st.text()
    )
    def test_avoids_what_is_taken(self, taken: list[IPv4Network], name: str) -> None:
        """The network is a private one of its size that overlaps nothing taken, always the same."""
        root = Path("/ships", name.replace("\0", ""))
        try:
            chosen = network.choose(root, taken)
        except ContainerError:
            self.assertTrue(any(CANDIDATES.subnet_of(one) for one in collapse(taken)))
            return
        self.assertTrue(chosen.subnet_of(CANDIDATES))
        self.assertEqual(chosen.prefixlen, network.SIZE)
        self.assertFalse(any(chosen.overlaps(one) for one in taken))
        self.assertEqual(network.choose(root, taken), chosen)

    def test_stays_while_free(self) -> None:
        """What others take elsewhere moves no ship; ships differ."""
        first = network.choose(Path("/a"), [])
        others = [one for one in CANDIDATES.subnets(new_prefix=12) if not one.overlaps(first)]
        self.assertEqual(network.choose(Path("/a"), others), first)
        self.assertGreater(len({network.choose(Path(f"/{n}"), []) for n in range(50)}), 40)

    def test_last_one(self) -> None:
        """The only free network is found, wherever the search begins; with none free it says so."""
        every = list(CANDIDATES.subnets(new_prefix=network.SIZE))
        for free in (every[0], every[-1], every[500]):
            taken = [one for one in every if one != free]
            self.assertEqual(network.choose(Path("/a"), taken), free)
        with self.assertRaisesRegex(ContainerError, "STARPHLEET_NETWORK"):
            network.choose(Path("/a"), [CANDIDATES])

    def test_read(self) -> None:
        """An operator's network is a private one of IPv4, as large as is useful."""
        for text in ("10.0.0.0/16", "192.168.4.0/22", "172.16.9.64/26"):
            self.assertEqual(network.read_network(text), IPv4Network(text))
        for text in (
            "", "x", "10.0.0.1/16", "10.0.0.0", "10.0.0.0/15", "10.0.0.0/27", "10.0.0.0/33",
            "8.8.0.0/16", "fd00::/64", "172.32.0.0/16", "10.0.0.0/16\n", "10.0.0.0/16 10.1.0.0/16",
            "127.0.0.0/16", "169.254.0.0/16", "0.0.0.0/16", "240.0.0.0/16", "198.18.0.0/16",
        ):  # fmt: skip
            with self.assertRaisesRegex(
                ContainerError, "^STARPHLEET_NETWORK: ", msg=text
            ) as caught:
                network.read_network(text)
            self.assertNotIn("\n", str(caught.exception))

    def test_taken(self) -> None:
        """What this host is in and has routes to is taken, but for what is the ship's own."""
        found = network.taken_networks("sp-nobody")
        self.assertTrue(any(IPv4Address("127.0.0.1") in one for one in found))
        self.assertNotIn(IPv4Network("0.0.0.0/0"), found)
        self.assertFalse(
            any(IPv4Address("127.0.0.1") in one for one in network.taken_networks("lo"))
        )

    @ALONE
    def test_a_route_to_nowhere(self) -> None:
        """A network that the host has closed to itself as a whole is not taken, nor is a container
        that ended; one with a way to it is."""
        ship = Scene(self).ship
        ship.do("ip", "link", "set", "lo", "up")
        ship.do("ip", "route", "add", "blackhole", "10.64.0.0/10")
        ship.do("ip", "route", "add", "unreachable", "10.9.9.9")
        ship.do("ip", "route", "add", "10.70.0.0/16", "dev", "lo")
        show = "from containers.lxc.network import *; print(*taken_networks('sp'))"
        self.assertEqual(ship.do(sys.executable, "-c", show), "127.0.0.0/8 10.70.0.0/16\n")


def collapse(taken: list[IPv4Network]) -> list[IPv4Network]:
    """The same in as few as can be, each widened to the size of a ship's network."""
    wide = [
        one.supernet(new_prefix=network.SIZE) if one.prefixlen > network.SIZE else one
        for one in taken
    ]
    return list(collapse_addresses(wide))


class PlanTests(SynchronousTestCase):
    @given(blocks, st.from_regex(r"[a-z0-9]{1,9}", fullmatch=True))
    def test_zones(self, block: IPv4Network, name: str) -> None:
        """The zones share no address and fill the network; names fit the kernel's 15 letters."""
        here = plan(network.tag_of(Path("/", name)), block)
        zones = (here.ordered, here.tests)
        self.assertFalse(here.ordered.network.overlaps(here.tests.network))
        self.assertEqual(sum(one.network.num_addresses for one in zones), block.num_addresses)
        for zone in zones:
            self.assertTrue(zone.network.subnet_of(block))
            self.assertIn(zone.gateway, zone.network)
            assert zone.network6 is not None
            self.assertIn(zone.gateway6, zone.network6)
            self.assertTrue(zone.network6.subnet_of(IPv6Network("fd00::/8")))
            self.assertLessEqual(len(zone.bridge), 15)
        assert here.ordered.network6 is not None
        assert here.tests.network6 is not None
        self.assertFalse(here.ordered.network6.overlaps(here.tests.network6))

    @given(blocks, st.data())
    def test_veth(self, block: IPv4Network, data: st.DataObject) -> None:
        """Each address has an interface of its own name, which is no bridge's and fits."""
        here = plan(block=block)
        one, other = data.draw(st.lists(
            st.integers(0, block.num_addresses - 1), min_size=2, max_size=2, unique=True,
        ))  # fmt: skip
        names = {here.veth(block[one]), here.veth(block[other])}
        self.assertEqual(len(names - {here.ordered.bridge, here.tests.bridge}), 2)
        self.assertTrue(all(len(name) <= 15 and name.startswith(TAG) for name in names))
        self.assertNotEqual(here.address6(block[one]), here.address6(block[other]))
        of_both = {here.veth(zone.network[7]) for zone in (here.ordered, here.tests)}
        self.assertEqual(len(of_both), 2)

    def test_addresses(self) -> None:
        """An address says its zone; its other address is in the same one, never the ship's."""
        here = plan()
        for zone in (here.ordered, here.tests):
            for step in (2, 3, zone.network.num_addresses - 2):
                self.assertEqual(here.zone_of(zone.network[step]), zone)
                six = here.address6(zone.network[step])
                assert six is not None
                assert zone.network6 is not None
                self.assertIn(six, zone.network6)
                self.assertNotEqual(six, zone.gateway6)
        self.assertEqual((here.zone(ordered=True), here.zone(ordered=False)),
                         (here.ordered, here.tests))  # fmt: skip

    def test_without_ipv6(self) -> None:
        """Where the host has no IPv6, nothing of it is planned, told or ruled."""
        here = plan(ipv6=False)
        self.assertIsNone(here.address6(BLOCK[5]))
        self.assertIsNone(here.ordered.gateway6)
        said = json.dumps([network.links(here), network.sysctls(here)]) + rules(here, [])
        self.assertNotIn("ip6 ", said)
        self.assertNotIn("ipv6/", said)
        self.assertNotIn("fd", said.replace("daddr", ""))

    def test_ships_differ(self) -> None:
        """Two ships of one host have nothing by the same name, and IPv6 networks of their own."""
        one, other = plan(), plan(OTHER)
        self.assertNotEqual(network.tag_of(Path("/a")), network.tag_of(Path("/b")))
        self.assertNotEqual(one.ordered.network6, other.ordered.network6)
        self.assertNotEqual(one.ordered.bridge, other.ordered.bridge)

    def test_hosts(self) -> None:
        """A container knows itself, and the ship by the address in its own zone."""
        here = plan()
        for zone in (here.ordered, here.tests):
            lines = network.hosts(here, zone.network[7], "app").splitlines()
            self.assertIn(f"{zone.gateway}\tlocalship", lines)
            self.assertIn("127.0.0.1\tapp", lines)
            self.assertIn("127.0.0.1\tlocalhost", lines)


class PoolTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.plan = plan(block=IPv4Network("10.1.2.0/26"))
        self.pool = Pool(self.plan)

    def test_goes_round(self) -> None:
        """An address that was given back is the last to be given out again."""
        zone = self.plan.ordered
        every = [self.pool.reserve(str(n), zone) for n in range(zone.network.num_addresses - 3)]
        self.assertEqual(len(set(every)), len(every))
        self.pool.release("3")
        self.pool.release("20")
        self.assertEqual(self.pool.reserve("x", zone), every[3])
        pool = Pool(self.plan)
        first = pool.reserve("a", zone)
        pool.release("a")
        others = [pool.reserve(str(n), zone) for n in range(len(every) - 1)]
        self.assertNotIn(first, others)
        self.assertEqual(pool.reserve("b", zone), first)

    def test_never_the_ships(self) -> None:
        """The network's own address, the ship's and that of all at once are given to nobody."""
        for zone in (self.plan.ordered, self.plan.tests):
            found = {self.pool.reserve(f"{zone.bridge}{n}", zone) for n in range(29)}
            kept = {zone.network[0], zone.network[1], zone.network[-1]}
            self.assertEqual(found, set(zone.network) - kept)
            with self.assertRaisesRegex(ContainerError, f"no address is free in {zone.network}"):
                self.pool.reserve("one more", zone)
            self.pool.release(f"{zone.bridge}4")
            self.assertIn(self.pool.reserve("one more", zone), found)

    def test_wanted(self) -> None:
        """One gets what one wants if it is free and in one's zone, else another."""
        zone = self.plan.ordered
        wanted = zone.network[9]
        self.assertEqual(self.pool.reserve("a", zone, wanted), wanted)
        self.assertEqual(self.pool.reserve("a", zone, wanted), wanted)
        self.assertNotEqual(self.pool.reserve("b", zone, wanted), wanted)
        elsewhere = self.pool.reserve("c", self.plan.tests, zone.network[10])
        self.assertIn(elsewhere, self.plan.tests.network)

    def test_wanted_is_the_ships(self) -> None:
        """The ship's own address is given to nobody, even who wants it."""
        for zone in (self.plan.ordered, self.plan.tests):
            for taken in (zone.network[0], zone.gateway, zone.network[-1]):
                self.assertNotEqual(self.pool.reserve("a", zone, taken), taken)

    def test_one_each(self) -> None:
        """Who reserves again has given back what it had; who gives back nothing may."""
        zone = self.plan.ordered
        first = self.pool.reserve("a", zone)
        self.assertNotEqual(self.pool.reserve("a", zone), first)
        self.assertEqual(self.pool.reserve("b", zone, first), first)
        self.pool.release("nobody")
        self.assertNotEqual(self.pool.reserve("c", zone, first), first)

    def test_claimed(self) -> None:
        """What a living container has already is given to nobody else."""
        zone = self.plan.ordered
        claimed = zone.network[2]
        self.pool.claim("old", claimed)
        self.assertNotEqual(self.pool.reserve("a", zone), claimed)
        self.assertNotEqual(self.pool.reserve("b", zone, claimed), claimed)


exposed = st.dictionaries(
    st.integers(1, 65535), st.integers(2, 4000).map(lambda step: BLOCK[step]), max_size=20
).map(lambda ports: [Exposed(port, address) for port, address in sorted(ports.items())])


def tried(text: str) -> None:
    """Let nft read the rules, in a network of nobody's; change nothing."""
    done = subprocess.run(
        ["unshare", "--net", "nft", "-c", "-f", "-"], input=text, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.stderr}\n{text}"


@ALONE
class RulesTests(SynchronousTestCase):
    @given(exposed, st.booleans(), st.booleans())
    @settings(max_examples=25, deadline=None)
    def test_nft_takes_them(self, ports: list[Exposed], ipv6: bool, reach: bool) -> None:
        """nft takes the rules, with and without IPv6, whatever is exposed and who may reach it."""
        tried(rules(plan(ipv6=ipv6, tests_reach_ship=reach), ports))

    @given(st.integers(1, 65535))
    @settings(max_examples=15, deadline=None)
    def test_inside(self, port: int) -> None:
        """nft takes the rules in a container for each port that a service may have."""
        tried(network.inside(port))

    def test_port_80_inside(self) -> None:
        """A service on port 80 itself is led nowhere else, and named once."""
        tried(network.inside(80))
        self.assertIn("tcp dport 80 dnat ip to 127.0.0.1:80", network.inside(80))


@frozen
class Space:
    """A network namespace: it is there as long as a process that holds it."""

    holder: subprocess.Popen[str]

    @property
    def pid(self) -> str:
        return str(self.holder.pid)

    def words(self, *argv: str) -> list[str]:
        return [
            "nsenter",
            f"--target={self.pid}",
            "--net",
            "--mount",
            f"--wd={CHECKOUT}",
            "--",
            *argv,
        ]

    def do(self, *argv: str, stdin: str = "", check: bool = True) -> str:
        done = subprocess.run(self.words(*argv), input=stdin, capture_output=True, text=True)
        assert not check or done.returncode == 0, f"{argv}: {done.stdout} {done.stderr}"
        return done.stdout + done.stderr

    def settle(self) -> None:
        """Wait until nobody asks any more whether others have its IPv6 addresses."""
        deadline = time.monotonic() + 20
        while self.do("ip", "-6", "address", "show", "tentative").strip():
            assert time.monotonic() < deadline, "waited too long"
            time.sleep(0.05)

    def links(self) -> set[str]:
        return {line.split(":")[1].strip().partition("@")[0]
                for line in self.do("ip", "-o", "link").splitlines()}  # fmt: skip


# As a host is that was never told to forward; what a bridge passes on is nobody's to filter.
HOLD = """
mount -t sysfs none /sys && ip link set lo up && cd /proc/sys/net || exit
for setting in ipv4/ip_forward ipv6/conf/all/forwarding bridge/bridge-nf-call-*; do
  [ ! -e $setting ] || echo 0 >$setting || exit
done
echo ready && exec cat
"""
NET = """
import json, sys
from ipaddress import IPv4Address, IPv4Network
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from containers.interface import ContainerError
from containers.lxc.net import Net
from containers.lxc.network import plan
def asked():
    print("ready", flush=True)
    for line in sys.stdin:
        yield line.strip()
        print("done", flush=True)
async def main(reactor, words, *steps):
    tag, block, host, port, reach, ipv6, mtu = json.loads(words)
    front = (IPv4Address(host), port)
    net = Net(reactor, plan(tag, IPv4Network(block), front=front, tests_reach_ship=reach,
                            ipv6=ipv6, mtu=mtu))
    try:
        for step in steps or asked():
            name, _, given = step.partition(":")
            if name == "expose":
                pairs = [pair.split("=") for pair in given.split(",") if pair]
                await net.expose({int(port): IPv4Address(one) for port, one in pairs})
            elif name == "close":
                await net.close(IPv4Address(given))
            elif name == "later":
                net._stood -= 60
            elif name == "dropped":
                print("".join(f"{line}\\n" for line in await net.dropped()), end="")
            else:
                await getattr(net, name)()
    except ContainerError as error:
        sys.exit(str(error))
react(lambda reactor, *argv: Deferred.fromCoroutine(main(reactor, *argv)), sys.argv[1:])
"""
SERVE = """
import socket, sys, threading
family, host, port, word = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, *sys.argv[1:]
tcp, udp = socket.socket(family), socket.socket(family, socket.SOCK_DGRAM)
tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
tcp.bind((host, int(port))); tcp.listen(); udp.bind((host, int(port)))
def datagrams():
    while True:
        _, who = udp.recvfrom(99)
        udp.sendto(f"{word} {who[0]}".encode(), who)
threading.Thread(target=datagrams, daemon=True).start()
print("ready", flush=True)
while True:
    one, who = tcp.accept()
    one.sendall(f"{word} {who[0]}".encode()); one.close()
"""
ASK = """
import socket, sys
kind, host, port = sys.argv[1:]
family = socket.AF_INET6 if ":" in host else socket.AF_INET
one = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
one.settimeout(0.7)
try:
    one.connect((host, int(port)))
    if kind == "udp":
        one.send(b"?")
    print(one.recv(99).decode())
except TimeoutError:
    print("silence")
except OSError as error:
    print("refused")
"""
# One flow: a question for every line, and what came back.
FLOW = """
import socket, sys
host, port = sys.argv[1:]
one = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
one.settimeout(5)
one.connect((host, int(port)))
print("ready", flush=True)
for _ in sys.stdin:
    try:
        one.send(b"?")
        print(one.recv(99).decode(), flush=True)
    except OSError as error:
        print(error, flush=True)
"""
# What a router tells everybody on its link: a network, and that it is the way out.
ADVERTISE = """
import socket, struct, sys
one = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
link = socket.if_nametoindex("eth0")
one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, link)
one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
said = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
said += struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 3600, 3600, 0)
one.sendto(said + socket.inet_pton(socket.AF_INET6, sys.argv[1]), ("ff02::1", 0, 0, link))
"""
BOUND = """
import sys
from containers.lxc import gate
veth, init, port = sys.argv[1:]
print(gate.unbounded(veth, int(init), int(port)))
"""
# As ufw and others have it: nothing is forwarded but what somebody allows.
DROPS = """
table inet strict {
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
  }
}
"""
PYTHON = "/usr/bin/python3"


@define(eq=False)
class Scene:
    """A ship with a network of its own, and what is beside it."""

    case: SynchronousTestCase
    ship: Space = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.ship = self.space()

    def held(self, argv: Sequence[str]) -> subprocess.Popen[str]:
        """A process that goes with the test, once it has said that it is ready."""
        pipe = subprocess.PIPE
        process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True)
        assert process.stdin is not None
        assert process.stdout is not None
        self.case.addCleanup(process.stdout.close)
        self.case.addCleanup(process.stdin.close)
        self.case.addCleanup(process.wait)
        self.case.addCleanup(process.kill)
        assert process.stdout.readline() == "ready\n", argv
        return process

    def space(self, *also: str) -> Space:
        hold = self.held(["unshare", "--net", "--mount", *also, "sh", "-c", HOLD])
        return Space(hold)

    def serve(self, space: Space, host: str, port: int, word: str) -> None:
        self.held(space.words(PYTHON, "-c", SERVE, host, str(port), word))

    def net(self, plan: Plan, *steps: str, check: bool = True) -> str:
        """Have the ship's network do these steps, in a process of its own."""
        argv = (sys.executable, "-c", NET, self.words(plan), *steps)
        return self.ship.do(*argv, check=check)

    def words(self, plan: Plan) -> str:
        """What `NET` is to know of a plan."""
        block, (host, port) = str(plan.ordered.network.supernet()), plan.front
        ipv6 = plan.ordered.network6 is not None
        reach = plan.tests_reach_ship
        return json.dumps([plan.tag, block, str(host), port, reach, ipv6, plan.mtu])

    def helm(self, plan: Plan) -> Callable[[str], list[str]]:
        """The ship's network in a process that stays; called, it does a step and says lines."""
        process = self.held(self.ship.words(sys.executable, "-c", NET, self.words(plan)))

        def do(step: str) -> list[str]:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{step}\n")
            process.stdin.flush()
            said = []
            while (line := process.stdout.readline().strip()) != "done":
                assert line, step
                said.append(line)
            return said

        return do

    def container(self, plan: Plan, address: IPv4Address) -> Space:
        """A container as LXC and the ship connect it, with a service on its loopback."""
        one = self.space("--user", "--map-root-user")
        zone, veth = plan.zone_of(address), plan.veth(address)
        self.ship.do("ip", "link", "add", veth, "type", "veth", "peer", "eth0", "netns", one.pid)
        self.ship.do("ip", "link", "set", veth, "master", zone.bridge, "up")
        one.do("ip", "address", "add", f"{address}/{zone.network.prefixlen}", "dev", "eth0")
        one.do("ip", "link", "set", "eth0", "up")
        one.do("ip", "route", "add", "default", "via", str(zone.gateway))
        if zone.network6 is not None:
            six = f"{plan.address6(address)}/{zone.network6.prefixlen}"
            one.do("ip", "address", "add", six, "dev", "eth0", "nodad")
            one.do("ip", "route", "add", "default", "via", str(zone.gateway6))
        inside = ("nsenter", f"--target={one.pid}", "--user", "--net")
        self.ship.do(*inside, "sh", "-c", config.bounds(5000))
        said = self.ship.do(sys.executable, "-c", BOUND, veth, one.pid, "5000")
        self.case.assertEqual(said, "\n")
        self.serve(one, "127.0.0.1", 5000, str(address))
        return one

    def world(self) -> Space:
        """A host beside the ship, to which the ship is 192.0.2.1 and 2001:db8::1."""
        world = self.space()
        self.ship.do("ip", "link", "add", "up0", "type", "veth", "peer", "eth0", "netns", world.pid)
        for space, link, step in ((self.ship, "up0", 1), (world, "eth0", 2)):
            space.do("ip", "address", "add", f"192.0.2.{step}/24", "dev", link)
            space.do("ip", "address", "add", f"2001:db8::{step}/64", "dev", link, "nodad")
            space.do("ip", "link", "set", link, "up")
        world.do("ip", "route", "add", "default", "via", "192.0.2.1")
        world.do("ip", "route", "add", "default", "via", "2001:db8::1")
        return world

    def asked(self, space: Space, host: object, port: int, kind: str = "tcp") -> str:
        return space.do(PYTHON, "-c", ASK, kind, str(host), str(port)).strip()


@ALONE
class NetTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.scene, self.plan = Scene(self), plan()
        self.ship = self.scene.ship

    def table(self, tag: str) -> str:
        return self.ship.do("nft", "list", "table", "inet", tag, check=False)

    def addresses(self) -> str:
        return self.ship.do("ip", "address", "show", "scope", "global")

    def test_up_and_down(self) -> None:
        """Up, there are two bridges and a table; up again is the same; down, nothing is left."""
        self.scene.net(self.plan, "up")
        bridges = {self.plan.ordered.bridge, self.plan.tests.bridge}
        self.assertEqual(self.ship.links(), {"lo", *bridges})
        for zone in (self.plan.ordered, self.plan.tests):
            shown = self.ship.do("ip", "address", "show", zone.bridge)
            self.assertIn(f"inet {zone.gateway}/21 ", shown)
            self.assertIn(f"inet6 {zone.gateway6}/65 ", shown)
            self.assertIn("mtu 1400", shown)
        self.assertEqual(self.ship.do("cat", "/proc/sys/net/ipv4/ip_forward"), "1\n")
        before = self.ship.do("nft", "list", "ruleset"), self.addresses()
        self.scene.net(self.plan, "up", "up")
        after = self.ship.do("nft", "list", "ruleset"), self.addresses()
        self.assertEqual(after, before)
        self.scene.net(self.plan, f"close:{self.plan.tests.network[9]}", "down", "down")
        self.assertEqual(self.ship.links(), {"lo"})
        self.assertEqual(self.ship.do("nft", "list", "ruleset"), "")
        self.assertEqual(self.ship.do("ip", "route"), "")

    def test_closed(self) -> None:
        """Who asks for a container that is gone is told so at once; an address that is none of the
        ship's is left alone."""
        own, other = self.plan.ordered.network[9], IPv4Address("10.200.0.9")
        self.scene.net(self.plan, "up", f"close:{own}", f"close:{other}")
        self.assertIn(f"unreachable {own}", self.ship.do("ip", "route"))
        self.assertNotIn(str(other), self.ship.do("ip", "route"))

    def test_missing_parts(self) -> None:
        """What was taken away by somebody is made anew, and what is there still stays."""
        self.scene.net(self.plan, "up")
        self.ship.do("ip", "link", "delete", self.plan.tests.bridge)
        self.ship.do("nft", "delete", "table", "inet", TAG)
        kept = self.ship.do("cat", f"/sys/class/net/{self.plan.ordered.bridge}/ifindex")
        self.scene.net(self.plan, "up")
        self.assertIn(self.plan.tests.bridge, self.ship.links())
        self.assertIn("chain forward", self.table(TAG))
        now = self.ship.do("cat", f"/sys/class/net/{self.plan.ordered.bridge}/ifindex")
        self.assertEqual(now, kept)

    def test_flushed(self) -> None:
        """Rules that somebody flushed are put back, with all that is exposed, while the ship is
        up; so is a bridge, and the host forwards again."""
        helm = self.scene.helm(self.plan)
        helm("up")
        helm(f"expose:4000={BLOCK[9]}")
        before = self.table(TAG)
        self.assertIn("dport 4000", before)
        own = Path("/proc/self/ns/net").stat().st_ino
        self.assertNotIn(f"[{own}]", self.ship.do("readlink", "/proc/self/ns/net"))
        forwarding = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")
        for spoil in (
            "nft flush ruleset", f"ip link delete {TAG}o",
            *(f"echo 0 >/proc/sys/net/{setting}" for setting in forwarding),
        ):  # fmt: skip
            self.ship.do("sh", "-c", spoil)
            helm("up")  # it has just looked
            helm("later")
            helm("up")
            self.assertEqual(self.table(TAG), before)
            self.assertIn(f"{TAG}o", self.ship.links())
            for setting in forwarding:
                self.assertEqual(self.ship.do("cat", f"/proc/sys/net/{setting}"), "1\n", spoil)

    def test_rules_of_others(self) -> None:
        """Others' rules stay as they are, byte for byte, through up, expose and down."""
        mine = (
            "table inet filter {\n chain input {\n"
            "  type filter hook input priority 0; policy accept;\n"
            '  tcp dport 22 counter accept\n  iifname "sp*" accept\n }\n}\n'
            "table ip nat {\n chain prerouting {\n"
            "  type nat hook prerouting priority dstnat; policy accept;\n"
            "  tcp dport 43000 redirect to :9\n }\n}\n"
        )
        self.ship.do("nft", "-f", "-", stdin=mine)
        before = self.ship.do("nft", "list", "ruleset")
        self.scene.net(self.plan, "up", f"expose:43000={BLOCK[9]}")
        for table in ("inet filter", "ip nat"):
            found = self.ship.do("nft", "list", "table", *table.split())
            self.assertIn(found.strip(), before)
        self.scene.net(self.plan, "down")
        self.assertEqual(self.ship.do("nft", "list", "ruleset"), before)

    def test_two_ships(self) -> None:
        """Two ships of one host have tables beside each other; one's end is not the other's."""
        other = plan(OTHER, IPv4Network("10.70.0.0/20"))
        self.scene.net(self.plan, "up")
        before = self.table(TAG)
        self.scene.net(other, "up", "expose:4000=10.70.0.9")
        self.assertEqual(self.table(TAG), before)
        self.scene.net(other, "down")
        self.assertEqual(self.table(TAG), before)
        self.assertEqual(self.ship.links(), {"lo", f"{TAG}o", f"{TAG}t"})

    def test_expose(self) -> None:
        """Exactly what is exposed is led there, by tcp and udp; what was exposed before is not."""
        self.scene.net(self.plan, "up", f"expose:4000={BLOCK[9]},4001={BLOCK[10]}")
        shown = self.table(TAG)
        for protocol in ("tcp", "udp"):
            rule = f"fib daddr type local {protocol} dport 4000 dnat ip to {BLOCK[9]}:4000"
            self.assertEqual(shown.count(rule), 2, shown)
        self.scene.net(self.plan, "up", f"expose:4000={BLOCK[9]}", f"expose:4001={BLOCK[11]}")
        shown = self.table(TAG)
        self.assertNotIn("dport 4000", shown)
        self.assertIn(f"to {BLOCK[11]}:4001", shown)

    def test_exposed_before_up(self) -> None:
        """What is to be exposed before the network is up is exposed when it is."""
        self.scene.net(self.plan, f"expose:4000={BLOCK[9]}")
        self.assertEqual(self.ship.do("nft", "list", "ruleset"), "")
        self.scene.net(self.plan, f"expose:4000={BLOCK[9]}", "up")
        self.assertIn("dport 4000", self.table(TAG))

    def test_refused(self) -> None:
        """What the kernel refuses is an error of one line that names the tool."""
        said = self.scene.net(plan("a-name-too-long-for-links"), "up", check=False)
        self.assertRegex(said.strip(), r"\Athe network of the containers: ip: .+\Z")


@ALONE
class RouterTests(SynchronousTestCase):
    """A host that has its IPv6 from a router, who tells it."""

    def setUp(self) -> None:
        self.scene, self.plan = Scene(self), plan()
        self.ship, self.router = self.scene.ship, self.scene.world()
        self.tell("up0", "accept_ra", "1")
        self.ship.settle()
        self.router.settle()

    def tell(self, link: str, setting: str, value: str) -> None:
        self.ship.do("sh", "-c", f"echo {value} >/proc/sys/net/ipv6/conf/{link}/{setting}")

    def told(self, link: str, setting: str = "accept_ra") -> str:
        return self.ship.do("cat", f"/proc/sys/net/ipv6/conf/{link}/{setting}").strip()

    def hears(self, network: str) -> bool:
        """Whether the ship takes an address in this network from the router."""
        self.router.do(PYTHON, "-c", ADVERTISE, network)
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            if network[:-1] in self.ship.do("ip", "-6", "address", "show", "dev", "up0"):
                return True
            time.sleep(0.02)
        return False

    def way_out(self) -> str:
        return self.ship.do("ip", "-6", "route", "show", "default", "proto", "ra")

    def test_it_goes_on_hearing(self) -> None:
        """Its way out and its addresses are kept while it forwards, and what comes is heard."""
        self.assertTrue(self.hears("2001:db8:7::"))
        before = self.way_out()
        self.assertIn("default via fe80:", before)
        self.scene.net(self.plan, "up", "up")
        self.assertEqual(self.told("all", "forwarding"), "1")
        self.assertEqual(self.way_out().split()[:5], before.split()[:5])
        self.assertIn("2001:db8:7:", self.ship.do("ip", "-6", "address", "show", "dev", "up0"))
        self.assertTrue(self.hears("2001:db8:8::"))

    def test_nobody_else_is_heard(self) -> None:
        """What listened to no router, or forwards already, listens to none; nor do the bridges."""
        self.tell("up0", "accept_ra", "0")
        self.ship.do("ip", "link", "add", "deaf0", "type", "bridge")
        self.tell("deaf0", "forwarding", "1")
        self.scene.net(self.plan, "up")
        bridges = (self.plan.ordered.bridge, self.plan.tests.bridge)
        self.assertEqual([self.told(link) for link in bridges], ["0", "0"])
        self.assertEqual((self.told("up0"), self.told("deaf0")), ("0", "1"))
        self.assertFalse(self.hears("2001:db8:7::"))


@ALONE
class PacketTests(SynchronousTestCase):
    def begin(self, **given: Any) -> None:
        self.scene, self.plan = Scene(self), plan(**given)
        self.ship = self.scene.ship
        self.scene.net(self.plan, "up")
        self.scene.serve(self.ship, "127.0.0.1", 8080, "front")

    def ordered(self, step: int = 9) -> tuple[IPv4Address, Space]:
        address = self.plan.ordered.network[step]
        return address, self.scene.container(self.plan, address)

    def settle(self, *spaces: Space) -> None:
        for space in (self.ship, *spaces):
            space.settle()

    def test_the_way_to_the_ship(self) -> None:
        """An ordered service reaches the front door as localship, and no other port of the ship."""
        self.begin()
        address, one = self.ordered()
        gateway = self.plan.ordered.gateway
        self.scene.serve(self.ship, "0.0.0.0", 2222, "ssh")
        self.assertEqual(self.scene.asked(one, gateway, 80), f"front {address}")
        self.assertEqual(self.scene.asked(one, gateway, 2222), "refused")
        self.assertEqual(self.scene.asked(one, gateway, 2222, "udp"), "refused")

    def test_loopback_of_the_ship(self) -> None:
        """What listens on the ship's loopback alone cannot be reached by a route to it."""
        self.begin()
        _, one = self.ordered()
        self.scene.serve(self.ship, "127.0.0.2", 8080, "secret")
        one.do("sh", "-c", "echo 0 >/proc/sys/net/ipv4/conf/all/route_localnet")
        one.do("ip", "address", "delete", "127.0.0.1/8", "dev", "lo")
        one.do("ip", "route", "flush", "table", "local", "127.0.0.0/8", check=False)
        one.do("sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet")
        one.do("ip", "route", "add", "127.0.0.0/8", "via", str(self.plan.ordered.gateway))
        self.assertEqual(self.scene.asked(one, "127.0.0.2", 8080), "silence")

    def test_tests_are_apart(self) -> None:
        """A test service reaches no ordered one, exposed or not; the ship where that is said."""
        for reach, found in ((False, "refused"), (True, "front {0}")):
            self.begin(tests_reach_ship=reach)
            address = self.plan.tests.network[5]
            test, (ordered, there) = self.scene.container(self.plan, address), self.ordered()
            for gateway in (self.plan.tests.gateway, self.plan.ordered.gateway):
                self.assertEqual(self.scene.asked(test, gateway, 80), found.format(address))
            self.assertEqual(self.scene.asked(test, ordered, 5000), "refused")
            self.assertEqual(self.scene.asked(test, ordered, 80), "refused")
            self.scene.net(self.plan, "up", f"expose:43000={ordered}")
            self.scene.serve(there, "::", 43000, "exposed")
            self.settle(test, there)
            for host in (self.plan.tests.gateway, self.plan.tests.gateway6):
                self.assertEqual(self.scene.asked(self.ship, host, 43000)[:7], "exposed")
                answer = self.scene.asked(test, host, 43000)
                self.assertIn(answer, ("refused", "silence"), host)

    def test_neighbours(self) -> None:
        """No service reaches another of its own zone, by either address."""
        self.begin()
        one, (other, there) = self.ordered(9)[1], self.ordered(10)
        six = self.plan.address6(other)
        self.scene.serve(there, "::", 6000, "six")
        for host, port in ((other, 5000), (other, 80), (six, 6000)):
            self.assertIn(self.scene.asked(one, host, port), ("refused", "silence"))

    def test_the_ship_reaches(self) -> None:
        """The ship reaches a service that listens on its own loopback alone; so does port 80."""
        self.begin()
        address, one = self.ordered()
        for port in (80, 5000):
            answer = self.scene.asked(self.ship, address, port)
            self.assertEqual(answer, f"{address} {self.plan.ordered.gateway}")
        self.assertTrue(self.scene.asked(one, "127.0.0.1", 80).startswith(f"{address} "))

    def test_the_way_out(self) -> None:
        """Every container reaches the world in the ship's name, by IPv4 and IPv6."""
        self.begin()
        world = self.scene.world()
        self.scene.serve(world, "0.0.0.0", 7000, "world")
        self.scene.serve(world, "2001:db8::2", 7001, "world")
        test = self.scene.container(self.plan, self.plan.tests.network[5])
        for one in (self.ordered()[1], test):
            self.assertEqual(self.scene.asked(one, "192.0.2.2", 7000), "world 192.0.2.1")
            self.assertEqual(self.scene.asked(one, "192.0.2.2", 7000, "udp"), "world 192.0.2.1")
            self.assertEqual(self.scene.asked(one, "2001:db8::2", 7001), "world 2001:db8::1")

    def test_the_way_in(self) -> None:
        """The world reaches what is exposed, with its own address seen, and nothing else."""
        self.begin()
        world, (address, one) = self.scene.world(), self.ordered()
        self.scene.serve(one, "0.0.0.0", 43000, "exposed")
        self.scene.serve(one, "::", 43001, "hidden")
        for host, port in (("192.0.2.1", 43000), (address, 43000), (address, 80)):
            self.assertIn(self.scene.asked(world, host, port), ("refused", "silence"))
        six = self.plan.address6(address)
        self.assertIn(self.scene.asked(world, six, 43001), ("refused", "silence"))
        self.scene.net(self.plan, "up", f"expose:43000={address}")
        for kind in ("tcp", "udp"):
            found = self.scene.asked(world, "192.0.2.1", 43000, kind)
            self.assertEqual(found, "exposed 192.0.2.2")
            for host in ("127.0.0.1", "192.0.2.1"):
                found = self.scene.asked(self.ship, host, 43000, kind)
                self.assertTrue(found.startswith("exposed "), (host, kind, found))
        self.assertEqual(self.scene.asked(world, address, 80), "silence")

    def test_the_way_in_by_ipv6(self) -> None:
        """By IPv6 too the world and the ship reach what is exposed, until it is not, and that
        alone."""
        self.begin()
        world, (address, one) = self.scene.world(), self.ordered()
        self.scene.serve(one, "::", 43000, "exposed")
        self.scene.serve(one, "::", 43001, "hidden")
        helm = self.scene.helm(self.plan)
        helm("up")
        helm(f"expose:43000={address}")
        six = self.plan.address6(address)
        self.settle(world, one)
        for kind in ("tcp", "udp"):
            found = self.scene.asked(world, "2001:db8::1", 43000, kind)
            self.assertEqual(found, "exposed 2001:db8::2")
            for host in ("2001:db8::1", self.plan.ordered.gateway6):
                found = self.scene.asked(self.ship, host, 43000, kind)
                self.assertTrue(found.startswith("exposed "), (host, kind, found))
            self.assertEqual(self.scene.asked(self.ship, "::1", 43000, kind), "refused")
            for hidden in ("2001:db8::1", six):
                found = self.scene.asked(world, hidden, 43001, kind)
                self.assertIn(found, ("refused", "silence"))
        helm("expose:")
        for kind in ("tcp", "udp"):
            self.assertEqual(self.scene.asked(world, "2001:db8::1", 43000, kind), "refused")

    def test_a_firewall_that_drops(self) -> None:
        """A firewall of the host that drops what is forwarded is told of, until it lets it
        through, and left as it is; one that lets it through is no news."""
        self.begin()
        (address, one), test = self.ordered(), self.plan.tests.network[5]
        world, other = self.scene.world(), self.scene.container(self.plan, test)
        self.scene.serve(world, "0.0.0.0", 7000, "world")
        self.scene.serve(world, "2001:db8::2", 7000, "world")
        self.scene.serve(one, "::", 43000, "exposed")
        self.settle(world, one, other)
        helm = self.scene.helm(self.plan)
        helm("up")
        helm(f"expose:43000={address}")
        out = "the firewall of this host drops what containers send to the world"
        way_in = "the firewall of this host drops what is sent to exposed ports"
        hint = f": let it forward from and to {TAG}*"
        self.assertEqual(helm("dropped"), [])
        self.ship.do("nft", "-f", "-", stdin=DROPS)
        before = self.ship.do("nft", "list", "table", "inet", "strict")
        for host in ("192.0.2.2", "192.0.2.2", "2001:db8::2"):
            self.assertEqual(helm("dropped"), [])
            self.assertEqual(self.scene.asked(other, host, 7000), "silence")
        self.assertEqual(helm("dropped"), [out + hint])
        for kind in ("tcp", "udp", "udp"):
            self.assertEqual(self.scene.asked(world, "192.0.2.1", 43000, kind), "silence")
        self.assertEqual(helm("dropped"), [out + hint, way_in + hint])
        self.assertEqual(self.ship.do("nft", "list", "table", "inet", "strict"), before)
        self.assertEqual(self.scene.asked(self.ship, "192.0.2.1", 43000)[:7], "exposed")
        self.assertEqual(helm("dropped"), [out + hint, way_in + hint])
        self.ship.do("nft", "add", "rule", "inet", "strict", "forward", "iifname", f"{TAG}*",
                     "accept")  # fmt: skip
        self.assertEqual(self.scene.asked(other, "2001:db8::2", 7000), "world 2001:db8::1")
        self.assertEqual(helm("dropped"), [way_in + hint])
        self.ship.do("nft", "add", "rule", "inet", "strict", "forward", "oifname", f"{TAG}*",
                     "accept")  # fmt: skip
        for kind in ("tcp", "udp", "tcp"):
            found = self.scene.asked(world, "2001:db8::1", 43000, kind)
            self.assertEqual(found, "exposed 2001:db8::2")
        self.assertEqual(helm("dropped"), [])

    def test_what_the_ship_refuses(self) -> None:
        """What the ship's own rules refuse is not the host's firewall's doing."""
        self.begin()
        (ordered, _), test = self.ordered(), self.plan.tests.network[5]
        world, other = self.scene.world(), self.scene.container(self.plan, test)
        self.ship.do("ip", "route", "add", "default", "via", "192.0.2.2")
        helm = self.scene.helm(self.plan)
        helm("up")
        for _ in range(4):
            for host in ("169.254.169.254", ordered):
                self.scene.asked(other, host, 5000, "udp")
            self.scene.asked(world, ordered, 5000, "udp")
        self.assertEqual(helm("dropped"), [])

    def test_open_flows_follow(self) -> None:
        """Who goes on asking from the same UDP port is answered by the release that serves now."""
        self.begin()
        world, releases = self.scene.world(), [self.ordered(9), self.ordered(10)]
        for number, (_, one) in enumerate(releases):
            self.scene.serve(one, "::", 43000, f"release {number}")
        helm = self.scene.helm(self.plan)
        helm("up")
        self.settle(world, *(one for _, one in releases))
        for host, seen in (("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")):
            flow = self.scene.held(world.words(PYTHON, "-c", FLOW, host, "43000"))
            for number in (0, 1, 0):
                helm(f"expose:43000={releases[number][0]}")
                assert flow.stdin is not None
                assert flow.stdout is not None
                flow.stdin.write("?\n")
                flow.stdin.flush()
                self.assertIn(f"release {number} ", flow.stdout.readline(), seen)
