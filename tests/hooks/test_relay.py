"""Git's hooks, where the ship's answer does not come whole."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from threading import Thread

from twisted.trial.unittest import SynchronousTestCase

from hooks.git import relay
from tests.hooks.scene import scratch

SAY = b'{"say": "building"}\n'


class Relays(SynchronousTestCase):
    def asked(self, answer: bytes) -> tuple[int, list[str]]:
        """The status of pre-receive, and what it shows, where the ship says `answer` and dies."""
        home = scratch(self)
        hook = home / "pre-receive"
        hook.symlink_to(Path(relay.__file__))
        with socket.socket(socket.AF_UNIX) as ship:
            ship.bind(str(home / "ship"))
            ship.listen()

            def speak() -> None:
                asked, _ = ship.accept()
                with asked:
                    asked.makefile("rb").readline()
                    asked.sendall(answer)

            speaking = Thread(target=speak, daemon=True)
            speaking.start()
            done = subprocess.run(
                [sys.executable, hook],
                env={
                    "PATH": os.defpath,
                    "STARPHLEET_SOCKET": str(home / "ship"),
                    "STARPHLEET_REPOSITORY": "app",
                    "STARPHLEET_OWNER": "ann",
                },
                input=b"",
                capture_output=True,
                check=False,
                timeout=60,
            )
            speaking.join(60)
        return done.returncode, done.stderr.decode().splitlines()

    def test_a_yes(self) -> None:
        """What the ship says is shown, and its word is the hook's."""
        self.assertEqual(self.asked(SAY + b'{"verdict": ""}\n'), (0, ["building"]))

    def test_a_ship_that_is_killed(self) -> None:
        """That is told in words as the last line, also where its own last line is torn."""
        for torn in (b"", b'{"say": "bui'):
            told = (1, ["building", f" !     {relay.STOPPED}"])
            self.assertEqual(self.asked(SAY + torn), told)
