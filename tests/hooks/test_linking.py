"""A working directory on its way into a container."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from buildpacks.packs import BuildError
from containers.interface import Container, Mount
from hooks.errors import Refused
from hooks.layout import Layout
from hooks.ledger import Launch
from hooks.linking import NOT_SHARED, lay_working
from hooks.mounts import mounts
from hooks.say import Say
from hooks.working import Working
from tests.hooks.scene import scratch


class Laying(TestCase):
    def setUp(self) -> None:
        self.home = scratch(self)
        self.tree, self.place = self.home / "tree", self.home / "place"
        for directory in (self.tree / ".heroku", self.tree / ".built", self.place):
            directory.mkdir(parents=True)
        (self.tree / "file").write_text("text")
        self.said: list[str] = []
        self.shares, self.sandboxed = True, True

    async def lay(self, *, linked: bool) -> None:
        runtime: Any = SimpleNamespace(
            share=lambda place: self.shares,
            seen_at=lambda _, mount: mount.at if self.sandboxed else str(mount.source),
        )
        container, working = Container("a", self.home), Working(self.tree, linked)
        say = Say(self.said.append)
        await lay_working(reactor, runtime, container, working, self.place, say)

    async def test_linked(self) -> None:
        """What an earlier build left for this one goes, and nothing is copied."""
        await self.lay(linked=True)
        self.assertEqual([one.name for one in self.tree.iterdir()], ["file"])
        self.assertEqual([*self.place.iterdir()], [])
        self.assertEqual(self.said, [f"-----> Linked to the working directory {self.tree}"])

    async def test_without_access_lists(self) -> None:
        """That is told once, and nothing fails."""
        self.shares = False
        await self.lay(linked=True)
        self.assertEqual([line.strip() for line in self.said[1:]], [NOT_SHARED])

    async def test_without_a_sandbox(self) -> None:
        """There is nothing to link in, and a line says what to do; a copy is no matter."""
        self.sandboxed = False
        with self.assertRaisesRegex(Refused, 'bubblewrap.*DEVMODE_UNBIND_GIT_DIR="true"'):
            await self.lay(linked=True)
        self.assertTrue((self.tree / ".heroku").exists())
        await self.lay(linked=False)
        self.assertEqual((self.place / "file").read_text(), "text")

    async def test_a_copy_that_fails(self) -> None:
        """Is one line."""
        (self.place / "file").write_text("in the way")
        with self.assertRaisesRegex(BuildError, "tree could not be copied: .*File exists"):
            await self.lay(linked=False)

    def test_it_is_remembered(self) -> None:
        """Whatever starts in the container later sees a linked directory as its app."""
        container, layout = Container("a", self.home), Layout(self.home)
        for launch, there in (
            (Launch((), {}, working="/w/a", linked=True), True),
            (Launch((), {}, working="/w/a"), False),
        ):
            app = Mount(Path("/w/a"), "/app", writable=True, theirs=True)
            self.assertIs(app in mounts(layout, container, launch), there)
