"""Whom a container reaches over the network: the ship's front door if it is an ordered one's, the
world beyond the host, and nobody else. And who it can pretend to be."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Coroutine
from ipaddress import IPv4Address, IPv6Address
from typing import Any, TypeVar
from unittest import SkipTest

import psutil
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from containers.interface import Address, Container
from containers.lxc.network import has_ipv6
from tests.containers.lxc_scene import PYTHON, LxcScene, trying

T = TypeVar("T")
REFUSED = {"EPERM", "EACCES"}
# A service that says hello to all who come, over TCP and both IPs, and logs what comes by UDP.
NEIGHBOUR = """
import os, socket, threading
six = socket.has_dualstack_ipv6()
family, everywhere = (socket.AF_INET6, "::") if six else (socket.AF_INET, "")
port = int(os.environ["PORT"])
datagrams = socket.socket(family, socket.SOCK_DGRAM)
datagrams.bind((everywhere, port))
def listen():
    while True:
        print("datagram", datagrams.recvfrom(99)[0].decode(), flush=True)
threading.Thread(target=listen, daemon=True).start()
hidden = socket.socket(socket.AF_UNIX)
hidden.bind("\\0own")
hidden.listen()
server = socket.create_server((everywhere, port), family=family, dualstack_ipv6=six)
print("ready", flush=True)
while True:
    caller, _ = server.accept()
    caller.sendall(b"hello")
    caller.close()
"""
# After its patience in seconds its arguments are HOST PORT; tells what each says, "" for nothing:
# {"HOST PORT": "hello"}. With HOST@eth0 the question leaves by eth0 whatever the routes say.
ASK = """
import json, socket, sys, threading, time
said = {}
def young():  # as long as a new address of IPv6 is tried out, nothing is sent from it
    with open("/proc/net/if_inet6") as addresses:
        return any(int(line.split()[4], 16) & 0x40 for line in addresses)
deadline = time.monotonic() + 5
while any(":" in at for at in sys.argv) and young() and time.monotonic() < deadline:
    time.sleep(0.02)
def ask(at):
    host, port = at.split()
    said[at] = ""
    try:
        host, _, by = host.partition("@")
        place = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        with socket.socket(place[0]) as asked:
            if by:
                asked.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, by.encode())
            asked.settimeout(float(sys.argv[1]))
            asked.connect(place[4])
            said[at] = asked.recv(99).decode()
    except OSError:
        pass
asking = [threading.Thread(target=ask, args=(at,)) for at in sys.argv[2:]]
for one in asking:
    one.start()
for one in asking:
    one.join()
print(json.dumps(said))
"""
SIX = has_ipv6()


class HostService:
    """Somebody on the host who says `what` to all who come."""

    def __init__(self, at: str, port: int, what: str) -> None:
        family = socket.AF_INET6 if ":" in at else socket.AF_INET
        self.server = socket.create_server((at, port), family=family, dualstack_ipv6=at == "::")
        self.port: int = self.server.getsockname()[1]
        self.what = what
        self.thread = threading.Thread(target=self.answer)
        self.thread.start()

    def answer(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self.server.accept()
                with caller:
                    caller.sendall(self.what.encode())

    def close(self) -> None:
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        self.thread.join()


class NetworkScene(LxcScene):
    async def setUp(self) -> None:  # type: ignore[override]
        self.front = HostService("127.0.0.1", 0, "front")
        self.addCleanup(self.front.close)
        self.http_port = self.front.port
        await super().setUp()
        self.plan = self.runtime.plan

    def listen(self, at: str, port: int, what: str) -> HostService:
        service = HostService(at, port, what)
        self.addCleanup(service.close)
        return service

    async def neighbour(
        self, name: str, *, ordered: bool = True, six: bool = SIX
    ) -> tuple[Container, Address]:
        """A service that runs, and answers the host at its address, with `six` at both."""
        container = await self.make(name, ordered=ordered)
        log = self.place / f"{name}.log"
        address = await self.serve(container, PYTHON, "-c", NEIGHBOUR, log=log)
        await self.until(lambda: "ready" in log.read_text())
        for at in self.places(address)[: 2 if six else 1]:
            await deferToThread(self.answers, at)
        return container, address

    def places(self, address: Address) -> list[str]:
        """HOST PORT of a service, of IPv4 and of IPv6."""
        other = self.plan.address6(IPv4Address(address.host))
        return [f"{host} {address.port}" for host in (address.host, other) if host]

    def answers(self, at: str) -> None:
        """Wait until the service there says hello."""
        host, port = at.split()
        for _ in range(500):
            with contextlib.suppress(OSError):
                with socket.create_connection((host, int(port)), 5) as asked:
                    self.assertEqual(asked.recv(99), b"hello")
                return
            time.sleep(0.01)
        raise AssertionError(f"{at} does not answer")

    async def asked(
        self, container: Container, *places: str, patience: float = 0.8
    ) -> dict[str, str]:
        """What those at HOST PORT say to the container, "" for nothing."""
        _, out = await self.run_in(container, PYTHON, "-c", ASK, str(patience), *places)
        found: dict[str, str] = json.loads(out)
        return found

    async def all_say(self, what: str, container: Container, *places: str) -> None:
        """Everyone at HOST PORT says that to the container."""
        found = await self.asked(container, *places, patience=10)
        self.assertEqual(found, dict.fromkeys(places, what))


def together(*work: Coroutine[Any, Any, T]) -> Deferred[list[T]]:
    """What each of them comes to, all of them under way at once."""
    return gatherResults([Deferred.fromCoroutine(one) for one in work], consumeErrors=True)


class NeighboursTests(NetworkScene):
    """Each promise fails when its guard in `containers.lxc` is taken out."""

    async def nobody_reached(self, *, same: bool) -> None:
        zones = (True, False)
        found = await together(
            *(self.neighbour(f"asked{zone:d}", ordered=zone) for zone in zones),
            *(self.neighbour(f"asking{zone:d}", ordered=zone) for zone in zones),
        )
        places = {zone: self.places(found[not zone][1]) for zone in zones}
        builds = [await self.make(f"build{zone:d}", ordered=zone) for zone in zones]
        asking = [(zone, one) for zone, (one, _) in zip(zones, found[2:], strict=True)]
        asking += zip(zones, builds, strict=True)
        said = await together(
            *(self.asked(one, *places[zone if same else not zone]) for zone, one in asking)
        )
        for (_, one), answers in zip(asking, said, strict=True):
            self.assertEqual((len(answers), set(answers.values())), (1 + SIX, {""}), one.name)

    async def test_same_network(self) -> None:
        """No ordered service or build reaches another ordered service, no test another test."""
        await self.nobody_reached(same=True)

    async def test_other_network(self) -> None:
        """No ordered service or build reaches a test service, and no test an ordered one."""
        await self.nobody_reached(same=False)

    async def test_reaches_itself(self) -> None:
        """A service finds itself at the loopback, by its port and by port 80."""
        one, _ = await self.neighbour("a", six=False)
        await self.all_say("hello", one, "127.0.0.1 3000", "localhost 80")

    async def test_exposed_ports(self) -> None:
        """What a service exposes to the world, other containers do not reach."""
        with socket.create_server(("", 0)) as free:
            port = free.getsockname()[1]
        other = await self.make("b")
        log = self.place / "b.log"
        address = await self.serve(other, PYTHON, "-c", NEIGHBOUR, log=log, env={"PORT": str(port)})
        await self.runtime.expose({port: address})
        await self.until(lambda: "ready" in log.read_text())
        exposed = f"{self.plan.ordered.gateway} {port}"
        await deferToThread(self.answers, exposed)
        for ordered in (True, False):
            one = await self.make(f"asking{ordered:d}", ordered=ordered)
            self.assertEqual(await self.asked(one, exposed), {exposed: ""})

    async def test_knows_no_neighbour(self) -> None:
        """By ARP, IPv6's own addresses of a link, and broadcasts, nobody is found."""
        (one, _), (other, theirs) = await together(self.neighbour("a"), self.neighbour("b"))
        log = self.place / "b.log"
        _, out = await self.run_in(
            other, "cat", "/proc/net/if_inet6", "/sys/class/net/eth0/address"
        )
        *_, hardware = out.split()
        local = [str(IPv6Address(int(word, 16))) for word in out.split() if word.startswith("fe80")]
        places = [*self.places(theirs), *(f"{at}%eth0 {theirs.port}" for at in local)]
        everybody = [(str(self.plan.ordered.network.broadcast_address), socket.AF_INET)]
        everybody += [("ff02::1%eth0", socket.AF_INET6)] if SIX else []
        for at, family in everybody:
            shout = f"""
import socket
shouting = socket.socket({int(family)}, socket.SOCK_DGRAM)
shouting.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
shouting.sendto(b"anybody", socket.getaddrinfo({at!r}, {theirs.port}, {int(family)})[0][4])
"""
            exit, out = await self.run_in(one, PYTHON, "-c", shout)
            self.assertTrue(exit.ok, out)
        self.assertEqual(set((await self.asked(one, *places)).values()), {""})
        _, out = await self.run_in(one, "ip", "neigh")
        self.assertNotIn(hardware, out)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as direct:
            direct.sendto(b"host", (theirs.host, theirs.port))
        await self.until(lambda: "datagram host" in log.read_text())
        self.assertNotIn("anybody", log.read_text())

    async def test_abstract_sockets(self) -> None:
        """A unix socket without a file, of the host or of another container, is not there."""
        one, _ = await self.neighbour("a", six=False)
        other = await self.make("b")
        with socket.socket(socket.AF_UNIX) as hidden:
            hidden.bind(f"\0{self.secret}")
            hidden.listen()
            attempts = f"""
                "another's": lambda: socket.socket(socket.AF_UNIX).connect("\\0own"),
                "the host's": lambda: socket.socket(socket.AF_UNIX).connect("\\0{self.secret}"),
            """
            found = await self.attempt(other, attempts)
            self.assertEqual(set(found.values()), {"ECONNREFUSED"})
            found = await self.attempt(one, attempts)
            self.assertEqual(found, {"another's": "done", "the host's": "ECONNREFUSED"})


class ShipTests(NetworkScene):
    """What of the host a container reaches."""

    async def of_the_host(self) -> list[str]:
        """Services of the host, at every address that it has, but for its front door."""
        container = await self.make("up")
        await self.run_in(container, "true")
        zones = (self.plan.ordered, self.plan.tests)
        gateways = [str(zone.gateway) for zone in zones]
        anywhere = self.listen("::" if SIX else "", 0, "host")
        there = [self.listen(at, 0, "host") for at in gateways]
        places = [f"{at} {service.port}" for at, service in zip(gateways, there, strict=True)]
        places.append(f"127.0.0.1@eth0 {self.front.port}")
        hosts = ["localship", "127.0.0.1", "127.0.0.1@eth0"]
        for name, addresses in psutil.net_if_addrs().items():
            for one in addresses:
                if one.family == socket.AF_INET:
                    hosts.append(one.address)
                elif one.family == socket.AF_INET6:
                    at = one.address.partition("%")[0]
                    link = at.startswith("fe80") and name.startswith(self.plan.tag)
                    hosts.append(f"{at}%eth0" if link else at)
        return [*places, *(f"{host} {anywhere.port}" for host in hosts)]

    async def test_no_service_of_the_host(self) -> None:
        """Neither a service nor a build reaches what listens on the host, at whatever address."""
        places = await self.of_the_host()
        zones = (True, False)
        services = await together(
            *(self.neighbour(f"service{zone:d}", ordered=zone) for zone in zones)
        )
        builds = [await self.make(f"build{zone:d}", ordered=zone) for zone in zones]
        asking = [*(one for one, _ in services), *builds]
        said = await together(*(self.asked(one, *places) for one in asking))
        for one, answers in zip(asking, said, strict=True):
            self.assertEqual(len(answers), len(set(places)))
            self.assertEqual({at: said for at, said in answers.items() if said}, {}, one.name)

    async def test_front_door(self) -> None:
        """Ordered containers reach the ship's front door, as `localship` and by its port."""
        container = await self.make("a")
        await self.run_in(container, "true")
        gateway = str(self.plan.ordered.gateway)
        self.listen(gateway, self.front.port, "front")
        places = ("localship 80", f"{gateway} 80", f"{gateway} {self.front.port}")
        for asking in (container, (await self.neighbour("b", six=False))[0]):
            await self.all_say("front", asking, *places)

    async def test_front_door_is_shut_to_tests(self) -> None:
        """Test containers do not reach the front door, in none of its ways."""
        container = await self.make("a", ordered=False)
        await self.run_in(container, "true")
        gateways = [str(zone.gateway) for zone in (self.plan.tests, self.plan.ordered)]
        for gateway in gateways:
            self.listen(gateway, self.front.port, "front")
        places = [f"{at} {port}" for at in gateways for port in (80, self.front.port)]
        places += ["localship 80", "localhost 80", f"127.0.0.1 {self.front.port}"]
        for asking in (container, (await self.neighbour("b", ordered=False, six=False))[0]):
            found = await self.asked(asking, *places)
            found.pop("localhost 80" if asking is not container else "", None)  # is itself
            self.assertEqual(set(found.values()), {""}, found)


class AddressTests(NetworkScene):
    """Who a container can pretend to be."""

    async def test_keeps_its_address(self) -> None:
        """Neither a service nor a build nor its root can change an address, a route or a rule."""
        container = await self.make("a")
        gateway = self.plan.ordered.gateway
        commands = (
            f"ip address add {self.plan.ordered.network[99]}/24 dev eth0",
            f"ip route add 192.0.2.0/24 via {gateway}",
            "ip link set eth0 address 02:00:00:00:00:01",
            "ip link add link eth0 name v type macvlan",
            f"ip neigh add {self.plan.ordered.network[98]} lladdr 02:00:00:00:00:02 dev eth0",
            "ip link set lo down",
            "ip tuntap add mode tap",
        )
        script = "; ".join(f"{command} && echo could {command}" for command in commands)
        argv = ("sh", "-c", f"{script}; true")
        ways = {"root": await self.run_in(container, *argv, root=True)}
        ways |= await self.everywhere(container, *argv)
        for way, (_, out) in ways.items():
            self.assertNotIn("could ", out, way)

    async def test_sends_no_raw_packets(self) -> None:
        """Nobody inside writes or reads packets himself, or sends from an address not his own."""
        container = await self.make("a")
        attempts = """
            "packet": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3),
            "raw": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 255),
            "raw of IPv6": lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58),
            "transparent": lambda: socket.socket().setsockopt(0, 19, 1),
            "route": lambda: socket.socket().setsockopt(0, 4, bytes([131, 7, 4, 9, 9, 9, 9, 0])),
            "mark": lambda: socket.socket().setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 1),
        """
        for root in (False, True):
            found = await self.attempt(container, attempts, root=root)
            self.assertEqual(set(found.values()) - REFUSED, set(), found)
        for way, (_, out) in (await self.everywhere(container, *trying(attempts))).items():
            found = json.loads(out)
            self.assertEqual(set(found.values()) - REFUSED, set(), way)

    async def test_forges_no_address(self) -> None:
        """Nothing leaves a container with another address than its own, which IPv6 would allow."""
        if not SIX:
            raise SkipTest("this host has no IPv6")
        one, address = await self.neighbour("a")
        gateway = str(self.plan.ordered.gateway6)
        self.listen(gateway, self.front.port, "front")
        await self.all_say("front", one, f"{gateway} {self.front.port}")
        forged = {"2001:db8::77", str(self.plan.address6(IPv4Address(address.host) + 1))}
        for at in forged:
            forge = f"""
import socket
forging = socket.socket(socket.AF_INET6)
forging.setsockopt(41, 78, 1)  # any address may be given
forging.bind(({at!r}, 0))
forging.settimeout(0.2)
print("bound", flush=True)
forging.connect(({gateway!r}, {self.front.port}))
"""
            _, out = await self.run_in(one, PYTHON, "-c", forge)
            self.assertEqual(out.split()[0], "bound", out)
        seen = {known.raddr.ip for known in psutil.net_connections("tcp6") if known.raddr}
        self.assertEqual(seen & forged, set())
