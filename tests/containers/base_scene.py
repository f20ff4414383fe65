"""Where bases are made by a script that stands in for the provided one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from containers.files import remove
from containers.interface import Exit
from containers.lxc.bases import Bases, Say, Standard
from containers.lxc.idmap import outside

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FULL, SLIM = Standard("full"), Standard("slim")

# Stands in for the provided script: waits until GATE is gone, counts in RUNS how often it ran.
STAND_IN = """#!/bin/sh
echo run >>{runs}
mkdir -p "$2/usr/bin" "$2/etc"
echo "half made"
while [ -e {gate} ]; do sleep 0.02; done
[ ! -e {broken} ] || {{ echo 'E: no such package' >&2; exit 3; }}
echo "$1" >"$2/etc/variant"
chmod 4755 "$2/etc/variant"
echo "whole"
"""


def nobody_listens(line: str) -> None:
    """Progress that nobody wants."""


class Scene(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.around = Path(tempfile.mkdtemp(prefix="bases-"))
        self.addCleanup(remove, self.around)
        self.root = self.around / "bases"
        self.runs, self.gate, self.broken = (self.around / n for n in ("runs", "gate", "broken"))
        self.script = self.around / "script"
        self.script.write_text(STAND_IN.format(runs=self.runs, gate=self.gate, broken=self.broken))
        self.env = {"PATH": PATH}
        self.status = 0
        self.provisions: list[bytes] = []

    def bases(self, most: int | None = None) -> Bases:
        return Bases(
            reactor,
            self.root,
            script=self.script,
            provision=self.provision,
            env=self.env,
            most=most,
        )

    async def provision(self, below: Sequence[Path], layer: Path, text: bytes, say: Say) -> Exit:
        assert (below[0] / "etc/variant").read_text() == "full\n"
        self.provisions.append(text)
        (layer / "made").write_bytes(text)
        os.chown(layer / "made", outside(0), outside(0))
        say("script says")
        return Exit(status=self.status)

    def ran(self) -> int:
        return len(self.runs.read_text().splitlines()) if self.runs.exists() else 0

    def left(self) -> list[str]:
        """What lies around besides whole bases."""
        return sorted(entry.name for entry in self.root.iterdir() if entry.name.startswith("."))

    async def until(self, what: Callable[[], object]) -> None:
        while not what():
            turn: Deferred[None] = Deferred()
            reactor.callLater(0.01, turn.callback, None)
            await turn
