"""What is particular to the `process` runtime: crashes between its steps, and hosts that forbid."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import skipUnless

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from containers import files, marks, process_services, record, stopping
from containers.interface import Address, Container, ContainerError, Exit, Limits
from containers.keep import Backoff, keep
from containers.process import ProcessRuntime
from containers.spawn import run

PORTS = range(first := 18000 + os.getpid() % 50 * 20, first + 20)
SLEEP = ("sleep", "60")


def sleeping(word: str) -> list[int]:
    """The `sleep` commands of the host with this argument."""
    wanted = f"sleep\0{word}\0".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "cmdline").read_bytes() == wanted:
                found.append(int(entry.name))
    return found


class ProcessRuntimeTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="process-"))
        self.place.chmod(0o755)
        self.addCleanup(shutil.rmtree, self.place)
        self.root = self.place / "root"
        self.runtime = self.another()
        self.addCleanup(self.runtime.sweep, set())

    def another(self, **given: Any) -> ProcessRuntime:
        return ProcessRuntime(reactor, self.root, ports=PORTS, **given)

    async def start(self, container: Container, *argv: str) -> Address:
        return await self.runtime.start(
            container, argv or SLEEP, env={}, log=self.place / "log", limits=Limits()
        )

    async def test_ports_come_back(self) -> None:
        """A port is given to one container at a time; that of a destroyed one goes to others."""
        runtime = ProcessRuntime(reactor, self.root, ports=PORTS[:1])
        first, second = [await runtime.containerize(name) for name in "ab"]
        launch: dict[str, Any] = {"env": {}, "log": self.place / "log", "limits": Limits()}
        address = await runtime.start(first, SLEEP, **launch)
        with self.assertRaisesRegex(ContainerError, "no port is free"):
            await runtime.start(second, SLEEP, **launch)
        await runtime.destroy(first)
        self.assertEqual(await runtime.start(second, SLEEP, **launch), address)

    async def test_half_made(self) -> None:
        """What a crash left half-made is named but not found; it is made anew, or swept."""
        for name in (".making-a", ".making-b", ".going-c"):
            (self.root / name / "app").mkdir(parents=True)
        self.assertEqual(self.runtime.names(), {"a", "b", "c"})
        self.assertIsNone(self.runtime.find("a"))
        container = await self.runtime.containerize("a")
        self.assertTrue((container.directory / "tmp").is_dir())
        (self.root / ".going-a").mkdir()
        await self.runtime.sweep({"a"})
        self.assertEqual(self.runtime.names(), {"a"})
        left = {entry.name for entry in self.root.iterdir()}
        self.assertEqual(left, {"a", ".accounts"})

    async def test_killed_between_spawn_and_note(self) -> None:
        """A service whose process was never noted down is found by its mark, and adopted."""
        for adopter in (self.runtime, self.another(sandbox=False)):
            self.runtime = adopter
            container = await adopter.containerize("a")
            address = await self.start(container)
            path = container.directory / record.RECORD
            noted = json.loads(path.read_text())
            path.write_text(json.dumps({**noted, "pid": None, "ticks": None}))
            later = self.another(sandbox=adopter.sandboxed)
            self.assertEqual(later.adopt(container), address)
            self.assertEqual(json.loads(path.read_text()), noted)
            await later.stop(container, grace=0)
            self.assertFalse((await adopter.exited(container)).ok)

    async def test_not_the_same_process(self) -> None:
        """A note of another boot, of a reused pid, or a broken one adopts nothing."""
        container = await self.runtime.containerize("a")
        await self.start(container)
        path = container.directory / record.RECORD
        noted = json.loads(path.read_text())
        for change in ({"boot": "another"}, {"ticks": 1}, {"pid": os.getpid()}, {"port": None}):
            path.write_text(json.dumps({**noted, **change}))
            self.assertIsNone(self.another().adopt(container), change)
        path.write_text("{")
        self.assertIsNone(self.another().adopt(container))

    async def test_cannot_start(self) -> None:
        """A start that fails says why, and its port is free again."""
        container = await self.runtime.containerize("a")
        (self.place / "log").mkdir()
        with self.assertRaisesRegex(ContainerError, "cannot start a: .*Is a directory"):
            await self.start(container)
        with self.assertRaisesRegex(ContainerError, "there is no container b"):
            await self.start(Container("b", self.root / "b"))
        with self.assertRaisesRegex(ContainerError, "there is no command"):
            await self.runtime.run(
                container, [], env={}, output=lambda _: None, limits=Limits(seconds=5)
            )

    async def test_killed_from_outside(self) -> None:
        """A service whose processes somebody kills is noticed, and leaves nothing behind."""
        container = await self.runtime.containerize("a")
        await self.start(container)
        noted = json.loads((container.directory / record.RECORD).read_text())
        os.kill(noted["pid"], 9)
        self.assertEqual(await self.runtime.exited(container), Exit(signal=9))
        self.assertEqual(self.runtime.listening(container), [])
        await self.start(container)

    async def test_ends_while_it_is_adopted(self) -> None:
        """A service that ends in the very moment in which it is taken over has ended."""
        container = await self.runtime.containerize("a")
        await self.start(container, "true")
        await self.runtime.exited(container)
        later = self.another()
        self.patch(process_services, "is_alive", lambda leader: True)
        self.assertIsNotNone(later.adopt(container))
        self.assertIn(await later.exited(container), (Exit(), Exit(status=0)))

    async def test_ends_after_a_stop_that_failed(self) -> None:
        """A service that could not be stopped is still looked after."""
        container = await self.runtime.containerize("a")
        await self.start(container, "sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done")
        while (self.place / "log").read_text() != "up\n":
            await deferLater(reactor, 0.01)

        async def stuck(reactor: object, run: str) -> None:
            raise ContainerError("a process was killed but does not end")

        patched = self.patch(stopping, "kill_run", stuck)
        with self.assertRaisesRegex(ContainerError, "does not end"):
            await self.runtime.stop(container, grace=0.1)
        patched.restore()
        noted = json.loads((container.directory / record.RECORD).read_text())
        os.kill(noted["pid"], 9)
        self.assertEqual(await self.runtime.exited(container), Exit(signal=9))

    async def test_kept_alive(self) -> None:
        """A service that ends is started again on its address, later each time."""
        container = await self.runtime.containerize("a")
        address = await self.start(container, "sh", "-c", "exit 4")
        told: list[tuple[Exit, float]] = []

        class EnoughError(Exception):
            pass

        def on_exit(exit: Exit, delay: float) -> None:
            told.append((exit, delay))
            if len(told) == 4:
                raise EnoughError

        async def restart() -> None:
            again = await self.runtime.start(
                container,
                ["sh", "-c", "exit 4"],
                env={},
                log=self.place / "log",
                limits=Limits(),
                address=address,
            )
            self.assertEqual(again, address)

        with self.assertRaises(EnoughError):
            await keep(
                reactor, self.runtime, container, restart, backoff=Backoff(0.01), on_exit=on_exit
            )
        self.assertEqual(told, [(Exit(status=4), delay) for delay in (0.01, 0.02, 0.04, 0.08)])

    async def test_stop_finds_the_unmarked(self) -> None:
        """A process that threw its mark away and left its parent is still of the session."""
        word = f"8{os.getpid()}{id(self)}"
        script = f"set -m; sh -c 'env -i sleep {word} & exit'; exec sleep {word}"
        for sandboxed in (True, False):
            self.runtime = self.another(sandbox=sandboxed)
            container = await self.runtime.containerize("a")
            await self.start(container, "sh", "-c", script)
            while len(sleeping(word)) < 2:
                await deferLater(reactor, 0.01)
            await self.runtime.stop(container, grace=0)
            self.assertEqual(sleeping(word), [])

    async def test_spares_itself(self) -> None:
        """A ship that was itself started in a container's environment does not kill itself."""
        script = (
            "import sys; from pathlib import Path; from twisted.internet.task import react\n"
            "from containers.process import ProcessRuntime\n"
            "from twisted.internet.defer import Deferred\n"
            "def main(reactor):\n"
            "    ship = ProcessRuntime(reactor, Path(sys.argv[1]), ports=range(18000, 18001))\n"
            "    return Deferred.fromCoroutine(ship.sweep(set()))\n"
            "react(main)\n"
        )
        container = await self.runtime.containerize("a")
        env = {
            marks.CONTAINER: str(container.directory),
            marks.RUN: "x",
            "PATH": os.environ["PATH"],
        }
        done = await run(reactor, [sys.executable, "-c", script, str(self.root)], env=env)
        self.assertEqual((done.exit, done.output), (Exit(status=0), b""))
        self.assertEqual(self.runtime.names(), set())

    def test_sandbox_forbidden(self) -> None:
        """A bubblewrap that is there but may not work is noticed, with its own words."""
        program = self.place / "bwrap"
        program.write_text("#!/bin/sh\necho 'bwrap: No permissions'; exit 1\n")
        program.chmod(0o755)
        self.patch(shutil, "which", lambda *_, **__: str(program))
        runtime = self.another()
        self.assertFalse(runtime.sandboxed)
        self.assertEqual(runtime.reason, "bwrap: No permissions")
        with self.assertRaisesRegex(ContainerError, "no sandbox: bwrap: No permissions"):
            self.another(sandbox=True)
        self.patch(shutil, "which", lambda *_, **__: None)
        self.assertEqual(self.another().reason, "bubblewrap is not installed")

    @skipUnless(os.geteuid() == 0, "only root gives its services another user")
    def test_root_that_nobody_can_reach(self) -> None:
        """Without a sandbox, a directory that the services' user cannot pass is an error."""
        self.place.chmod(0o700)
        with self.assertRaisesRegex(ContainerError, f"{self.place} cannot be passed by other"):
            self.another(sandbox=False)
        self.assertTrue(self.another().sandboxed)

    async def test_closed_directories_are_removed(self) -> None:
        """A tree whose owner closed its directories is removed all the same."""
        container = await self.runtime.containerize("a")
        deep = container.app / "one" / "two"
        deep.mkdir(parents=True)
        for closed in (deep, deep.parent):
            closed.chmod(0)
        files.remove_container(container)
        self.assertIsNone(self.runtime.find("a"))
