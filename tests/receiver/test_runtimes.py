"""Which runtime a ship gets, of the host's means, of what it was told, and of what is there."""

from __future__ import annotations

import os
import shutil
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase

from containers.interface import Runtime
from containers.lxc.needs import missing
from containers.lxc.network import plan as network_plan
from containers.lxc.runtime import LxcRuntime
from containers.process import ProcessRuntime
from hooks.errors import Refused
from receiver import runtimes
from receiver.config import Config, load
from tests.hooks.scene import scratch

LXC = pytest.mark.skipif(bool(missing()), reason="this host has no LXC")


class Choosing(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = scratch(self)
        self.root.chmod(0o711)
        self.lacks()

    def lacks(self, *words: str) -> None:
        """Let the host lack exactly this."""
        self.patch(runtimes, "missing", lambda: list(words))

    def config(self, **variables: str) -> Config:
        config = load({"STARPHLEET_ROOT": str(self.root), **variables})
        config.layout.containers.mkdir(exist_ok=True)
        return config

    def chosen(self, **variables: str) -> Runtime:
        return runtimes.choose(reactor, self.config(**variables))

    def there(self, name: str, *, lxc: bool) -> Path:
        """A container of an earlier ship."""
        directory = self.config().layout.containers / name
        directory.mkdir()
        if lxc:
            (directory / "made.json").touch()
        return directory

    def test_wish_that_cannot_be_met(self) -> None:
        """Asked for LXC on a host without, the ship says all that is missing, and runs nothing."""
        self.lacks("the package lxc", "the cgroup controller pids")
        said = (
            "^STARPHLEET_RUNTIME=lxc: this host lacks the package lxc, the cgroup controller pids$"
        )
        with self.assertRaisesRegex(Refused, said):
            self.chosen(STARPHLEET_RUNTIME="lxc")
        self.assertFalse(self.config().layout.lxc.exists())

    def test_ordinary_user(self) -> None:
        """A ship that is not root names that first of all."""
        self.patch(runtimes, "missing", missing)
        self.patch(os, "geteuid", lambda: 1000)
        with self.assertRaisesRegex(Refused, "lxc: this host lacks a ship that runs as root$"):
            self.chosen(STARPHLEET_RUNTIME="lxc")

    def test_process_on_any_host(self) -> None:
        """Asked for processes, the ship has them, whatever the host has."""
        for lacking in ((), ("the package lxc",)):
            self.lacks(*lacking)
            self.assertIsInstance(self.chosen(STARPHLEET_RUNTIME="process"), ProcessRuntime)

    def test_default_without_lxc(self) -> None:
        """Asked for none on a host without LXC, it is processes."""
        self.lacks("the package lxc")
        self.assertIsInstance(self.chosen(), ProcessRuntime)

    @LXC
    def test_default_with_lxc(self) -> None:
        """Asked for none on a host with LXC, it is LXC."""
        self.assertIsInstance(self.chosen(), LxcRuntime)

    def test_earlier_processes(self) -> None:
        """Asked for none, the ship goes on with the processes that are there."""
        self.there("a", lxc=False)
        self.assertIsInstance(self.chosen(), ProcessRuntime)

    @LXC
    def test_earlier_containers(self) -> None:
        """Asked for none, the ship goes on with the containers of LXC that are there."""
        self.there("a", lxc=True)
        self.assertIsInstance(self.chosen(), LxcRuntime)

    @LXC
    def test_what_is_no_container(self) -> None:
        """What an earlier ship left half made says nothing, nor what it keeps beside containers."""
        self.lacks("the package lxc")
        self.assertIsInstance(self.chosen(), ProcessRuntime)
        self.lacks()
        self.there(".making-a", lxc=False)
        self.assertIsInstance(self.chosen(), LxcRuntime)
        self.there("b", lxc=True)
        self.assertIsInstance(self.chosen(), LxcRuntime)

    def test_containers_of_a_lost_runtime(self) -> None:
        """Where the containers are LXC's and the host has lost it, the ship says what it lost."""
        self.there("a", lxc=True)
        self.lacks("the package lxc")
        with self.assertRaisesRegex(Refused, "this host lacks the package lxc$"):
            self.chosen()

    @LXC
    def test_told_otherwise(self) -> None:
        """Another runtime than that of the containers which are there is refused, for nobody would
        look after them; without them it counts."""
        for there, told, lxc in (("lxc", "process", True), ("process", "lxc", False)):
            container = self.there("a", lxc=lxc)
            with self.assertRaisesRegex(Refused, f"={told}: this ship has containers of {there} "):
                self.chosen(STARPHLEET_RUNTIME=told)
            shutil.rmtree(container)
            self.assertEqual(self.chosen(STARPHLEET_RUNTIME=told).name, told)

    @LXC
    def test_network(self) -> None:
        """An operator's network is the ship's; one that cannot be is refused in one line."""
        with self.assertRaisesRegex(
            Refused, "^STARPHLEET_RUNTIME=lxc: STARPHLEET_NETWORK: [^\n]*$"
        ):
            self.chosen(STARPHLEET_RUNTIME="lxc", STARPHLEET_NETWORK="10.250.0.0/30")
        with self.assertRaisesRegex(Refused, "STARPHLEET_NETWORK: 8.8.0.0/16 is not private$"):
            self.chosen(STARPHLEET_RUNTIME="lxc", STARPHLEET_NETWORK="8.8.0.0/16")
        named = IPv4Network("10.250.16.0/22")
        found = self.chosen(STARPHLEET_RUNTIME="lxc", STARPHLEET_NETWORK=str(named))
        assert isinstance(found, LxcRuntime)
        self.assertTrue(found.plan.ordered.network.subnet_of(named))

    def test_containers_are_no_proxies(self) -> None:
        """Networks in which containers are are refused as those of proxies, in one line."""
        front, network = (IPv4Address("127.0.0.1"), 8080), IPv4Network("10.70.0.0/20")
        plan = network_plan("spx", network, front=front, ipv6=True, mtu=1500)
        ordered, tests = plan.ordered.network6, plan.tests.network6
        runtimes.not_believed(("10.0.0.0/10", "10.70.16.0/20", "fc00::/8", "::1/128"), plan)
        for wrong in ("10.0.0.0/8", "10.70.15.255/32", "fd00::/8", f"{ordered}", f"{tests}"):
            with self.assertRaisesRegex(Refused, f"^STARPHLEET_PROXIES: {wrong} has [^\n]*$"):
                runtimes.not_believed(("192.168.0.0/16", wrong), plan)

    @LXC
    def test_proxies_are_looked_at(self) -> None:
        """A ship whose containers would be believed does not start."""
        with self.assertRaisesRegex(Refused, "^STARPHLEET_PROXIES: 10.0.0.0/8 has containers"):
            self.chosen(STARPHLEET_RUNTIME="lxc", STARPHLEET_PROXIES="10.0.0.0/8")

    @LXC
    def test_settings(self) -> None:
        """The front door, and whether test services may reach it, are as the operator set them."""
        found = self.chosen(
            STARPHLEET_HTTP_PORT="8123", STARPHLEET_BIND="127.0.0.3",
            STARPHLEET_TESTS_REACH_SHIP="true",
        )  # fmt: skip
        assert isinstance(found, LxcRuntime)
        self.assertEqual(found.plan.front, (IPv4Address("127.0.0.3"), 8123))
        self.assertTrue(found.plan.tests_reach_ship)
        usual = self.chosen()
        assert isinstance(usual, LxcRuntime)
        self.assertFalse(usual.plan.tests_reach_ship)

    @LXC
    def test_front_on_all_addresses(self) -> None:
        """A front door on every address, or on IPv6 alone, is reached by the loopback."""
        for bind in ("0.0.0.0", "[::]", "::1"):
            found = self.chosen(STARPHLEET_BIND=bind)
            assert isinstance(found, LxcRuntime)
            self.assertEqual(found.plan.front[0], IPv4Address("127.0.0.1"), bind)
