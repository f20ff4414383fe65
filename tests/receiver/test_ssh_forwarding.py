"""Forwardings of an admiral's: ports both ways, SOCKS, the agent. They end with the connection."""

# Trial's assertions have no annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import psutil

from receiver.ssh.forwarding import LISTENING
from tests.receiver.ssh_case import ShipCase
from tests.receiver.ssh_ship import CLIENT_ENV, until

ME = "admiral@127.0.0.1"
MB = 1024 * 1024


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextlib.contextmanager
def serving(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server on a port of the loopback, which does `talk` with each client."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = server.accept()
                    threading.Thread(target=one, args=(client,), daemon=True).start()

        def one(client: socket.socket) -> None:
            with client, contextlib.suppress(OSError):
                talk(client)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def everything(client: socket.socket) -> bytes:
    said = b""
    while chunk := client.recv(65536):
        said += chunk
    return said


def polite(client: socket.socket) -> None:
    """Answers only when the other side has said everything."""
    client.sendall(b"you said " + everything(client))


class Forwardings(ShipCase):
    def client(self, *options: str) -> subprocess.Popen[bytes]:
        """An ssh client that only forwards."""
        argv = (*self.ship.ssh("-N", "-o", "ExitOnForwardFailure=yes", *options), ME)
        client = subprocess.Popen(argv, stderr=subprocess.PIPE, env=CLIENT_ENV)
        self.addCleanup(client.communicate)
        self.addCleanup(client.kill)
        return client

    def said(self, port: int, text: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(text)
            client.shutdown(socket.SHUT_WR)
            return everything(client)

    def audit(self) -> list[tuple[str, str]]:
        lines = [json.loads(line) for line in (self.ship.root / "audit.log").open()]
        return [(line["did"], line["ended"]) for line in lines]

    def test_a_local_port(self) -> None:
        """-L leads to a port that the ship sees; each half closes by itself, and it is told of."""
        with serving(polite) as there:
            here = free_port()
            self.client("-L", f"{here}:localhost:{there}")
            until(lambda: answers(here), "the port is there")
            for number in range(20):
                text = b"%d" % number * 10000
                self.assertEqual(self.said(here, text), b"you said " + text)
        told = (f"forwarding to localhost:{there}", "closed")
        until(lambda: self.audit().count(told) >= 20, "each is in the audit log")

    def test_a_port_of_the_ships(self) -> None:
        """-R leads from a port of the ship's loopback, whatever address is asked for, to the
        client; it ends with the connection."""
        with serving(polite) as there:
            here = free_port()
            client = self.client("-R", f"0.0.0.0:{here}:127.0.0.1:{there}")
            until(lambda: answers(here), "the port is there")
            self.assertEqual(self.said(here, b"hello"), b"you said hello")
            listening = self.ship.watched.net_connections()
            found = [each.laddr.ip for each in listening if each.laddr.port == here]
            self.assertEqual(set(found), {"127.0.0.1"})
            with socket.create_connection(("127.0.0.1", here)) as held:
                client.kill()
                until(lambda: not answers(here), "the port is gone")
                held.settimeout(10)
                with contextlib.suppress(ConnectionResetError):
                    self.assertEqual(held.recv(1), b"")

    def test_a_port_of_the_ships_choice(self) -> None:
        """-R of port 0 gets a free one and is told which; cancelled, it is gone."""
        with self.ship.paramiko("admiral") as transport:
            port = transport.request_port_forward("", 0)
            self.assertTrue(answers(port))
            transport.cancel_port_forward("", port)
            until(lambda: not answers(port), "the port is gone")

    def test_ports_that_are_refused(self) -> None:
        """A port below 1024, one that is taken, and one too many are refused."""
        with self.ship.paramiko("admiral") as transport, serving(polite) as taken:
            for port in (80, 1023, taken):
                with self.assertRaises(paramiko.SSHException):
                    transport.request_port_forward("127.0.0.1", port)
            for _ in range(LISTENING):
                transport.request_port_forward("127.0.0.1", 0)
            with self.assertRaises(paramiko.SSHException):
                transport.request_port_forward("127.0.0.1", 0)

    def test_socks(self) -> None:
        """-D takes a client of SOCKS to where it wants."""
        with serving(polite) as there:
            here = free_port()
            self.client("-D", str(here))
            until(lambda: answers(here), "the port is there")
            with socket.create_connection(("127.0.0.1", here)) as client:
                client.sendall(b"\x04\x01" + there.to_bytes(2, "big") + b"\x7f\0\0\1me\0")
                self.assertEqual(client.recv(8)[1], 0x5A)
                client.sendall(b"hello")
                client.shutdown(socket.SHUT_WR)
                self.assertEqual(everything(client), b"you said hello")

    def test_nobody_there(self) -> None:
        """A port that nobody listens on, and a host that has no name, fail for the client alone."""
        for host in ("127.0.0.1", "no-such-host.invalid", "a b", "", "x" * 3000):
            with (
                self.ship.paramiko("admiral") as transport,
                self.assertRaisesRegex(paramiko.ChannelException, "Connect failed"),
            ):
                transport.open_channel("direct-tcpip", (host, free_port()), ("127.0.0.1", 1))
        self.assertIn(b"alice", self.ship.run("who").stderr)

    def test_the_ship_holds_little(self) -> None:
        """A client that does not read, and a service that does not, are waited for; the ship's
        memory stays flat and all of it arrives."""
        much, go = 100 * MB, threading.Event()

        def gush(client: socket.socket) -> None:
            if client.recv(4) == b"give":
                client.sendall(bytes(much))
                return
            go.wait(30)
            size = 4
            while chunk := client.recv(MB):
                size += len(chunk)
            client.sendall(b"%d" % size)

        with serving(gush) as there, self.ship.paramiko("admiral") as transport:
            before = self.ship.watched.memory_info().rss
            where = ("127.0.0.1", there)
            giving = transport.open_channel("direct-tcpip", where, ("127.0.0.1", 1))
            taking = transport.open_channel("direct-tcpip", where, ("127.0.0.1", 1))
            giving.sendall(b"give")
            feeder = threading.Thread(target=feed, args=(taking, much))
            feeder.start()
            quiet = threading.Event()
            for _ in range(50):
                quiet.wait(0.02)
                self.assertLess(self.ship.watched.memory_info().rss - before, 48 * MB)
            go.set()
            size = 0
            while chunk := giving.recv(MB):
                size += len(chunk)
            feeder.join()
            self.assertEqual((size, taking.recv(20)), (much, b"%d" % (4 + much)))
            self.assertLess(self.ship.watched.memory_info().rss - before, 48 * MB)

    def test_the_agent(self) -> None:
        """-A: the client's agent answers on the ship, for its owner alone, until the connection
        ends; nobody gets one unasked."""
        path = self.ship.root / "agent"
        agent = subprocess.Popen(("ssh-agent", "-D", "-a", str(path)), stdout=subprocess.DEVNULL)
        self.addCleanup(agent.wait)
        self.addCleanup(agent.terminate)
        until(path.exists, "the agent's socket")
        env = {**CLIENT_ENV, "SSH_AUTH_SOCK": str(path)}
        subprocess.run(("ssh-add", "-q", str(self.ship.alice)), env=env, check=True)
        listed = subprocess.run(("ssh-add", "-l"), env=env, capture_output=True, check=True).stdout
        asked = "ssh-add -l && ssh-add -l; stat -c %a $SSH_AUTH_SOCK; echo $SSH_AUTH_SOCK"
        argv = (*self.ship.ssh("-A"), ME, asked)
        ran = subprocess.run(argv, env=env, capture_output=True, check=True)
        *said, mode, there = ran.stdout.splitlines()
        self.assertEqual(said, listed.splitlines() * 2)
        self.assertEqual(mode, b"600")
        socket_of = Path(there.decode())
        self.assertNotEqual(socket_of, path)
        until(lambda: not socket_of.parent.exists(), "it is gone")
        listening = Path("/proc/net/unix")
        until(lambda: str(socket_of) not in listening.read_text(), "nobody listens there")
        ran = self.ship.run("echo =$SSH_AUTH_SOCK=", account="admiral")
        self.assertEqual(ran.stdout, b"==\n")

    def test_nothing_is_left(self) -> None:
        """After 30 clients that were killed while they forwarded, the ship has the descriptors
        that it had."""
        before = self.ship.idle_descriptors()
        with serving(polite) as there, contextlib.ExitStack() as held:
            for _ in range(30):
                transport = held.enter_context(self.ship.paramiko("admiral"))
                transport.request_port_forward("127.0.0.1", 0)
                transport.open_channel("direct-tcpip", ("127.0.0.1", there), ("127.0.0.1", 1))
        until(lambda: self.ship.watched.num_fds() <= before, "descriptors are back")
        listening = [
            each
            for each in self.ship.watched.net_connections()
            if each.status == psutil.CONN_LISTEN
        ]
        self.assertEqual(len(listening), 1)


def feed(channel: paramiko.Channel, size: int) -> None:
    piece = bytes(MB)
    for _ in range(size // MB):
        channel.sendall(piece)
    channel.sendall(b"done")
    channel.shutdown_write()
