"""Working directories are cloned once, whole, and for their developer."""

from __future__ import annotations

import os
import shutil

from twisted.internet import reactor

from hooks.errors import Unreachable
from hooks.repository import Repository
from hooks.standing import Source
from receiver.headquarters.cloning import clone
from receiver.headquarters.sources import Sources
from tests.receiver.git_scene import GitCase, git, local_git

DEVELOPER = 4321


class Clones(GitCase):
    def setUp(self) -> None:
        super().setUp()
        self.sources = Sources(reactor, self.layout, local_git, self.remote())
        self.place = self.layout.working / "app"

    async def test_a_branch(self) -> None:
        """A work tree on the branch that is named, with its history and where it came from; what
        builds leave is nothing that git shows."""
        self.work.commit("two")
        git(self.work.path, "branch", "other", "HEAD^")
        await clone(self.sources, Source(self.url, "other"), self.place)
        self.assertEqual((self.place / "file").read_text(), "one")
        self.assertEqual(git(self.place, "branch", "--show-current"), "other")
        self.assertEqual(git(self.place, "remote", "get-url", "origin"), self.url)
        self.assertEqual(git(self.place, "log", "--format=%s", "origin/first"), "two\none")
        for name in (".heroku", ".profile.d", "node_modules"):
            (self.place / name).mkdir()
            (self.place / name / "x").touch()
        self.assertEqual(git(self.place, "status", "--porcelain"), "")
        self.assertEqual([one.name for one in self.layout.working.iterdir()], ["app"])

    async def test_any_ref(self) -> None:
        """The default branch, a tag, a commit, the beginning of one, and a branch that is named
        like one."""
        old = self.work.tip()
        self.work.commit("two")
        git(self.work.path, "tag", "v1", old)
        git(self.work.path, "branch", "cafe", old)
        refs = {"": "two", "v1": "one", old: "one", old[:9]: "one", "cafe": "one"}
        for number, (ref, said) in enumerate(refs.items()):
            place = self.layout.working / str(number)
            await clone(self.sources, Source(self.url, ref), place)
            self.assertEqual((place / "file").read_text(), said, ref)
        self.assertEqual(git(place, "branch", "--show-current"), "cafe")

    async def test_half_a_clone_is_never_left(self) -> None:
        """Neither one that fails, nor what a ship that was killed had begun."""
        half = self.layout.working / ".cloning app"
        half.mkdir(parents=True)
        (half / "half").touch()
        for ref in ("nowhere", "0badc0de"):
            with self.assertRaisesRegex(Unreachable, "cannot read "):
                await clone(self.sources, Source(self.url, ref), self.place)
            self.assertEqual(list(self.layout.working.iterdir()), [])
        await clone(self.sources, Source(self.url), self.place)
        self.assertFalse((self.place / "half").exists())

    async def test_what_is_there_stays(self) -> None:
        """Somebody was quicker: it is theirs."""
        self.place.mkdir(parents=True)
        (self.place / "theirs").touch()
        await clone(self.sources, Source(self.url), self.place)
        self.assertEqual([one.name for one in self.place.iterdir()], ["theirs"])
        self.assertEqual([one.name for one in self.layout.working.iterdir()], ["app"])

    async def test_it_belongs_to_whose_the_directory_above_is(self) -> None:
        """Every file of it; and none is shared with the repository that it came from."""
        if os.geteuid() == 0:
            self.layout.working.mkdir()
            os.chown(self.layout.working, DEVELOPER, DEVELOPER)
        await clone(self.sources, Source(self.url), self.place)
        whose = self.layout.working.stat().st_uid
        found = [path.lstat() for path in (self.place, *self.place.rglob("*"))]
        self.assertEqual({one.st_uid for one in found}, {whose})
        names = {
            one.st_nlink
            for path in self.place.rglob("*")
            if (one := path.lstat()) and path.is_file()
        }
        self.assertEqual(names, {1})

    async def test_of_the_ships_own(self) -> None:
        """A repository of this ship's is cloned without a login, and remembers its URL."""
        mine = Repository(self.work.path / ".git", local_git)
        self.sources.own = lambda url: mine if url == "ssh://git@localhost/app" else None
        await clone(self.sources, Source("ssh://git@localhost/app"), self.place)
        found = git(self.place, "remote", "get-url", "origin")
        self.assertEqual(found, "ssh://git@localhost/app")
        shutil.rmtree(self.place)
