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


# It says much before it reads anything, and then reads much.
BUSY = """
import os, sys
for _ in range(40):
    os.write(1, b"x" * 10_000)
read = 0
while read < 400_000:
    read += len(os.read(0, 65536))
os.write(1, b"done")
"""
RELAYS = """
import os, subprocess, sys, tty
from receiver import beside
master, slave = os.openpty()
tty.setraw(slave)
with subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=slave, stdout=slave) as child:
    os.close(slave)
    beside._relay(master, os.pidfd_open(child.pid))
"""


class Relaying(SynchronousTestCase):
    def test_more_is_pasted_than_is_read(self) -> None:
        """A command that is given more than it reads yet goes on saying what it has to say."""
        argv = [sys.executable, "-c", RELAYS, BUSY]
        said = subprocess.run(
            argv, input=bytes(400_000), capture_output=True, timeout=20, check=True
        )
        self.assertEqual((len(said.stdout), said.stdout[-4:]), (400_004, b"done"))


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
