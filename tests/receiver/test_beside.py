"""A command that is joined to the process that begins it."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import NoReturn

from twisted.trial.unittest import SynchronousTestCase

from receiver import beside

COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, lambda *_: sys.exit(5))
print(flush=True)
signal.pause()
"""
# A process of its own, with one thread as `starphleet` has: a signal is any thread's.
BEGINS = """
import os, signal, sys
from receiver import beside
ready, its = os.pipe()
def spawn():
    argv = [sys.executable, "-IS", "-c", sys.argv[1]]
    said = [(os.POSIX_SPAWN_DUP2, its, 1)]
    child = os.posix_spawn(sys.executable, argv, {}, file_actions=said, setsigmask=())
    os.read(ready, 1)
    os.kill(os.getpid(), signal.SIGINT)
    return child
with beside._passing_on(spawn) as child:
    status = beside._status(child)
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
sys.exit(status)
"""


class PassingOn(SynchronousTestCase):
    def test_from_the_first_moment(self) -> None:
        """A Ctrl-C before anybody knows that the command has begun is the command's: it ends as it
        likes, and is not left behind."""
        # What runs the tests may ignore it.
        argv = ["env", "--default-signal=INT", sys.executable, "-c", BEGINS, COMMAND]
        self.assertEqual(subprocess.run(argv, timeout=60, check=False).returncode, 5)

    def test_nothing_begins(self) -> None:
        """What cannot be spawned leaves signals as they were."""

        def spawn() -> NoReturn:
            raise OSError("no memory")

        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        with self.assertRaises(OSError), beside._passing_on(spawn):
            self.fail("it began")
        self.assertEqual(signal.pthread_sigmask(signal.SIG_BLOCK, ()), before)
