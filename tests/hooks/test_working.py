"""Working directories: what is looked at, read and copied, and what stands for a commit of them."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from hooks.errors import Refused
from hooks.naming import Release
from hooks.stamps import short, stamp, when_stamped
from hooks.standing import Source, StandingOrders
from hooks.working import (
    DEEPEST,
    clear_away,
    copy,
    develops,
    is_linked,
    look,
    place_of,
    texts,
)
from tests.hooks.scene import scratch

THEN = 1_795_284_863.25  # 2026-11-21 18:14:23 UTC
DIGEST = "0123456789abcdef" * 4


class Stamps(SynchronousTestCase):
    def test_a_date_and_what_lay_there(self) -> None:
        """All of it is hex digits, in the name of a release it is whole, and it can be read."""
        made = stamp(THEN, DIGEST)
        self.assertEqual(made, "d261121d1814230123456789")
        self.assertEqual(when_stamped(made), float(int(THEN)))
        self.assertEqual(str(Release("app", "c" * 12, made)), f"app-{'c' * 12}-{made}")

    def test_it_is_told_apart_from_a_commit(self) -> None:
        """What a person reads of it is a date; of a commit its first digits."""
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(THEN))
        self.assertEqual(short(stamp(THEN, DIGEST)), f"working directory of {when}")
        for commit in ("d1" * 20, "d261121d181423", "d269921d181423" + "0" * 10, "0" * 40, ""):
            self.assertIsNone(when_stamped(commit))
            self.assertEqual(short(commit), commit[:7])

    def test_any_date_makes_one(self) -> None:
        """A clock that is astray breaks nothing."""
        for when in (-1e12, 0.0, 1e12, float("inf")):
            self.assertIsNotNone(when_stamped(stamp(when, DIGEST)))


class Wanted(SynchronousTestCase):
    def test_who_is_served_from_a_working_directory(self) -> None:
        """Services with a source, in development mode: as the ship says, else its headquarters."""
        source = Source("https://example.com/x")
        for sourced, said, devmode, wanted in (
            (source, {}, True, True),
            (None, {}, True, False),
            (source, {}, None, False),
            (source, {"DEVMODE_ENABLED": "1"}, None, True),
            (source, {"DEVMODE_ENABLED": "1"}, False, False),
        ):
            standing = StandingOrders("a", sourced, said, "")
            self.assertIs(develops(standing, devmode), wanted)

    def test_which_mode(self) -> None:
        """Linked unless the orders say otherwise; what cannot be meant is refused by name."""
        given = {None: True, "": True, "false": True, "true": False, "True": False}
        for text, linked in given.items():
            environment = {} if text is None else {"DEVMODE_UNBIND_GIT_DIR": text}
            self.assertIs(is_linked(environment), linked)
        with self.assertRaisesRegex(Refused, "DEVMODE_UNBIND_GIT_DIR: 'maybe'"):
            is_linked({"DEVMODE_UNBIND_GIT_DIR": "maybe"})

    def test_no_directory_is_in_another(self) -> None:
        """A service of its own may write in its own: none is above another, the root's not too."""
        places = [place_of(Path("/w"), path) for path in ("", "a", "a/b", "a/b/c", "a.b")]
        self.assertEqual([place.name for place in places], ["+", "a", "a+b", "a+b+c", "a.b"])
        self.assertEqual({place.parent for place in places}, {Path("/w")})


class Trees(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = scratch(self)
        self.tree = self.home / "tree"
        for name in ("a", "sub/b", "sub/deep/c", ".git/config", "node_modules/x", "sub/.env"):
            path = self.tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
            os.utime(path, (THEN, THEN))
        (self.tree / "a").chmod(0o755)
        (self.tree / "link").symlink_to("/etc/shadow")
        os.utime(self.tree / "link", (THEN, THEN), follow_symlinks=False)

    def test_the_same_tree_is_the_same_release(self) -> None:
        """Nothing but the tree decides, and so a copy of it is the same."""
        before = look(self.tree)
        self.assertEqual(before.newest, THEN)
        copied = self.home / "copied"
        shutil.copytree(self.tree, copied, symlinks=True)
        self.assertEqual(look(copied), before)
        self.assertEqual(before.commit[:14], "d261121d181423")

    def test_what_makes_another(self) -> None:
        """A file that is saved, comes, goes, changes its name, its rights, or what it leads to."""
        known = {look(self.tree).commit}
        for change in (
            lambda: (self.tree / "a").write_text("other"),
            lambda: (self.tree / "sub/new").touch(),
            lambda: (self.tree / "sub/new").unlink(),
            lambda: (self.tree / "sub/b").rename(self.tree / "sub/z"),
            lambda: (self.tree / "a").chmod(0o644),
            lambda: shutil.rmtree(self.tree / "sub/deep"),
            lambda: (self.tree / "link").unlink(),
        ):
            change()
            found = look(self.tree).commit
            if found in known:  # only what came and went again may bring back what was
                self.assertFalse((self.tree / "sub/new").exists())
            known.add(found)
        self.assertEqual(len(known), 7)

    def test_what_is_not_looked_at(self) -> None:
        """Dependencies, git's own files and what editors leave, however deep; and directories
        themselves, which an editor changes when it opens a file."""
        before = look(self.tree)
        for name in ("node_modules/y", "sub/node_modules/y", ".git/index", "sub/.git/index"):
            (self.tree / name).parent.mkdir(exist_ok=True)
            (self.tree / name).touch()
        for name in (".a.swp", "sub/.b.swx", "a~", ".#a", "#a#", "4913", ".DS_Store"):
            (self.tree / name).touch()
        self.assertEqual(look(self.tree), before)

    def test_a_copy(self) -> None:
        """Everything but dependencies and git's own files, with times and who may execute; links as
        links, and nothing that is no file."""
        os.mkfifo(self.tree / "pipe")
        into = self.home / "into"
        into.mkdir()
        copy(self.tree, into)
        found = {str(path.relative_to(into)) for path in into.rglob("*")}
        there = {"a", "sub", "sub/b", "sub/.env", "sub/deep", "sub/deep/c", "link"}
        self.assertEqual(found, there)
        self.assertEqual((into / "link").readlink(), Path("/etc/shadow"))
        self.assertEqual((into / "sub/b").read_text(), "sub/b")
        self.assertEqual(
            [os.access(into / name, os.X_OK) for name in ("a", "sub/b")], [True, False]
        )
        self.assertEqual((into / "a").stat().st_mtime, THEN)

    def test_what_the_ship_reads(self) -> None:
        """Regular files alone, of a size that is right, and of text."""
        (self.tree / ".env").write_bytes(b"\xef\xbb\xbfA=1\n")
        self.assertEqual(texts(self.tree, (".env", "Procfile")), {".env": "A=1\n"})
        odd = {
            "it is a link": lambda path: path.symlink_to("a"),
            "is no file": os.mkfifo,
            "is no file,": Path.mkdir,
            "over 256 KB": lambda path: path.write_bytes(b"x" * (256 * 1024 + 1)),
            "not UTF-8": lambda path: path.write_bytes(b"\xff"),
        }
        for why, make in odd.items():
            path = self.tree / f"odd {why}"
            make(path)
            with self.subTest(why=why), self.assertRaisesRegex(Refused, why):
                texts(self.tree, (path.name,))

    def test_a_link_in_the_place_of_the_directory(self) -> None:
        """Is not followed."""
        (self.home / "link").symlink_to(self.tree)
        for act in (look, lambda place: texts(place, ("a",)), lambda place: clear_away(place, "a")):
            with self.assertRaisesRegex(Refused, "the working directory .*link"):
                act(self.home / "link")
        self.assertTrue((self.tree / "a").exists())

    def test_without_end(self) -> None:
        """Directories in one another have an end, and nothing is left open."""
        deep = self.tree
        for _ in range(DEEPEST):
            deep = deep / "d"
            deep.mkdir()
        before = len([*Path("/proc/self/fd").iterdir()])
        with self.assertRaisesRegex(Refused, "directories in one another"):
            look(self.tree)
        self.assertEqual(len([*Path("/proc/self/fd").iterdir()]), before)

    def test_clearing_away_follows_no_link(self) -> None:
        """What an earlier build left goes, a link in its place as a link."""
        (self.home / "victim").mkdir()
        (self.home / "victim" / "kept").touch()
        (self.tree / ".heroku").symlink_to(self.home / "victim")
        clear_away(self.tree, ".heroku")
        self.assertFalse((self.tree / ".heroku").is_symlink())
        self.assertTrue((self.home / "victim" / "kept").exists())
        clear_away(self.tree, "sub")
        self.assertFalse((self.tree / "sub").exists())
        clear_away(self.tree, "nothing")
