"""Access lists, by which a service and a developer write in one tree."""

from __future__ import annotations

import os
import struct
import subprocess
import tempfile
from pathlib import Path
from shutil import rmtree

import pytest
from twisted.trial.unittest import SynchronousTestCase

from containers.sharing import granted, share

ALICE, APP, ROOT = 4321, 20000, 100000
NOBODY = 0xFFFFFFFF


def read(packed: bytes) -> list[tuple[int, int, int]]:
    return list(struct.iter_unpack("<HHI", packed[4:]))


class Lists(SynchronousTestCase):
    def test_who_is_in_it(self) -> None:
        """Owner, group and others keep what their mode gives them; services write, and the group
        of what they made."""
        for grouped, rights in ((False, 4), (True, 6)):
            found = read(granted(None, 0o100640, {APP, ROOT}, grouped=grouped))
            wanted = [(1, 6, NOBODY), (2, 6, APP), (2, 6, ROOT), (4, rights, NOBODY)]
            self.assertEqual(found, [*wanted, (16, 6, NOBODY), (32, 0, NOBODY)])

    def test_what_can_be_executed(self) -> None:
        """By them too: a directory, and what its owner may."""
        for mode, rights in ((0o040700, 7), (0o100700, 7), (0o100600, 6)):
            found = read(granted(None, mode, {APP}, grouped=False))
            self.assertIn((2, rights, APP), found)

    def test_who_was_in_it_stays(self) -> None:
        """A second time changes nothing, and adds to what is there."""
        once = granted(None, 0o100640, {APP}, grouped=False)
        self.assertEqual(granted(once, 0o100660, {APP}, grouped=False), once)
        self.assertIn((2, 6, APP), read(granted(once, 0o100660, {ROOT}, grouped=True)))


@pytest.mark.skipif(os.geteuid() != 0, reason="other users need root")
class Sharing(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = Path(tempfile.mkdtemp())
        self.addCleanup(rmtree, self.home)
        self.home.chmod(0o711)
        self.tree = self.home / "tree"
        (self.tree / "sub").mkdir(parents=True)
        (self.tree / ".git").mkdir()
        for name in ("file", "sub/file", ".git/config"):
            (self.tree / name).write_text("")
        for path in (self.tree, *self.tree.rglob("*")):
            os.chown(path, ALICE, ALICE)
            path.chmod(0o755 if path.is_dir() else 0o644)

    def sh(self, user: int, script: str) -> int:
        argv = ["/bin/sh", "-c", f"umask 022; {script}"]
        done = subprocess.run(
            argv, cwd=self.tree, user=user, group=user, extra_groups=[], check=False
        )
        return done.returncode

    def test_both_write_everywhere(self) -> None:
        """In what is there and in what either makes later; whose a file is stays; git's own files
        are the developer's alone."""
        self.assertTrue(share(self.tree, {APP}))
        script = "echo b >>file; mkdir sub/new; echo b >sub/new/file; echo b >made"
        self.assertEqual(self.sh(APP, script), 0)
        self.assertEqual(self.sh(ALICE, "echo a >>sub/new/file && echo a >>made && rm made"), 0)
        self.assertEqual(self.sh(ALICE, "echo a >mine"), 0)
        self.assertEqual(self.sh(APP, "echo b >>mine"), 0)
        self.assertNotEqual(self.sh(APP, "echo b >>.git/config 2>/dev/null"), 0)
        whose = [(self.tree / name).stat().st_uid for name in ("file", "sub/new/file")]
        self.assertEqual(whose, [ALICE, APP])

    def test_what_was_closed_meanwhile(self) -> None:
        """A build closes what it makes by modes of its own; the next time it is open again."""
        share(self.tree, {APP})
        self.sh(APP, "mkdir -m 700 closed; touch closed/file; chmod 600 closed/file")
        moved = self.home / "moved"
        moved.mkdir(mode=0o700)
        os.chown(moved, APP, APP)
        moved.rename(self.tree / "moved")
        for place in ("closed/file", "moved/file"):
            self.assertNotEqual(self.sh(ALICE, f"echo a 2>/dev/null >>{place}"), 0)
        share(self.tree, {APP})
        for place in ("closed/file", "moved/file"):
            self.assertEqual(self.sh(ALICE, f"echo a >>{place}"), 0)

    def test_nothing_outside_is_opened(self) -> None:
        """Neither behind a link nor by another name of a file."""
        secret, other = self.home / "secret", self.home / "other"
        for path in (secret, other):
            path.write_text("")
            path.chmod(0o600)
        (self.tree / "link").symlink_to(secret)
        (self.tree / "away").symlink_to(self.home)
        (self.tree / "name").hardlink_to(other)
        os.mkfifo(self.tree / "pipe")
        self.assertTrue(share(self.tree, {APP}))
        for path in (secret, other, self.home):
            self.assertEqual(os.listxattr(path), [])
