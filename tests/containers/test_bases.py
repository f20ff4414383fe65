"""The bases that containers stand on: made once, whole or not at all, kept and collected."""

from __future__ import annotations

import os
import platform
import shutil
import tarfile
from pathlib import Path

import pytest
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase

from containers import room
from containers.interface import ContainerError, Exit
from containers.lxc import store
from containers.lxc.backup import backup, restore
from containers.lxc.bases import Script
from containers.lxc.idmap import outside
from tests.containers.base_scene import FULL, SLIM, Scene, nobody_listens

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes bases")


class MakingTests(Scene):
    async def test_made_and_found(self) -> None:
        """A base is made when it is asked for, found after, and by the next ship too."""
        bases, said = self.bases(), list[str]()
        self.assertIsNone(bases.find(FULL))
        (layer,) = await bases.layers(FULL, said.append)
        self.assertEqual((layer / "etc/variant").read_text(), "full\n")
        status = (layer / "etc/variant").stat()
        self.assertEqual((status.st_uid, status.st_mode & 0o7777), (outside(0), 0o4755))
        self.assertEqual(bases.find(FULL), (layer,))
        self.assertEqual(await self.bases().layers(FULL, said.append), (layer,))
        self.assertEqual(self.ran(), 1)
        self.assertRegex("\n".join(said), r"(?s)^making .*half made: \d+\.\d s\n.*\d MB: .* s$")

    async def test_joined(self) -> None:
        """Two who ask at once get one making, its outcome and all of its progress."""
        self.gate.touch()
        bases = self.bases()
        said: tuple[list[str], list[str]] = ([], [])
        first = Deferred.fromCoroutine(bases.layers(FULL, said[0].append))
        await self.until(lambda: len(said[0]) == 2)
        second = Deferred.fromCoroutine(bases.layers(FULL, said[1].append))
        self.gate.unlink()
        outcomes = await gatherResults([first, second])
        self.assertEqual(outcomes[0], outcomes[1])
        self.assertEqual((said[0], self.ran()), (said[1], 1))

    async def test_apart(self) -> None:
        """Different bases are made at the same time."""
        self.gate.touch()
        bases = self.bases()
        making = [
            Deferred.fromCoroutine(bases.layers(base, nobody_listens)) for base in (FULL, SLIM)
        ]
        await self.until(lambda: self.ran() == 2)
        self.gate.unlink()
        await gatherResults(making)

    async def test_cancelling_one(self) -> None:
        """One who gives up leaves the making to the other."""
        self.gate.touch()
        bases = self.bases()
        first = Deferred.fromCoroutine(bases.layers(FULL, nobody_listens))
        second = Deferred.fromCoroutine(bases.layers(FULL, nobody_listens))
        await self.until(self.ran)
        first.cancel()
        await self.assertFailure(first, CancelledError)
        self.gate.unlink()
        self.assertEqual(len(await second), 1)
        self.assertEqual(self.ran(), 1)

    async def test_cancelling_all(self) -> None:
        """When the last has given up it ends, nothing is left, and the next one starts anew."""
        self.gate.touch()
        bases = self.bases()
        first = Deferred.fromCoroutine(bases.layers(FULL, nobody_listens))
        await self.until(self.ran)
        first.cancel()
        await self.assertFailure(first, CancelledError)
        second = Deferred.fromCoroutine(bases.layers(FULL, nobody_listens))
        await self.until(lambda: self.ran() == 2)
        self.gate.unlink()
        await second
        self.assertEqual(self.left(), [])

    async def test_one_who_cannot_listen(self) -> None:
        """Who fails to take the progress is out, and the others are not."""

        def deaf(line: str) -> None:
            raise RuntimeError(line)

        self.gate.touch()
        bases = self.bases()
        first = Deferred.fromCoroutine(bases.layers(FULL, nobody_listens))
        await self.until(self.ran)
        with self.assertRaises(RuntimeError):
            await bases.layers(FULL, deaf)
        self.gate.unlink()
        self.assertEqual(len(await first), 1)

    async def test_failure(self) -> None:
        """A failure is one line with the script's own, leaves nothing, and is not remembered."""
        self.broken.touch()
        bases = self.bases()
        asked = [Deferred.fromCoroutine(bases.layers(FULL, nobody_listens)) for _ in range(2)]
        for one in asked:
            with self.assertRaisesRegex(
                ContainerError, r"^starphleet-base \(full\): E: no such package$"
            ):
                await one
        self.assertEqual((self.left(), bases.find(FULL)), ([], None))
        self.broken.unlink()
        await bases.layers(FULL, nobody_listens)

    async def test_too_large(self) -> None:
        """One that takes more of the disk than it may is ended, and gone."""
        self.patch(room, "LOOK", 0.02)
        self.patch(room, "RARE", 0.05)
        fill = 'mkdir -p "$2"; while :; do head -c 1M /dev/urandom >>"$2/file"; done'
        self.script.write_text(f"#!/bin/sh\n{fill}\n")
        bases = self.bases(most=20 * room.MB)
        with self.assertRaisesRegex(ContainerError, "^starphleet-base .*wrote more than 20 MB"):
            await bases.layers(FULL, nobody_listens)
        self.assertEqual((self.left(), bases.find(FULL)), ([], None))

    async def test_crash(self) -> None:
        """What a crash left half-made is no base, and goes."""
        bases = self.bases()
        (layer,) = await bases.layers(FULL, nobody_listens)
        name = layer.parent.name
        layer.parent.rename(self.root / f".making-{name}")
        shutil.copytree(self.root / f".making-{name}", self.root / ".making-other")
        (self.root / ".going-old").mkdir()
        bases = self.bases()
        self.assertIsNone(bases.find(FULL))
        self.assertEqual(await bases.layers(FULL, nobody_listens), (layer,))
        await bases.collect([layer], age=1e9, budget=1 << 40)
        self.assertEqual([entry.name for entry in self.root.iterdir()], [name])

    async def test_another_script(self) -> None:
        """The provided base is another one when the script that makes it is."""
        before = await self.bases().layers(FULL, nobody_listens)
        self.script.write_text(self.script.read_text() + "# newer\n")
        bases = self.bases()
        self.assertIsNone(bases.find(FULL))
        self.assertNotEqual(await bases.layers(FULL, nobody_listens), before)

    async def test_another_distribution(self) -> None:
        """After an upgrade of the host's distribution the provided base is another one, too."""
        await self.bases().layers(FULL, nobody_listens)
        newer = {"ID": "debian", "VERSION_CODENAME": "forky"}
        self.patch(platform, "freedesktop_os_release", lambda: newer)
        self.assertIsNone(self.bases().find(FULL))


class ScriptTests(Scene):
    async def test_on_top(self) -> None:
        """A script's layer lies on the full base, and is made once for each text."""
        self.addCleanup(os.umask, os.umask(0o077))
        bases, said = self.bases(), list[str]()
        worker = Script("worker", b"one")
        top, below = await bases.layers(worker, said.append)
        self.assertEqual((below,), bases.find(FULL))
        self.assertEqual((top / "made").read_bytes(), b"one")
        self.assertEqual((top.stat().st_uid, top.stat().st_mode & 0o7777), (outside(0), 0o755))
        self.assertIn("script says", said)
        self.assertEqual(await bases.layers(worker, said.append), (top, below))
        other, _ = await bases.layers(Script("worker", b"two"), said.append)
        self.assertNotEqual(other, top)
        self.assertEqual((self.provisions, self.ran()), ([b"one", b"two"], 1))

    async def test_failure(self) -> None:
        """A script that fails leaves no layer, and is named with its status."""
        self.status = 7
        bases = self.bases()
        with self.assertRaisesRegex(ContainerError, "^worker: its script ended with status 7$"):
            await bases.layers(Script("worker", b""), nobody_listens)
        self.assertEqual((self.left(), bases.find(Script("worker", b""))), ([], None))
        self.assertIsNotNone(bases.find(FULL))


class CollectTests(Scene):
    async def test_by_age(self) -> None:
        """What nobody asked for goes, what is used or was asked for stays."""
        bases = self.bases()
        (full,) = await bases.layers(FULL, nobody_listens)
        (slim,) = await bases.layers(SLIM, nobody_listens)
        for layer in (full, slim):
            os.utime(layer.parent, (1, 1))
        self.assertEqual(
            await bases.collect([slim], age=10.0, budget=1 << 40), ["starphleet-base (full)"]
        )
        self.assertEqual((bases.find(FULL), bases.find(SLIM)), (None, (slim,)))
        await bases.layers(SLIM, nobody_listens)
        self.assertEqual(await bases.collect([], age=10.0, budget=1 << 40), [])

    async def test_asked_for_meanwhile(self) -> None:
        """What is asked for while it is looked at stays."""
        bases = self.bases()
        (full,) = await bases.layers(FULL, nobody_listens)
        os.utime(full.parent, (1, 1))
        kept = store.kept

        def kept_and_asked_for(root: Path) -> list[store.Kept]:
            found = kept(root)
            store.touch([full])
            return found

        self.patch(store, "kept", kept_and_asked_for)
        self.assertEqual(await bases.collect([], age=10.0, budget=1 << 40), [])
        self.assertEqual(bases.find(FULL), (full,))

    async def test_while_making(self) -> None:
        """What is being made is not collected, nor what it stands on."""
        bases, ready = self.bases(), Deferred[None]()
        (full,) = await bases.layers(FULL, nobody_listens)

        async def slow(*_: object) -> Exit:
            await ready
            return Exit(status=0)

        bases._provision = slow
        making = Deferred.fromCoroutine(bases.layers(Script("a", b""), nobody_listens))
        await self.until(self.left)
        os.utime(full.parent, (1, 1))
        self.assertEqual(await bases.collect([], age=10.0, budget=0), [])
        ready.callback(None)
        self.assertEqual(len(await making), 2)

    async def test_mounted(self) -> None:
        """A tree in which something is mounted is not removed."""
        mounts = self.around / "mountinfo"
        inside = self.around / "tree"
        inside.mkdir()
        mounts.write_text(f"1 2 0:1 / {inside}/layer/proc rw - proc proc rw\n")
        self.patch(store, "MOUNTS", mounts)
        with self.assertRaisesRegex(ContainerError, "proc is mounted in it"):
            store.discard(inside)
        self.assertTrue(inside.exists())


class GoingTests(SynchronousTestCase):
    def going(self, *bases: tuple[str, str, int], used: str = "", budget: int = 1000) -> str:
        """`bases` are (name, below, asked), each of 10 bytes; what goes that is older than 5."""
        kept = [store.Kept(name, name, below, 10, asked) for name, below, asked in bases]
        return "".join(base.name for base in store.going(kept, set(used), before=5, budget=budget))

    def test_age(self) -> None:
        """What is older goes, the oldest first."""
        self.assertEqual(self.going(("a", "", 3), ("b", "", 2), ("c", "", 6)), "ba")

    def test_budget(self) -> None:
        """Beyond the budget the oldest go, until the rest fits."""
        bases = ("a", "", 8), ("b", "", 7), ("c", "", 9)
        self.assertEqual(self.going(*bases, budget=20), "b")
        self.assertEqual(self.going(*bases, budget=19), "ba")
        self.assertEqual(self.going(*bases, budget=0, used="a"), "bc")

    def test_below(self) -> None:
        """What another stands on stays as long as that does, and goes after it."""
        self.assertEqual(self.going(("f", "", 1), ("s", "f", 6)), "")
        self.assertEqual(self.going(("f", "", 1), ("s", "f", 2)), "sf")
        self.assertEqual(self.going(("f", "", 1), ("s", "f", 2), used="s"), "")


class BackupTests(Scene):
    async def test_there_and_back(self) -> None:
        """A backup restored is what was backed up; and serves as an archive."""
        layers = await self.bases().layers(Script("a", b"text"), nobody_listens)
        file = self.around / "b.tgz"
        await backup(reactor, layers, file)
        with tarfile.open(file) as archive:
            self.assertEqual(archive.getmember("./app").uid, 1000)
        back = self.around / "back"
        await restore(reactor, file, back)
        self.assertEqual((back / "made").read_bytes(), b"text")
        status = (back / "etc/variant").stat()
        self.assertEqual((status.st_uid, status.st_mode & 0o7777), (outside(0), 0o4755))
        self.assertEqual((back / "app").stat().st_uid, outside(1000))
        self.assertEqual(file.stat().st_mode & 0o7777, 0o600)

    async def test_half(self) -> None:
        """A backup or a restore that fails leaves nothing; what is there is left alone."""
        file, back = self.around / "b.tgz", self.around / "back"
        file.write_bytes(b"no archive")
        before = sorted(self.around.iterdir())
        with self.assertRaisesRegex(ContainerError, "no directory to back up"):
            await backup(reactor, [self.around / "gone"], file)
        self.assertEqual(file.read_bytes(), b"no archive")
        with self.assertRaisesRegex(ContainerError, "damaged"):
            await restore(reactor, file, back)
        self.assertEqual(sorted(self.around.iterdir()), before)
        back.mkdir()
        with self.assertRaisesRegex(ContainerError, "back is there already"):
            await restore(reactor, file, back)
