"""What is particular to the LXC runtime: its addresses, its bases, and what a crash leaves."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import skipUnless

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from containers.interface import Address, Container, ContainerError, Limits, Wish
from containers.lxc import disks
from containers.lxc.needs import missing
from containers.lxc.runtime import LxcRuntime
from tests.containers.lxc import make_lxc

SLEEP = ("sleep", "60")
LISTEN = ("python3", "-m", "http.server", "3000")
MB = 2**20


@skipUnless(not missing(), "no LXC here")
class LxcTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="lxc-"))
        self.place.chmod(0o711)
        self.addCleanup(shutil.rmtree, self.place)
        self.runtime = self.another()
        self.addCleanup(self.end_everything)

    async def end_everything(self) -> None:
        await self.runtime.sweep(set())
        await self.runtime.leave()

    def another(self) -> LxcRuntime:
        return make_lxc(reactor, self.place / "containers")

    async def start(self, container: Container, *argv: str, **given: Any) -> Address:
        given = {"env": {}, "limits": Limits(), "log": self.place / "log", **given}
        return await self.runtime.start(container, argv or SLEEP, **given)

    async def asked(self, address: Address) -> float:
        """Seconds until the address refuses, or answers."""
        began = time.monotonic()
        while True:
            try:
                socket.create_connection((address.host, address.port), 5).close()
            except ConnectionRefusedError:
                await deferLater(reactor, 0.02)  # not up yet
                continue
            except OSError as error:
                self.assertNotIsInstance(error, TimeoutError)
            return time.monotonic() - began

    async def test_nobody_waits_for_who_is_not_there(self) -> None:
        """At the address of a service that was stopped, or ended, a client is told so at once."""
        container = await self.runtime.containerize("a")
        address = await self.start(container, *LISTEN)
        await self.asked(address)
        await self.runtime.stop(container, grace=1)
        self.assertLess(await self.asked(address), 1)
        self.assertEqual(await self.start(container, "true"), address)
        await self.runtime.exited(container)
        self.assertLess(await self.asked(address), 1)
        self.assertEqual(await self.start(container, *LISTEN), address)
        await self.asked(address)
        self.assertEqual(self.runtime.listening(container), [3000])

    async def test_an_address_stays_with_its_container(self) -> None:
        """Nobody else has the address of a service that is stopped, also after a new start of the
        ship: a route may lead there."""
        container = await self.runtime.containerize("a")
        address = await self.start(container)
        await self.runtime.stop(container, grace=1)
        self.runtime = self.another()
        other = await self.runtime.containerize("b")
        self.assertNotEqual(await self.start(other, address=address), address)
        self.assertEqual(await self.start(container), address)

    async def test_the_bridge_keeps_its_hardware_address(self) -> None:
        """Else every container sends to nobody, for seconds, when another comes or goes."""
        await self.runtime.sweep(set())
        bridges = (self.runtime.plan.ordered.bridge, self.runtime.plan.tests.bridge)
        files = [Path("/sys/class/net", bridge, "address") for bridge in bridges]
        before = [file.read_text() for file in files]
        for name in "abc":
            await self.start(await self.runtime.containerize(name, Wish(ordered=name == "b")))
            self.assertEqual([file.read_text() for file in files], before)
        for name in "abc":
            found = self.runtime.find(name)
            assert found is not None
            await self.runtime.destroy(found)
            self.assertEqual([file.read_text() for file in files], before)

    async def test_a_cancelled_start(self) -> None:
        """A start that is cancelled at any moment leaves nothing, and the next one is whole."""
        container = await self.runtime.containerize("a")
        for delay in (0, 0.005, 0.01, 0.02, 0.04):
            starting = Deferred.fromCoroutine(self.start(container))
            await deferLater(reactor, delay)
            starting.addErrback(lambda failure: failure.trap(CancelledError))
            starting.cancel()
            await starting
            await self.runtime.stop(container, grace=0)
            self.assertIsNone(self.runtime.cgroups.init("a"))
            await self.start(container)
            await self.runtime.stop(container, grace=1)

    async def test_a_half_begun_container_is_not_adopted(self) -> None:
        """What a ship that was killed during a start left without its first shell is no service."""
        container = await self.runtime.containerize("a")
        await self.start(container)
        while len(found := self.runtime.cgroups.members("a")) < 3:
            await deferLater(reactor, 0.01)
        shell, work = (next(o for o in found if o.inside == which) for which in (2, 3))
        os.kill(shell.process.pid, signal.SIGKILL)
        later = self.another()
        while any(one.inside == 2 for one in later.cgroups.members("a")):
            await deferLater(reactor, 0.01)
        self.assertIn(work.process, [one.process for one in later.cgroups.members("a")])
        self.assertIsNone(later.adopt(container))

    async def test_a_bounded_disk(self) -> None:
        """A service writes no more than it may, wherever that is; its file system goes with it."""
        container = await self.runtime.containerize("a", Wish(disk=64 * MB))
        script = (
            "head -c 80M /dev/zero > /app/x; echo app $?; rm /app/x; echo > /tmp/y; echo tmp $?"
        )
        await self.start(container, "sh", "-c", script)
        await self.runtime.exited(container)
        said = (self.place / "log").read_text()
        self.assertIn("app 1\n", said)
        self.assertIn("tmp 0\n", said)
        self.assertIn("No space left", said)
        await self.runtime.destroy(container)
        self.assertFalse(disks.is_mounted(container.directory / "release"))

    async def test_what_lxc_cannot_be_given(self) -> None:
        """A disk that is too small for anything, and a port that is none, are refused in words."""
        container = await self.runtime.containerize("a", Wish(disk=1 * MB))
        with self.assertRaisesRegex(ContainerError, "STARPHLEET_DISK: at least 16M"):
            await self.start(container)
        other = await self.runtime.containerize("b")
        with self.assertRaisesRegex(ContainerError, "PORT: '70000' is not a port"):
            await self.start(other, env={"PORT": "70000"})
        with self.assertRaisesRegex(ContainerError, "b does not run"):
            await self.runtime.beside(other, env={}, limits=Limits())

    async def test_frozen(self) -> None:
        """What stands still neither answers nor resists being stopped; it goes on where it was."""
        container = await self.runtime.containerize("a")
        address = await self.start(container, *LISTEN)
        await self.asked(address)
        await self.runtime.freeze(container, True)
        with socket.create_connection((address.host, address.port), 5) as asking:
            asking.sendall(b"GET / HTTP/1.0\r\n\r\n")
            asking.settimeout(0.3)
            self.assertRaises(TimeoutError, asking.recv, 1)
            await self.runtime.freeze(container, False)
            asking.settimeout(10)
            self.assertEqual(asking.recv(8), b"HTTP/1.0")
        await self.runtime.freeze(container, True)
        began = time.monotonic()
        await self.runtime.stop(container, grace=10)
        self.assertLess(time.monotonic() - began, 5)
