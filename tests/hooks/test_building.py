"""Where a build happens, and how what came out leaves it."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from buildpacks.packs import BuildError
from hooks.building import _clear, _fresh, _move
from tests.hooks.scene import scratch


class Places(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = scratch(self)
        self.place = self.home / "cache" / "build" / "app-1"
        self.app = self.home / "container" / "app"
        self.app.mkdir(parents=True)
        self.victim = self.home / "victim"
        (self.victim / "app-1").mkdir(parents=True)
        (self.victim / "kept").touch()

    def swap(self, path: Path) -> None:
        """What a build that means ill does with `path`."""
        path.rename(self.home / "away")
        path.symlink_to(self.victim)

    def test_what_was_built_moves_into_its_container(self) -> None:
        """The app directory is the very directory that was built in."""
        _fresh(self.place)
        (self.place / "file").touch()
        _move(self.place, self.app)
        self.assertTrue((self.app / "file").exists())
        self.assertFalse(self.place.exists())

    def test_a_link_in_its_place_is_not_moved(self) -> None:
        """CVE-2025-58355: neither the directory nor the one it is in may have become a link, for
        the container would show what is behind it."""
        for path in (self.place, self.place.parent):
            _fresh(self.place)
            self.swap(path)
            with self.assertRaises(BuildError):
                _move(self.place, self.app)
            self.assertFalse(self.app.is_symlink())
            _clear(self.place.parent)
            _clear(self.home / "away")

    def test_a_link_is_not_followed_by_the_next_build(self) -> None:
        """The next build starts in a directory of its own, and clears nothing behind a link."""
        _fresh(self.place)
        self.swap(self.place.parent)
        _fresh(self.place)
        self.assertFalse(self.place.parent.is_symlink())
        _clear(self.place.parent)
        self.assertTrue((self.victim / "kept").exists())
