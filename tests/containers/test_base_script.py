"""The provided script, which makes a base of the distribution's packages."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from pathlib import Path

import psutil
import pytest
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred

from containers.lxc import store
from containers.lxc.idmap import outside
from containers.spawn import launch
from tests.containers import lxc
from tests.containers.base_scene import PATH, SLIM, Scene

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes bases")

# Stands in for mmdebstrap: mounts what it does, and keeps what it was told.
MMDEBSTRAP = """#!/bin/sh
cat >{around}/list
for word; do [ "$word" = - ] || directory=$word; done
mkdir -p $directory/proc
mount -t tmpfs tmpfs $directory/proc
setsid tail -f {around}/list >/dev/null 2>&1 &
echo mounted >&3
exec sleep 60
"""
SOURCES = """
deb http://deb.debian.org/debian SUITE main
deb mirror+file:{around}/mirrors SUITE-updates main
deb https://download.docker.com/linux/debian SUITE main
deb file:{around}/cdrom SUITE main
deb http://deb.debian.org/debian other main
"""


def fetched(lists: Path, dist: str, origin: str, codename: str) -> None:
    """What apt has when it has fetched the lists of a source."""
    (lists / f"{dist}_main_binary-amd64_Packages").touch()
    (lists / f"{dist}_Release").write_text(
        f"Origin: {origin}\nCodename: {codename}\nComponents: main\nArchitectures: amd64\n"
    )


SHIP = """
import subprocess, sys, time
from containers.lxc.worker import BEHIND
subprocess.Popen([*BEHIND, "/bin/sh", *sys.argv[1:]], start_new_session=True)
time.sleep(60)
"""


class HostTests(Scene):
    """The provided script, and what is the host's own."""

    def setUp(self) -> None:
        super().setUp()
        (self.around / "bin").mkdir()
        (self.around / "bin/mmdebstrap").write_text(MMDEBSTRAP.format(around=self.around))
        (self.around / "bin/mmdebstrap").chmod(0o755)
        self.env["PATH"] = f"{self.around / 'bin'}:{PATH}"
        self.script = lxc.SCRIPT

    async def begin_and_give_up(self) -> None:
        """Begin, wait until something is mounted, and cancel."""
        said: list[str] = []
        making = Deferred.fromCoroutine(self.bases().layers(SLIM, said.append))
        await self.until(lambda: making.called or len(said) > 1)
        making.cancel()
        await self.assertFailure(making, CancelledError)
        await self.until(lambda: not self.left())

    def running(self) -> list[psutil.Process]:
        """What was started to make a base."""
        return [one for one in psutil.process_iter(["cmdline"]) if self.named_in(one)]

    def named_in(self, process: psutil.Process) -> bool:
        return f"{self.around}/list" in (process.info["cmdline"] or ())

    async def test_killed(self) -> None:
        """What is mounted to make a base is gone with it, and nothing is removed through it."""
        await self.begin_and_give_up()
        self.assertNotIn(str(self.around), store.MOUNTS.read_text())
        await self.until(lambda: not self.running())

    async def test_ship_killed(self) -> None:
        """Nor does it go on where the ship itself is killed."""
        self.around.joinpath("layer").mkdir()
        given = [str(lxc.SCRIPT), "slim", str(self.around / "layer")]
        ship = launch(reactor, [sys.executable, "-c", SHIP, *given], env=self.env)
        await self.until(self.running)
        await ship.put_down(0)
        await self.until(lambda: not self.running())
        self.assertNotIn(str(self.around), store.MOUNTS.read_text())

    @pytest.mark.skipif(shutil.which("apt-get", path=PATH) is None, reason="without apt")
    async def test_sources(self) -> None:
        """Packages come from the distribution alone, whatever else the host uses."""
        release = platform.freedesktop_os_release()
        origin, suite = release["ID"].capitalize(), release["VERSION_CODENAME"]
        lists = self.around / "lists"
        (lists / "partial").mkdir(parents=True)
        (self.around / "mirrors").write_text("https://mirror.example/debian\tpriority:1\n")
        (self.around / "sources").write_text(
            SOURCES.format(around=self.around).replace("SUITE", suite)
        )
        (self.around / "apt.conf").write_text(
            f'Dir::Etc::sourcelist "{self.around}/sources"; Dir::Etc::sourceparts "/dev/null";'
            f'Dir::State::lists "{lists}"; APT::Architecture "amd64"; APT::Architectures "amd64";'
        )
        self.env["APT_CONFIG"] = str(self.around / "apt.conf")
        around = str(self.around).replace("_", "%5f").replace("/", "_")
        for site, says, name in (
            ("deb.debian.org_debian", origin, suite),
            ("deb.debian.org_debian", origin, "other"),
            ("download.docker.com_linux_debian", "Docker", suite),
            (f"{around}_mirrors", origin, f"{suite}-updates"),
            (f"{around}_cdrom", origin, suite),
        ):
            fetched(lists, f"{site}_dists_{name}", says, name)
        await self.begin_and_give_up()
        found = [line.split() for line in (self.around / "list").read_text().splitlines()]
        self.assertEqual(
            [line[-3:] for line in found if line],
            [
                ["http://deb.debian.org/debian/", suite, "main"],
                ["https://mirror.example/debian", f"{suite}-updates", "main"],
            ],
        )


@pytest.mark.skipif(shutil.which("mmdebstrap", path=PATH) is None, reason="without mmdebstrap")
class ProvidedTests(Scene):
    timeout = 300

    def test_slim(self) -> None:
        """The provided script makes what services need of the distribution's packages."""
        lxc.base("slim")
        self.root, self.script = lxc.BASES, lxc.SCRIPT
        (layer,) = self.bases().find(SLIM) or ()
        for program in ("python3", "git", "curl", "bash"):
            self.assertTrue((layer / "usr/bin" / program).exists(), program)
        self.assertIn("ubuntu:x:1000:1000:", (layer / "etc/passwd").read_text())
        self.assertEqual((layer / "home/ubuntu").stat().st_uid, outside(1000))
        self.assertEqual((layer / "usr/bin/su").stat().st_mode & 0o7777, 0o4755)
        self.assertEqual((layer / "etc/resolv.conf").read_bytes(), b"")
        self.assertFalse((layer / "etc/machine-id").exists())
        for empty in ("dev", "var/lib/apt/lists/partial", "tmp"):
            self.assertEqual(list((layer / empty).glob("*")), [])
        self.assertNotIn("ubuntu", (layer / "etc/group").read_text().replace("ubuntu:x:1000:", ""))
        about = json.loads((layer.parent / "about").read_text())
        self.assertTrue(100 < about["size"] >> 20 < 400, about)
