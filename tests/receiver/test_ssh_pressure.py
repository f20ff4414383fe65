"""What stays flat: memory under slow readers on either side, descriptors after a crowd."""

# Trial's assertions have no annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading

import paramiko
from twisted.trial.unittest import SynchronousTestCase

from tests.receiver.ssh_case import ShipCase
from tests.receiver.ssh_ship import CLIENT_ENV, Ship, until

MB = 1024 * 1024
MUCH = 200 * MB


class Pressure(ShipCase):
    def client(self, command: str, *options: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            (*self.ship.ssh(*options), "git@127.0.0.1", command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=CLIENT_ENV,
        )

    def idle_rss(self) -> int:
        """Bytes in use once the code paths of a first connection are warm."""
        self.ship.idle_descriptors()
        return self.rss()

    def rss(self) -> int:
        size: int = self.ship.watched.memory_info().rss
        return size

    def test_slow_child(self) -> None:
        """200 MB into a child that reads slowly: the server's memory grows by less than 64 MB."""
        before = self.idle_rss()
        slow = "sh for i in $(seq 200); do head -c 1048576 >/dev/null; sleep 0.008; done; wc -c"
        client = self.client(slow)
        self.addCleanup(client.kill)
        feeder = threading.Thread(target=feed, args=(client,))
        feeder.start()
        peak = before
        while client.poll() is None:
            peak = max(peak, self.rss())
            feeder.join(0.02) if feeder.is_alive() else client.wait(30)
        feeder.join()
        assert client.stdout is not None
        assert client.stderr is not None
        self.assertEqual(client.stdout.read().strip(), b"0")
        client.stdout.close()
        client.stderr.close()
        self.assertLess(peak - before, 64 * MB)

    def test_slow_client(self) -> None:
        """200 MB to a client that does not read: memory stays flat, and all of it arrives later."""
        before = self.idle_rss()
        marker = self.ship.root / "stuck"
        count = f"head -c {MUCH} /dev/zero; touch {marker}"
        client = self.client(f"sh {count}")
        self.addCleanup(client.kill)
        assert client.stdout is not None
        self.assertEqual(client.stdout.read(1), b"\0")
        quiet = threading.Event()
        peak = before
        for _ in range(30):
            quiet.wait(0.02)
            peak = max(peak, self.rss())
        self.assertFalse(marker.exists(), "the child has been let run ahead of the client")
        total = 1
        while chunk := client.stdout.read(MB):
            total += len(chunk)
        self.assertEqual((total, client.wait()), (MUCH, 0))
        self.assertLess(max(peak, self.rss()) - before, 32 * MB)
        client.communicate()

    def test_client_with_a_huge_window(self) -> None:
        """A gigabyte of window and a client that stops reading its socket: memory stays flat."""
        before = self.idle_rss()
        stalling = Stalling(self.ship.port)
        transport = paramiko.Transport(stalling)
        self.addCleanup(transport.close)
        self.addCleanup(stalling.flowing.set)
        key = paramiko.Ed25519Key.from_private_key_file(str(self.ship.alice))
        transport.connect(username="git", pkey=key)
        channel = transport.open_session(window_size=1024 * MB)
        channel.exec_command(f"sh head -c {MUCH} /dev/zero")
        until(channel.recv_ready, "it has begun")
        stalling.flowing.clear()
        quiet = threading.Event()
        for _ in range(30):
            quiet.wait(0.02)
            self.assertLess(self.rss() - before, 32 * MB)
        self.assertTrue(self.ship.watched.children(), "the child has been let run ahead")

    def test_crowd(self) -> None:
        """50 connections at once all end right, and the descriptors return to where they were."""
        before = self.ship.idle_descriptors()
        clients = [self.client(f"sh cat; exit {number}") for number in range(50)]
        for number, client in enumerate(clients):
            out, _ = client.communicate(b"%d" % number * 1000, timeout=60)
            self.assertEqual((client.returncode, out), (number, b"%d" % number * 1000))
        until(lambda: self.ship.watched.num_fds() <= before, "descriptors are back")
        until(lambda: not self.ship.watched.children(), "children are reaped")


class Stalling:
    """A socket for paramiko that can be kept from reading."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.flowing = threading.Event()
        self.flowing.set()

    def recv(self, size: int) -> bytes:
        self.flowing.wait()
        return self._socket.recv(size)

    def __getattr__(self, name: str) -> object:
        return getattr(self._socket, name)


class KeepAlive(SynchronousTestCase):
    def test_client_that_has_gone_silent_is_dropped(self) -> None:
        """A client that answers stays; one that answers three keep-alives no more goes."""
        ship = Ship(keepalive=0.2, grace=0.2)
        self.addCleanup(ship.close)
        self.assertEqual(ship.run("sh sleep 1.5").returncode, 0)
        client = subprocess.Popen((*ship.ssh(), "git@127.0.0.1", "sh sleep 600"), env=CLIENT_ENV)
        self.addCleanup(client.wait)
        self.addCleanup(client.kill)
        until(ship.watched.children, "the command runs")
        os.kill(client.pid, signal.SIGSTOP)
        until(lambda: not ship.watched.children(), "its command has ended")
        self.assertIn("disconnected: no answer to keep-alives", ship.log.read_text())


def feed(client: subprocess.Popen[bytes]) -> None:
    assert client.stdin is not None
    piece = bytes(MB)
    for _ in range(MUCH // MB):
        client.stdin.write(piece)
    client.stdin.close()
