"""What the counters of the ship say about the host's own firewall."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from containers.lxc import network
from containers.lxc.firewall import ENOUGH, Counted, Finding, Watch, found, read
from containers.lxc.net import Net
from tests.containers.lxc_scene import LxcScene

PLAN = network.plan(
    "sp0123ab",
    IPv4Network("10.64.16.0/20"),
    front=(IPv4Address("127.0.0.1"), 8080),
    ipv6=True,
    mtu=1500,
)


def listed(**packets: int) -> str:
    """As `nft --json list counters` says it."""
    counters = [
        {"counter": {"family": "inet", "name": name, "table": "sp", "packets": count, "bytes": 9}}
        for name, count in packets.items()
    ]
    return json.dumps({"nftables": [{"metainfo": {"version": "1.0.6"}}, *counters]})


class FoundTests(SynchronousTestCase):
    def test_too_little(self) -> None:
        """A packet or two that did not come through say nothing, and what was found stays."""
        for is_dropped in (False, True):
            before = Finding(Counted(10, 5), is_dropped)
            self.assertEqual(found(before, Counted(10 + ENOUGH - 1, 5)), before)

    def test_none_came_through(self) -> None:
        """Of enough, counted over several looks, none came through: it is dropped."""
        one = found(Finding(), Counted(1, 0))
        self.assertEqual(found(one, Counted(ENOUGH, 0)), Finding(Counted(ENOUGH, 0), True))

    def test_later(self) -> None:
        """A firewall that is there only now is seen, whatever came through before."""
        before = found(Finding(), Counted(5000, 5000))
        self.assertFalse(before.is_dropped)
        self.assertTrue(found(before, Counted(5000 + ENOUGH, 5000)).is_dropped)

    @given(st.integers(0, 99), st.integers(0, 99), st.booleans(), st.integers(0, 999))
    def test_one_came_through(self, wanted: int, gone: int, was: bool, more: int) -> None:
        """Where anything comes through, what does not is dropped on purpose."""
        before = Finding(Counted(wanted, gone), was)
        self.assertFalse(found(before, Counted(wanted + more + 1, gone + 1)).is_dropped)

    def test_made_anew(self) -> None:
        """Counters that begin anew are counted from nothing."""
        before = Finding(Counted(900, 900))
        self.assertEqual(found(before, Counted(2, 0)), Finding())
        self.assertTrue(found(before, Counted(ENOUGH, 0)).is_dropped)


class WatchTests(SynchronousTestCase):
    def test_read(self) -> None:
        """Each way has its counters; one that is missing has counted nothing."""
        self.assertEqual(
            read(listed(out_wanted=4, out_gone=3, in_wanted=2, other=1)),
            {"out": Counted(4, 3), "in": Counted(2, 0)},
        )

    def test_lines(self) -> None:
        """Each way that is shut is a line that says what to let through, as long as it is."""
        watch = Watch()
        self.assertEqual(watch.look(PLAN, listed(out_wanted=2, in_wanted=2)), [])
        said = watch.look(PLAN, listed(out_wanted=9, in_wanted=9, in_gone=9))
        self.assertEqual(
            said,
            [
                "the firewall of this host drops what containers send to the world: "
                "let it forward from and to sp0123ab*"
            ],
        )
        self.assertEqual(watch.look(PLAN, listed(out_wanted=9, in_wanted=9, in_gone=9)), said)
        self.assertEqual(watch.look(PLAN, listed(out_wanted=10, out_gone=1)), [])


class ToldTests(LxcScene):
    def let_drop(self, *lines: str) -> None:
        async def dropped(_: Net) -> list[str]:
            return list(lines)

        self.patch(Net, "dropped", dropped)

    async def test_a_build_that_fails(self) -> None:
        """A build that fails behind a firewall says so; one that does not, or needs no network,
        says nothing of it."""
        container = await self.make("a")
        self.let_drop("the firewall drops it")
        said = [
            (await self.run_in(container, "sh", "-c", f"echo said; exit {status}", online=online))[
                1
            ]
            for status, online in ((1, True), (0, True), (1, False))
        ]
        self.assertEqual(said, ["said\n\nthe firewall drops it\n", "said\n", "said\n"])

    async def test_the_log(self) -> None:
        """What is dropped is logged when it is new, and known as long as it is."""
        with capturedLogs() as events:
            for lines in (("one",), ("one", "two"), (), ("one",)):
                self.let_drop(*lines)
                await self.runtime.uphold()
                self.assertEqual(tuple(self.runtime.dropped), lines)
        self.assertEqual([event["line"] for event in events if "line" in event],
                         ["one", "two", "one"])  # fmt: skip
