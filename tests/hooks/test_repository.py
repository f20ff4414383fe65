"""The ship's repositories, with the real git."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from hooks.errors import Refused, ShipError
from tests.hooks.scene import bare, commit, git, scratch


class Repositories(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = scratch(self)
        self.work = self.home / "work"
        self.repository = bare(self.home / "app.git")

    def got(self, coroutine: object) -> object:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))  # type: ignore[arg-type]

    def send(self, oid: str, name: str = "refs/incoming/x") -> None:
        """Bring the objects of a commit into the ship's repository, with no branch on them."""
        git(self.work, "push", "-q", str(self.repository.path), f"{oid}:{name}")
        git(self.repository.path, "update-ref", "-d", name)

    def test_git_takes_what_was_made(self) -> None:
        """A repository is made whole by hand, and git finds nothing wrong with it."""
        git(self.repository.path, "fsck", "--strict")
        self.assertEqual(git(self.repository.path, "rev-parse", "--is-bare-repository"), "true")

    def test_a_branch_moves_from_where_it_was_and_from_nowhere_else(self) -> None:
        """`move` is a compare and swap: a wrong old value moves nothing."""
        one = commit(self.work, {"a": "1"})
        two = commit(self.work, {"a": "2"})
        self.send(two)
        self.got(self.repository.move("refs/heads/master", one, None))
        self.failureResultOf(
            Deferred.fromCoroutine(self.repository.move("refs/heads/master", two, two)), ShipError
        )
        self.assertEqual(self.got(self.repository.tip("refs/heads/master")), one)
        self.got(self.repository.move("refs/heads/master", two, one))
        self.assertEqual(self.got(self.repository.tip("refs/heads/master")), two)

    def test_head_names_a_branch_that_exists(self) -> None:
        """After a first push of `trunk` a clone checks it out."""
        one = commit(self.work, {"a": "1"})
        self.send(one)
        self.got(self.repository.move("refs/heads/trunk", one, None))
        git(self.home, "clone", "-q", str(self.repository.path), "copy")
        self.assertTrue((self.home / "copy" / "a").exists())

    def test_files_are_blobs_and_nothing_else(self) -> None:
        """A link, a directory, a large file and one that is not text are refused by name."""
        (self.work).mkdir()
        (self.work / "Procfile").symlink_to("/etc/passwd")
        (self.work / "dir").mkdir()
        (self.work / "dir" / "x").touch()
        (self.work / "large").write_text("x" * 300_000)
        (self.work / "binary").write_bytes(b"\xff\xfe\x00")
        oid = commit(self.work, {"fine": "yes"})
        self.send(oid)
        for name in ("Procfile", "dir", "large", "binary"):
            reading = Deferred.fromCoroutine(self.repository.files(oid, [name]))
            self.assertIn(name, str(self.failureResultOf(reading, Refused).value))
        found = self.got(self.repository.files(oid, ["fine", "missing"]))
        self.assertEqual(found, {"fine": "yes"})

    def test_exactly_the_commit_is_laid(self) -> None:
        """The container gets the files of the commit, executables and links as they are."""
        self.work.mkdir()
        (self.work / "run").write_text("#!/bin/sh\n")
        (self.work / "run").chmod(0o755)
        (self.work / "link").symlink_to("run")
        oid = commit(self.work, {"a": "1", ".gitattributes": "a export-subst export-ignore\n"})
        commit(self.work, {"a": "2"})
        self.send(oid)
        app = self.home / "container" / "app"
        app.mkdir(parents=True)
        self.got(self.repository.lay(oid, app, self.home))
        self.assertEqual((app / "a").read_text(), "1")
        self.assertTrue((app / "run").stat().st_mode & 0o100)
        self.assertTrue((app / "link").is_symlink())
        self.assertEqual(list(self.home.glob("index.*")), [])

    def test_a_shallow_history_is_told_from_a_whole_one(self) -> None:
        """A commit whose history ends where nobody said so is not whole: git moves its branch."""
        for n in range(5):
            commit(self.work, {"a": str(n)})
        git(self.home, "clone", "-q", "--depth", "2", f"file://{self.work}", "shallow")
        tip = commit(self.home / "shallow", {"b": "1"})
        git(
            self.home / "shallow", "push", "-q",
            "--receive-pack=git -c receive.shallowUpdate=true receive-pack",
            str(self.repository.path), "HEAD:refs/incoming/x",
        )  # fmt: skip
        git(self.repository.path, "update-ref", "-d", "refs/incoming/x")
        self.assertTrue(self.got(self.repository.is_whole(tip)))
        (self.repository.path / "shallow").unlink()
        self.assertFalse(self.got(self.repository.is_whole(tip)))

    def test_what_a_killed_git_left_is_removed(self) -> None:
        """Locks, quarantines and half packs go at the start; what is whole stays."""
        one = commit(self.work, {"a": "1"})
        self.send(one)
        self.got(self.repository.move("refs/heads/master", one, None))
        path = self.repository.path
        (path / "refs" / "heads" / "master.lock").touch()
        (path / "shallow.lock").touch()
        (path / "objects" / "tmp_objdir-incoming-x").mkdir()
        (path / "objects" / "pack" / "tmp_pack_x").parent.mkdir(exist_ok=True)
        (path / "objects" / "pack" / "tmp_pack_x").touch()
        self.repository.tidy()
        left = [p.name for p in path.rglob("*") if "lock" in p.name or "tmp_" in p.name]
        self.assertEqual(left, [])
        self.assertEqual(self.got(self.repository.tip("refs/heads/master")), one)
