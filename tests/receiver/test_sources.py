"""Fetching exactly the commits that were seen, from real repositories."""

from __future__ import annotations

import shutil
from pathlib import Path
from unittest.mock import patch

from twisted.internet import reactor

from hooks.errors import Refused, Unreachable
from hooks.standing import Source
from receiver.headquarters.sources import Sources
from tests.receiver.git_scene import GitCase, git, local_git


class ByPath(GitCase):
    def setUp(self) -> None:
        super().setUp()
        self.sources = Sources(reactor, self.layout, local_git, self.remote())

    async def test_the_commit_that_was_seen(self) -> None:
        """Whole, although the branch has moved on; the second time nothing is fetched."""
        seen = self.work.commit("seen")
        self.work.commit("later")
        source = Source(self.url, "first")
        repository = await self.sources.fetch(source, seen)
        self.assertEqual(await repository.files(seen, ["file"]), {"file": "seen"})
        self.assertEqual(await self.sources.author(repository, seen), ("A", "seen"))
        shutil.rmtree(self.work.path)
        await self.sources.fetch(source, seen)

    async def test_a_commit_that_is_gone(self) -> None:
        """Is one line."""
        with self.assertRaisesRegex(Unreachable, "cannot read "):
            await self.sources.fetch(Source(self.url), "ab" * 20)

    async def test_what_a_killed_fetch_left(self) -> None:
        """Locks and half a pack do not stop the next."""
        seen = self.work.tip()
        repository = await self.sources.fetch(Source(self.url), seen)
        (repository.path / "shallow.lock").touch()
        (repository.path / "objects/pack/tmp_pack_x").touch()
        sources = Sources(reactor, self.layout, local_git, self.remote())
        more = self.work.commit("more")
        await sources.fetch(Source(self.url), more)
        self.assertFalse((repository.path / "shallow.lock").exists())

    async def test_short_ids(self) -> None:
        """A short id of an old commit is found; one of none is refused."""
        old = self.work.tip()
        self.work.commit("new")
        await self.sources.fetch(Source(self.url), self.work.tip())
        self.assertEqual(await self.sources.resolve(Source(self.url, old[:8])), old)
        with self.assertRaises(Refused):
            await self.sources.resolve(Source(self.url, "0123456"))

    async def test_harmless_to_print(self) -> None:
        """Control characters of an author or a subject are taken out."""
        git(
            self.work.path,
            "-c",
            "user.name=x",
            "commit",
            "-q",
            "--allow-empty",
            "-m",
            "a\x1b]0;b\x07c",
        )
        tip = self.work.tip()
        repository = await self.sources.fetch(Source(self.url), tip)
        self.assertEqual((await self.sources.author(repository, tip))[1], "ac")

    async def test_sweep(self) -> None:
        """What no followed URL needs is removed."""
        tip = self.work.tip()
        repository = await self.sources.fetch(Source(self.url), tip)
        await self.sources.sweep([self.url])
        self.assertTrue(repository.exists())
        await self.sources.sweep([])
        self.assertFalse(repository.exists())

    async def test_a_removal_that_is_broken_off(self) -> None:
        """Half of a repository is never taken for one: what is followed again is fetched anew."""
        source, tip = Source(self.url), self.work.tip()
        repository = await self.sources.fetch(source, tip)

        def broken_off(path: Path, *_: object, **__: object) -> None:
            (path / "HEAD").unlink(missing_ok=True)

        with patch.object(shutil, "rmtree", broken_off):
            await self.sources.sweep([])
        again = await self.sources.fetch(source, tip)
        self.assertIsNotNone(await again.tree(tip))
        await self.sources.sweep([self.url])
        self.assertEqual(list(self.layout.sources.iterdir()), [repository.path])


class ByHttps(ByPath):
    def setUp(self) -> None:
        super().setUp()
        self.url = f"{self.serve().url}/app"
