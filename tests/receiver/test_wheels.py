"""Which wheels of uv's cache go with the versions that used them; uv itself and its own cache."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase
from uv import find_uv_bin

from receiver.updates.versions import Version
from receiver.updates.wheels import Entry, forget, unneeded


class CacheTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        self.registry = self.home / "registry"
        self.registry.mkdir(parents=True)
        for name in ("some.thing-1.0", "some.thing-2.0", "builder-1.0", "builder-2.0"):
            self.wheel(*name.split("-"))
        self.cache = self.home / "cache"

    def wheel(self, name: str, number: str) -> None:
        stem = f"{name.replace('.', '_')}-{number}"
        info = f"{stem}.dist-info"
        with zipfile.ZipFile(self.registry / f"{stem}-py3-none-any.whl", "w") as wheel:
            about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n"
            wheel.writestr(f"{info}/METADATA", about)
            tag = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            wheel.writestr(f"{info}/WHEEL", tag)
            wheel.writestr(f"{info}/RECORD", "")

    def uv(self, *words: str) -> None:
        links = {"UV_FIND_LINKS": str(self.registry), "UV_NO_INDEX": "1", "UV_OFFLINE": "1"}
        env = {"PATH": os.environ["PATH"], "UV_CACHE_DIR": str(self.cache), **links}
        subprocess.run([find_uv_bin(), *words], env=env, check=True, capture_output=True)

    def install(self, name: str, *wanted: str) -> Version:
        version = Version(self.home / name)
        self.uv("venv", "--python", sys.executable, str(version.venv))
        self.uv("pip", "install", "--python", str(version.interpreter), *wanted)
        return version

    def test_what_no_version_has_goes(self) -> None:
        """A package's old version goes from the cache, and uv finds the one that is used, and the
        newest of what only builds others, without its registry."""
        self.install("gone", "some.thing==1.0", "builder==1.0")
        self.install("build", "builder==2.0")
        now = self.install("now", "some.thing==2.0")
        self.assertEqual(len(list(self.cache.glob("archive-v*/*"))), 4)
        self.assertEqual(forget(self.cache, [now]), 2)
        self.uv("cache", "prune", "--offline")
        self.assertEqual(len(list(self.cache.glob("archive-v*/*"))), 2)
        self.assertEqual(forget(self.cache, [now]), 0)
        there = {
            path.name[:3] for path in self.cache.glob("wheels-v*/*/*/*/*") if path.is_symlink()
        }
        self.assertEqual(there, {"2.0"})
        self.install("next", "some.thing==2.0", "builder==2.0")

    def test_a_cache_of_another_kind(self) -> None:
        """Where uv keeps its wheels in another way nothing is forgotten, and nothing fails."""
        (self.cache / "wheels-v99" / "packed").mkdir(parents=True)
        (self.cache / "wheels-v99" / "packed" / "all.bin").touch()
        self.assertEqual(forget(self.cache, []), 0)
        self.assertEqual(forget(self.home / "nowhere", []), 0)


class DecidingTests(SynchronousTestCase):
    def test_installed_by_several(self) -> None:
        """What any of the versions has is kept, also where they have it in two versions."""
        place = Path(self.mktemp())
        place.mkdir()
        entries = []
        for number in ("1", "2", "3"):
            path = place / f"{number}-py3-none-any"
            path.touch()
            entries.append(Entry("a", number, path))
        self.assertEqual(unneeded(entries, {("a", "1"), ("a", "2"), ("b", "3")}), entries[2:])
        self.assertEqual(unneeded([], {("a", "1")}), [])
