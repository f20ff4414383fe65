"""The room that a build has on the disk."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from containers import room
from containers.interface import Exit, Limits
from containers.process import ProcessRuntime
from containers.room import MB, NoRoom, Room, bounded, free_bytes, written

FILL = "i=0; while :; do i=$((i+1)); head -c 1M /dev/urandom >/tmp/$i; done"


class RoomTests(SynchronousTestCase):
    @given(st.integers(0, 2**50), st.integers(0, 2**50))
    def test_free(self, free: int, least: int) -> None:
        """What is to stay free stays free: a build goes on only as long as it does."""
        why = Room((), None, least).refused(free)
        self.assertEqual(why == "", free >= least)

    @given(st.integers(0, 2**50), st.none() | st.integers(1, 2**50))
    def test_outgrown(self, size: int, most: int | None) -> None:
        """A build may write as much as it may, and no more; unbounded, as much as it can."""
        why = Room((), most, 0).outgrown(size)
        self.assertEqual(why == "", most is None or size <= most)

    def test_lines(self) -> None:
        """The reasons name the figures and the settings."""
        one = Room((), 20 * MB, 256 * MB)
        self.assertEqual(one.outgrown(21 * MB), "it wrote more than 20 MB (STARPHLEET_BUILD_DISK)")
        self.assertEqual(
            one.refused(7 * MB),
            "the ship's disk has 7 MB left, and 256 MB stay free (STARPHLEET_FREE_DISK)",
        )


class WrittenTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.place = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.place)
        self.one, self.two = self.place / "one", self.place / "two"
        for tree in (self.one, self.two / "deep" / "er"):
            tree.mkdir(parents=True)

    def test_all_trees(self) -> None:
        """Files at any depth of all trees count, hidden ones too; what is not there does not."""
        (self.one / ".hidden").write_bytes(bytes(MB))
        (self.two / "deep" / "er" / "file").write_bytes(bytes(2 * MB))
        found = written([self.one, self.two, self.place / "nowhere"])
        self.assertEqual(found // MB, 3)

    def test_two_names(self) -> None:
        """A file that has a name in both counts once: a kept tree is linked into what is built."""
        (self.one / "file").write_bytes(bytes(2 * MB))
        os.link(self.one / "file", self.two / "file")
        self.assertEqual(written([self.one, self.two]) // MB, 2)

    def test_sparse(self) -> None:
        """What is not on the disk does not count."""
        with (self.one / "file").open("wb") as file:
            file.truncate(1 << 40)
        self.assertLess(written([self.one]), MB)

    def test_links_out(self) -> None:
        """What a build links to is not its own."""
        (self.two / "file").write_bytes(bytes(2 * MB))
        (self.one / "out").symlink_to(self.two)
        self.assertLess(written([self.one]), MB)

    def test_free(self) -> None:
        """What is free is told for what is there."""
        self.assertLess(free_bytes([self.one, self.place / "nowhere"]), 1 << 60)
        self.assertGreater(free_bytes([self.place / "nowhere"]), 1 << 60)


class BoundedTests(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.place = Path(tempfile.mkdtemp())
        self.place.chmod(0o755)
        self.addCleanup(shutil.rmtree, self.place)
        self.patch(room, "LOOK", 0.02)
        self.patch(room, "RARE", 0.05)

    async def end(self, script: str, most: int | None, least: int = 0) -> Exit:
        """How a build ends in a real container, with this room."""
        runtime = ProcessRuntime(reactor, self.place / "containers", ports=range(20000, 20010))
        container = await runtime.containerize("a")
        self.addCleanup(runtime.destroy, container)
        running = runtime.run(
            container,
            ["/bin/sh", "-c", script],
            env={},
            output=lambda _: None,
            limits=Limits(seconds=20),
        )
        return await bounded(reactor, running, Room((container.directory,), most, least))

    async def test_too_much(self) -> None:
        """A build that writes more than it may is ended, which is its reason."""
        with self.assertRaisesRegex(NoRoom, "^it wrote more than 20 MB .STARPHLEET_BUILD_DISK.$"):
            await self.end(FILL, 20 * MB)
        size = written([self.place])
        self.assertGreater(size, 20 * MB)
        await deferLater(reactor, 0.1)
        self.assertEqual(written([self.place]), size)

    async def test_a_full_disk(self) -> None:
        """A build during which the disk fills up, by whomever, is ended."""
        with self.assertRaisesRegex(NoRoom, r"\(STARPHLEET_FREE_DISK\)$"):
            await self.end("sleep 20", None, 1 << 60)

    async def test_enough(self) -> None:
        """A build with room enough ends as it ends."""
        for status in (0, 3):
            ended = await self.end(
                f"head -c 5M /dev/zero >/tmp/a; sleep 0.2; exit {status}", 9 * MB
            )
            self.assertEqual(ended, Exit(status))

    async def test_cancelled(self) -> None:
        """A deploy that is given up gives up its build, and looks no more."""
        waits: Deferred[Exit] = Deferred()

        async def command() -> Exit:
            return await waits

        going = Deferred.fromCoroutine(bounded(reactor, command(), Room((self.place,), 9, 0)))
        await deferLater(reactor, 0.1)
        self.assertFalse(waits.called)
        going.cancel()
        with self.assertRaises(CancelledError):
            await going
