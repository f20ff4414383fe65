"""What must be in force before anything of a container runs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import psutil
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from containers.interface import ContainerError
from containers.lxc import caging, network
from tests.containers.lxc_scene import LxcScene
from tests.hooks.scene import scratch


class StartTests(LxcScene):
    async def test_a_network_that_is_not_bounded(self) -> None:
        """Rules that the kernel does not take fail the start, in nft's words; nothing ran."""
        self.patch(network, "inside", lambda port: "nonsense\n")
        container = await self.make("a")
        why = "cannot start a: its network is not bounded: .*inside.nft"
        with self.assertRaisesRegex(ContainerError, why):
            await self.serve(container, "echo", "ran")
        self.assertNotIn("ran", self.log.read_text().splitlines())
        self.assertEqual(self.runtime.cgroups.members("a"), [])

    async def test_bounded_first(self) -> None:
        """Nothing of a service runs before its network is bounded, however long that takes."""
        hooks = self.place / "hooks"
        hooks.mkdir()
        for name in ("started.sh", "wired.sh"):
            text = (caging.HOOKS / name).read_text()
            slow = "  while [ ! -e go ]; do sleep 0.02; done\n  said=$("
            (hooks / name).write_text(text.replace("  said=$(", slow))
        self.patch(caging, "HOOKS", hooks)
        container = await self.make("a")
        starting = Deferred.fromCoroutine(self.serve(container, "echo", "ran"))
        await self.until(lambda: waits(hooks / "started.sh"))
        self.assertEqual([one.inside for one in self.runtime.cgroups.members("a")], [1])
        self.assertEqual((starting.called, self.log.read_text()), (False, ""))
        (container.directory / "service" / "go").touch()
        await starting
        await self.until(lambda: self.log.read_text() == "ran\n")


class WiredTests(SynchronousTestCase):
    def test_not_cut_off(self) -> None:
        """An interface that cannot be cut off from its neighbours ends the start, in words."""
        place = scratch(self)
        done = subprocess.run(
            ["/bin/sh", "-c", f". {caging.HOOKS}/wired.sh"],
            cwd=place,
            env={"LXC_NET_PEER": "nobody", "LXC_PID": str(os.getpid())},
            stderr=subprocess.DEVNULL,
            check=False,
        )
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual((place / "up").read_text(), "its network is not cut off\n")


def waits(script: Path) -> bool:
    """Whether a shell is in that script of LXC's."""
    found = (one.info["cmdline"] or [] for one in psutil.process_iter(["cmdline"]))
    return any(words[:2] == ["sh", "-c"] and str(script) in words[2] for words in found)
