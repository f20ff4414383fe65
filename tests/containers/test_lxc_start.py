"""What must be in force before anything of a container runs."""

from __future__ import annotations

from threading import Event

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import TestCase

from containers.interface import ContainerError
from containers.lxc import config, gate, network, nftables
from containers.lxc.config import Files
from tests.containers.lxc_scene import LxcScene
from tests.containers.test_lxc_pure import cage
from tests.hooks.scene import scratch


class StartTests(LxcScene):
    async def test_a_network_that_is_not_bounded(self) -> None:
        """Rules that the kernel does not take fail the start, in nft's words; nothing ran."""
        self.patch(network, "inside", lambda port: "nonsense\n")
        why = "its network is not bounded: Error: syntax error"
        await self.refused(why)

    async def test_bounds_that_are_not_kept(self) -> None:
        """Bounds that the kernel does not take fail the start; nothing ran."""
        self.patch(config, "bounds", lambda port: "false")
        await self.refused("the kernel does not take its bounds: is /proc/sys read-only.$")

    async def refused(self, why: str) -> None:
        container = await self.make("a")
        with self.assertRaisesRegex(ContainerError, f"^cannot start a: {why}"):
            await self.serve(container, "echo", "ran")
        self.assertNotIn("ran", self.log.read_text().splitlines())
        self.assertEqual(self.runtime.cgroups.members("a"), [])

    async def test_bounded_first(self) -> None:
        """Nothing of a service runs before its network is bounded, however long that takes."""
        starting, go = await self.at_the_gate()
        self.assertEqual([one.inside for one in self.runtime.cgroups.members("a")], [1])
        self.assertEqual((starting.called, self.log.read_text()), (False, ""))
        go.set()
        await starting
        await self.until(lambda: self.log.read_text() == "ran\n")

    async def test_cancelled(self) -> None:
        """A start that is given up meanwhile runs nothing, and leaves nothing."""
        starting, go = await self.at_the_gate()
        starting.cancel()
        go.set()
        with self.assertRaises(CancelledError):
            await starting
        self.assertEqual(self.runtime.cgroups.names(), set())
        self.assertNotIn("ran", self.log.read_text().splitlines())

    async def at_the_gate(self) -> tuple[Deferred[object], Event]:
        """A start that is just being bounded, and what lets that go on."""
        asked, go = Event(), Event()
        load = nftables.load

        def slow(pid: int, rules: str) -> None:
            asked.set()
            go.wait(20)
            load(pid, rules)

        self.patch(nftables, "load", slow)
        self.addCleanup(go.set)
        container = await self.make("a")
        starting: Deferred[object] = Deferred.fromCoroutine(self.serve(container, "echo", "ran"))
        await self.until(asked.is_set)
        return starting, go


class GateTests(TestCase):
    async def test_all_words_at_once(self) -> None:
        """A ship that was busy reads several words of the hook in one, and none is lost."""
        place = scratch(self)
        self.patch(gate, "secure", lambda cage, init: "")
        for words, then in (("7\nup\n", "up"), ("7\nunbounded\n", "the kernel does not take")):
            with gate.kept(reactor, cage(files=Files(place))) as told:
                (place / "up").write_text(words)
                self.assertIn(then, await told)
            for pipe in ("up", "go"):
                (place / pipe).unlink()

    def test_said_last(self) -> None:
        """What was said is heard, however soon it is over."""
        place = scratch(self)
        with gate.kept(reactor, cage(files=Files(place))) as told:
            (place / "up").write_text("up\n")
        self.assertEqual(self.successResultOf(told), "up")

    def test_not_cut_off(self) -> None:
        """An interface that cannot be cut off from its neighbours is told, in words."""
        why = "its network is not cut off: No such file or directory"
        self.assertEqual(gate.unbounded("nobody", 0, None), why)
