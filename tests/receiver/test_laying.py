"""`overlay/` of the headquarters, laid over a directory that stands for the host."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from hooks.repository import Blob
from receiver.config import load
from receiver.headquarters.laying import lay_overlay


class LayingTests(SynchronousTestCase):
    def setUp(self) -> None:
        around = Path(tempfile.mkdtemp(prefix="laying-"))
        self.addCleanup(shutil.rmtree, around)
        self.tree, self.root = around / "tree", around / "root"
        self.root.mkdir()
        self.files: dict[str, Blob] = {}

    def order(self, path: str, text: str, mode: str = "100644") -> None:
        name = f"overlay/{path}"
        (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
        (self.tree / name).write_text(text)
        self.files[name] = Blob(mode, "a" * 40, len(text))

    def lay(self) -> list[str]:
        return lay_overlay(self.tree, self.files, self.root)

    def names(self, path: str) -> list[str]:
        return [one.name for one in (self.root / path).iterdir()]

    def test_laid(self) -> None:
        """Files are laid with git's modes, in directories that are made, and replaced whole."""
        self.order("etc/motd", "ahoy")
        self.order("usr/local/bin/tool", "#!/bin/sh", "100755")
        self.files["orders"] = Blob("100644", "b" * 40, 1)
        said = ["overlay/etc/motd: laid", "overlay/usr/local/bin/tool: laid"]
        self.assertEqual(self.lay(), said)
        self.assertEqual((self.root / "etc/motd").stat().st_mode & 0o7777, 0o644)
        self.assertEqual((self.root / "usr/local/bin/tool").stat().st_mode & 0o7777, 0o755)
        before = (self.root / "etc/motd").stat()
        self.assertEqual(self.lay(), [])
        self.assertEqual((self.root / "etc/motd").stat().st_mtime_ns, before.st_mtime_ns)
        self.order("etc/motd", "hola")
        with (self.root / "etc/motd").open() as reading:
            self.assertEqual(self.lay(), said[:1])
            self.assertEqual(reading.read(), "ahoy")
        self.assertEqual((self.root / "etc/motd").read_text(), "hola")
        self.assertEqual(self.names("etc"), ["motd"])

    def test_a_mode_that_was_changed(self) -> None:
        """A file that others may write by now is laid anew."""
        self.order("etc/motd", "ahoy")
        self.lay()
        (self.root / "etc/motd").chmod(0o666)
        self.assertEqual(self.lay(), ["overlay/etc/motd: laid"])
        self.assertEqual((self.root / "etc/motd").stat().st_mode & 0o7777, 0o644)

    def test_links(self) -> None:
        """Nothing is laid through a link, over one, or from one; the rest is."""
        (self.root / "home").mkdir()
        (self.root / "lib").symlink_to("home")
        (self.root / "etc").mkdir()
        (self.root / "etc/issue").symlink_to("../home/issue")
        self.order("lib/x", "x")
        self.order("etc/issue", "x")
        self.order("etc/link", "x", "120000")
        self.order("etc/motd", "ahoy")
        self.assertEqual(
            self.lay(),
            [
                "overlay/etc/issue: there is a link in its place, or no file; not laid",
                "overlay/etc/link: it must be a regular file; not laid",
                "overlay/etc/motd: laid",
                "overlay/lib/x: /lib is a link, or no directory; not laid",
            ],
        )
        self.assertEqual(self.names("home"), [])

    def test_what_is_not_its_to_lay(self) -> None:
        """What an installation made is its own; directories and pipes stay."""
        for path in ("etc/starphleet", "opt/starphleet/current/x", "var/starphleet/live", "proc/x"):
            self.order(path, "x")
        self.order("etc/starphleet.d/region", "export REGION=eu")
        self.order("etc/cron.d", "x")
        (self.root / "etc/cron.d").mkdir(parents=True)
        said = dict(line.split(": ", 1) for line in self.lay())
        self.assertEqual(said.pop("overlay/etc/starphleet.d/region"), "laid")
        self.assertEqual(said.pop("overlay/proc/x"), "that is no place for files; not laid")
        self.assertIn("no regular file", said.pop("overlay/etc/cron.d"))
        self.assertEqual(set(said.values()), {"that is the installation's own; not laid"})
        self.assertEqual(len(said), 3)

    def test_where(self) -> None:
        """It is laid on a ship that was installed, or where the operator says so."""
        given = {"STARPHLEET_ROOT": str(self.root)}
        self.assertFalse(load(given).overlay)
        self.assertTrue(load({**given, "STARPHLEET_OVERLAY": "true"}).overlay)
        (self.root / "installed.json").write_text("{}")
        self.assertEqual(load(given).overlay, os.geteuid() == 0)
        self.assertFalse(load({**given, "STARPHLEET_OVERLAY": "false"}).overlay)
