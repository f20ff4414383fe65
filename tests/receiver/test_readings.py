"""What is kept of the commits of a headquarters that were read."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from hooks.errors import Refused
from hooks.layout import Layout
from hooks.repository import Repository
from hooks.say import Say
from hooks.standing import Source
from receiver.headquarters.hosting import Hosting
from receiver.headquarters.readings import YOUNG, Readings
from tests.hooks.scene import scratch

HERE, ELSEWHERE = Source("ssh://git@localhost/headquarters"), Source("https://example.com/hq")
OLD, NEW = "a" * 40, "b" * 40


class Kept(TestCase):
    def setUp(self) -> None:
        self.layout = Layout(scratch(self))
        self.layout.prepare()
        self.refused: dict[str, str] = {}
        self.fails: list[Exception] = []

        async def read(_: object, source: Source, commit: str, tree: Path, __: object) -> Any:
            (tree / "file").write_text(commit)
            if self.fails:
                raise self.fails.pop()
            return SimpleNamespace(
                source=source, commit=commit, tree=tree, refused=dict(self.refused), orders={},
                held=frozenset(), warnings=(),
            )  # fmt: skip

        reader: Any = SimpleNamespace(read=read)
        self.readings = Readings(reactor, self.layout, reader)

    async def read(self, commit: str, source: Source = HERE) -> Any:
        nothing: Any = None
        return await self.readings.read(nothing, source, commit)

    def trees(self) -> set[Path]:
        return set(self.layout.trees.iterdir())

    async def test_a_commit_is_read_once(self) -> None:
        """For each place that it is followed at: what it says may name that."""
        first = await self.read(OLD)
        self.assertIs(await self.read(OLD), first)
        other = await self.read(OLD, ELSEWHERE)
        self.assertEqual(other.source, ELSEWHERE)
        self.assertEqual((first.tree / "file").read_text(), OLD)
        self.assertNotEqual(other.tree, first.tree)

    async def test_what_cannot_be_read_leaves_nothing(self) -> None:
        """Neither files nor a reading: whoever wants it again reads it anew."""
        self.fails = [Refused("no")]
        with self.assertRaises(Refused):
            await self.read(OLD)
        self.assertEqual(self.trees(), set())
        self.assertEqual((await self.read(OLD)).commit, OLD)

    async def test_files_stay_for_scripts_that_run(self) -> None:
        """Those of the headquarters before are there for a while after it was followed, however
        old they are; then they go."""
        before = await self.read(OLD)
        await self.readings.keep(before)
        os.utime(before.tree, (0, 0))
        now = await self.read(NEW)
        await self.readings.keep(now)
        self.assertEqual(self.trees(), {before.tree, now.tree})
        long_ago = before.tree.stat().st_mtime - 2 * YOUNG
        os.utime(before.tree, (long_ago, long_ago))
        await self.readings.keep(now)
        self.assertEqual(self.trees(), {now.tree})

    async def test_a_push_that_is_refused_is_read_anew(self) -> None:
        """What was in its way may be no more; and nothing is kept of it."""

        async def serving() -> dict[str, Any]:
            return {}

        async def tip(*_: object) -> str:
            return OLD

        async def head(*_: object) -> str:
            return "refs/heads/main"

        self.patch(Repository, "tip", tip)
        self.patch(Repository, "head", head)
        ship: Any = SimpleNamespace(
            repository=lambda _: Repository(self.layout.root, None),  # type: ignore[arg-type]
            ledger=SimpleNamespace(serving=serving),
        )
        loop: Any = SimpleNamespace(location=None, readings=self.readings)
        hosting = Hosting(ship, loop, HERE)
        push = [(OLD, NEW, "refs/heads/main")]
        self.refused = {"app/orders": "app/orders: it ran for longer than 10 s"}
        with self.assertRaisesRegex(Refused, "longer than"):
            await hosting.examine(push, {}, Say(lambda _: None))
        self.assertEqual(self.trees(), set())
        self.refused = {}
        await hosting.examine(push, {}, Say(lambda _: None))
        loop.location = Source(HERE.url, "main")
        await hosting.examine(push, {}, Say(lambda _: None))
        read = self.trees()
        self.assertEqual((await self.read(NEW, loop.location)).source, loop.location)
        self.assertEqual(self.trees(), read)
