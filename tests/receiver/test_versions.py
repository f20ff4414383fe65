"""Versions on the disk: which counts, which is current, and which may go."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from hooks.errors import Refused, ShipError
from receiver.updates import versions as versions_of
from receiver.updates.versions import Version, Versions, commit_in, own_commit, own_version


class OnDisk(SynchronousTestCase):
    def setUp(self) -> None:
        self.versions = Versions(Path(self.mktemp()).absolute() / "versions")
        self.versions.directory.mkdir(parents=True)

    def installed(self, commit: str) -> Version:
        version = self.versions.named(commit)
        with self.versions.growing(version):
            version.interpreter.parent.mkdir(parents=True)
            version.interpreter.symlink_to(sys.executable)
        return version

    def test_a_version_counts_once_it_is_whole(self) -> None:
        """One that was left half made, or half removed, does not count, and is cleared away."""
        whole, half = self.installed("a" * 40), self.versions.named("b" * 40)
        with self.assertRaises(KeyboardInterrupt), self.versions.growing(half):
            (half.directory / "venv").mkdir()
            raise KeyboardInterrupt
        (self.versions.directory / ".going-c").mkdir()
        self.assertEqual(
            [self.versions.is_whole(version) for version in (whole, half)], [True, False]
        )
        self.versions.remove_halves()
        left = {path.name for path in self.versions.directory.iterdir()}
        self.assertEqual(left, {"a" * 12})

    def test_the_current_one_is_chosen_anew(self) -> None:
        """The link leads to what was chosen last; to nothing that cannot be run."""
        self.assertIsNone(self.versions.chosen())
        first, second = self.installed("a" * 40), self.installed("b" * 40)
        for version in (first, second):
            self.versions.choose(version)
            self.assertEqual(self.versions.chosen(), version)
        second.interpreter.unlink()
        self.assertIsNone(self.versions.chosen())

    def test_old_ones_go_but_those_that_run(self) -> None:
        """All but those to keep are removed, unless a process was started from them."""
        kept, running, old = (self.installed(each * 40) for each in "abc")
        argv = [str(running.interpreter), "-c", "import sys; print(flush=True); sys.stdin.read()"]
        pipe = subprocess.PIPE
        with subprocess.Popen(argv, stdin=pipe, stdout=pipe) as process:
            assert process.stdout is not None
            process.stdout.readline()
            self.assertEqual(self.versions.prune([kept]), [old])
            self.assertTrue(running.directory.exists())
            process.communicate()
        self.assertEqual(self.versions.prune([kept]), [running])
        self.assertTrue(kept.directory.exists())

    def test_only_one_installs(self) -> None:
        """A second one is refused in words, until the first is through."""
        with self.versions.alone(), self.assertRaises(Refused), self.versions.alone():
            pass
        with self.versions.alone():
            pass

    def test_a_disk_without_room_is_told_before(self) -> None:
        """The reason says how much there is, and that nothing was changed."""
        self.versions.require_room(1)
        with self.assertRaisesRegex(ShipError, "MB free.*nothing was changed"):
            self.versions.require_room(1 << 60)

    def test_a_version_knows_itself_by_where_it_is(self) -> None:
        """`versions/NAME/venv` beside a `source` is one; a clone's .venv is none."""
        version = self.installed("a" * 40)
        self.patch(sys, "prefix", str(version.venv))
        self.assertIsNone(own_version())
        version.source.mkdir()
        self.assertEqual(own_version(), version)
        self.patch(sys, "prefix", str(version.directory / ".venv"))
        self.assertIsNone(own_version())

    def test_the_commit_of_a_clone_is_asked_of_git(self) -> None:
        """A full id of this source; nothing where git knows none."""
        self.assertRegex(own_commit(), "^[0-9a-f]{40}$")
        self.assertEqual(commit_in(Path("/")), "")
        self.assertEqual(versions_of.DIGITS, len(self.versions.named("a" * 40).directory.name))
