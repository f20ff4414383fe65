"""`shipscripts/` of the headquarters, run on the ship."""

# Trial's assertions have no annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from hooks.repository import Blob
from receiver.headquarters import shipscripts
from receiver.headquarters.shipscripts import (
    Shipscripts,
    run_shipscripts,
    scripts,
    scripts_digest,
)

ENV = {"PATH": "/usr/bin:/bin", "SHIP_NAME": "ship-1"}


class Which(SynchronousTestCase):
    files = {  # noqa: RUF012
        "shipscripts/b": Blob("100755", "b" * 40, 1),
        "shipscripts/a/dns": Blob("100755", "a" * 40, 1),
        "shipscripts/README.md": Blob("100644", "c" * 40, 1),
        "shipscripts/link": Blob("120000", "d" * 40, 1),
        "echo/on_containerize": Blob("100755", "e" * 40, 1),
    }

    def test_executable_files_in_order(self) -> None:
        """Executable regular files below `shipscripts/` run, sorted; nothing else does."""
        self.assertEqual(scripts(self.files), ("shipscripts/a/dns", "shipscripts/b"))

    def test_digest(self) -> None:
        """The digest changes with a script, its mode and what lies beside it, and only so."""
        before = scripts_digest(self.files)
        other = Blob("100755", "f" * 40, 1)
        self.assertEqual(scripts_digest({**self.files, "echo/orders": other}), before)
        for name in ("shipscripts/b", "shipscripts/README.md", "shipscripts/new"):
            self.assertNotEqual(scripts_digest({**self.files, name: other}), before)
        unmarked = Blob("100644", "b" * 40, 1)
        self.assertNotEqual(scripts_digest({**self.files, "shipscripts/b": unmarked}), before)


class Run(TestCase):
    def setUp(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)
        self.tree = self.root / "tree"
        self.said: list[str] = []

    def script(self, name: str, text: str) -> str:
        path = self.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return name

    async def go(self, *names: str) -> None:
        await run_shipscripts(reactor, self.tree, names, env=ENV, log=self.said.append)

    async def test_as_the_ship_itself(self) -> None:
        """A script runs as the ship's user in its own directory, with the environment given and no
        other; each line that it prints is logged under its name, without control codes."""
        name = self.script("shipscripts/a/dns", 'pwd; printf "\\033]0;x\\007$SHIP_NAME $HOME.\\n"')
        await self.go(name)
        where = self.tree / "shipscripts/a"
        self.assertEqual(self.said, [f"{name}: {where}", f"{name}: ship-1 ."])

    async def test_failures_stop_nothing(self) -> None:
        """What fails, or cannot even begin, is logged, and the next one runs."""
        names = [self.script("shipscripts/a", "exit 3"), self.script("shipscripts/c", "echo well")]
        broken = self.tree / "shipscripts/b"
        broken.write_text("#!/no/such/shell\n")
        broken.chmod(0o755)
        await self.go(names[0], "shipscripts/b", names[1])
        self.assertEqual(len(self.said), 3)
        self.assertIn("shipscripts/a: failed: ", self.said[0])
        self.assertIn("shipscripts/b: cannot run", self.said[1])
        self.assertEqual(self.said[2], "shipscripts/c: well")

    async def test_at_most_so_long(self) -> None:
        """A script that hangs is ended with what it started, and the next one runs."""
        self.patch(shipscripts, "SECONDS", 0.2)
        slow = self.script("shipscripts/a", "sleep 600 & wait")
        await self.go(slow, self.script("shipscripts/b", "echo well"))
        self.assertEqual(
            self.said, ["shipscripts/a: failed: ran longer than 0.2 s", "shipscripts/b: well"]
        )

    async def test_links_are_not_followed(self) -> None:
        """What lies outside of the headquarters does not run, even when a script links to it."""
        self.script("../outside/evil", "echo evil")
        make = f"ln -s {self.root}/outside ../shipscripts/sub; ln -s /bin/true ../shipscripts/true"
        lay = self.script("shipscripts/a", make)
        await self.go(lay, "shipscripts/sub/evil", "shipscripts/true", "shipscripts/gone")
        self.assertEqual(len(self.said), 3)
        for line in self.said:
            self.assertIn("not run", line)

    async def wait_for(self, condition: Any) -> None:
        while not condition():
            await deferLater(reactor, 0.01)

    async def test_never_two_at_once(self) -> None:
        """Asked three times, scripts run once and then once more, as was asked last."""
        log, gate = self.root / "log", self.root / "gate"
        text = f"echo in $WHY >>{log}; while [ ! -e {gate} ]; do sleep .01; done; echo out >>{log}"
        name = self.script("shipscripts/a", text)
        runner = Shipscripts(reactor, self.said.append)
        for why in ("start", "addresses", "headquarters"):
            runner.run(why, self.tree, [name], {**ENV, "WHY": why})
        await self.wait_for(log.exists)
        gate.touch()
        await self.wait_for(lambda: not runner.going)
        self.assertEqual(
            log.read_text().splitlines(), ["in start", "out", "in headquarters", "out"]
        )

    async def test_stop(self) -> None:
        """To stop ends the script that runs, and what was to follow does not begin."""
        began = self.root / "began"
        name = self.script("shipscripts/a", f"echo >>{began}; sleep 600")
        runner = Shipscripts(reactor, self.said.append)
        runner.run("start", self.tree, [name], ENV)
        runner.run("again", self.tree, [name], ENV)
        await self.wait_for(lambda: began.exists() and began.stat().st_size > 0)
        runner.stop()
        await self.wait_for(lambda: not runner.going)
        self.assertEqual(began.read_text(), "\n")
