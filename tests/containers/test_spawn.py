"""The one module that spawns processes: what it gives them, and how it ends them."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from containers.interface import ContainerError, Exit, Limits
from containers.spawn import Completed, run

ENV = {"PATH": "/usr/bin:/bin"}


class SpawnTests(TestCase):
    timeout = 30

    async def shell(self, script: str, **given: object) -> Completed:
        return await run(reactor, ["sh", "-c", script], **{"env": ENV, **given})  # type: ignore[arg-type]

    async def test_exactly_this_environment(self) -> None:
        """A process gets the environment given and nothing else."""
        done = await run(reactor, ["/usr/bin/env"], env={"A": "1"})
        self.assertEqual(done, Completed(Exit(status=0), b"A=1\n"))

    async def test_streams(self) -> None:
        """stdout and stderr come merged, or apart if asked for; stdin is what was given."""
        script = "cat; echo err >&2"
        self.assertEqual((await self.shell(script, stdin=b"in\n")).output, b"in\nerr\n")
        apart = await self.shell(script, stdin=b"in\n", merge=False)
        self.assertEqual((apart.output, apart.errors), (b"in\n", b"err\n"))
        self.assertEqual((await self.shell("cat")).output, b"")

    async def test_big_stdin(self) -> None:
        """A long stdin and a long stdout at the same time do not wait for each other."""
        data = b"0123456789abcdef" * (1 << 17)
        done = await self.shell("cat", stdin=data, keep=len(data))
        self.assertEqual(done.output, data)

    async def test_keeps_the_end(self) -> None:
        """Only the last `keep` bytes are kept; `output` gets them all as they come."""
        seen = bytearray()
        done = await self.shell("seq 100000", keep=7, output=seen.extend)
        self.assertEqual(done.output, b"100000\n")
        self.assertEqual(seen.count(b"\n"), 100000)

    async def test_working_directory(self) -> None:
        """`cwd` is where it runs; one that is not there is named in the error."""
        here = Path(tempfile.mkdtemp(prefix="spawn-"))
        self.addCleanup(here.rmdir)
        self.assertEqual((await self.shell("pwd", cwd=here)).output, f"{here}\n".encode())
        with self.assertRaisesRegex(ContainerError, "cannot run sh in .*gone: No such file"):
            await self.shell("pwd", cwd=here / "gone")

    async def test_cannot_be_run(self) -> None:
        """What cannot be executed is an error with the name of the command in it."""
        for argv in (["no-such-command"], ["/etc/passwd"], ["sh", "a\0b"]):
            with self.assertRaisesRegex(ContainerError, f"cannot run {argv[0]}"):
                await run(reactor, argv, env=ENV)

    async def test_term_first(self) -> None:
        """A time limit asks with TERM, so that a command can clean up, and says why it ended."""
        script = "trap 'echo bye; exit 5' TERM; echo up; sleep 60 & wait"
        done = await self.shell(script, limits=Limits(seconds=0.2))
        self.assertEqual(done, Completed(Exit(5, None, "ran longer than 0.2 s"), b"up\nbye\n"))

    async def test_kill_then(self) -> None:
        """What does not listen to TERM is killed, and the return waits for all of the group."""
        script = "trap '' TERM; sleep 60 & echo $!; sleep 60; sleep 60"
        done = await self.shell(script, limits=Limits(seconds=0.2), grace=0.2)
        self.assertEqual(done.exit, Exit(None, 9, "ran longer than 0.2 s"))
        self.assertFalse(alive(int(done.output)))

    async def test_background_goes_too(self) -> None:
        """What a command leaves in its group neither delays the return nor outlives it."""
        began = time.monotonic()
        done = await self.shell("sleep 60 & echo $!; exit 3")
        self.assertEqual(done.exit, Exit(status=3))
        self.assertFalse(alive(int(done.output)))
        self.assertLess(time.monotonic() - began, 5)

    async def test_output_limit(self) -> None:
        """Output beyond the limit ends the command and is not passed on."""
        seen = bytearray()
        done = await self.shell("yes", limits=Limits(output=1000), output=seen.extend)
        self.assertEqual(done.exit.reason, "printed more than 1000 bytes")
        self.assertEqual(len(seen), 1000)
        short = await self.shell("head -c 1000 /dev/zero", limits=Limits(output=1000))
        self.assertEqual(short.exit, Exit(status=0))

    async def test_cancel(self) -> None:
        """Cancelling ends the command, and is itself passed on."""
        pids: list[int] = []
        script = "trap '' TERM; echo $$; sleep 60; sleep 60"
        work = Deferred.fromCoroutine(
            self.shell(script, output=lambda data: pids.append(int(data)), grace=0.1)
        )
        while not pids:
            await deferLater(reactor, 0.01)
        work.cancel()
        with self.assertRaises(CancelledError):
            await work
        self.assertFalse(alive(pids[0]))

    async def test_failing_output(self) -> None:
        """An error of whoever takes the output ends the command and is passed on."""

        def refuse(data: bytes) -> None:
            raise OSError("disk full")

        with self.assertRaisesRegex(OSError, "disk full"):
            await self.shell("yes", output=refuse)

    async def test_limits_before_it_starts(self) -> None:
        """Resource limits hold from the first instruction; none is above what is allowed here."""
        limits = Limits(files=33, memory=1 << 30)
        done = await self.shell("ulimit -n; ulimit -d; ulimit -c", limits=limits)
        self.assertEqual(done.output, b"33\n1048576\n0\n")
        self.assertTrue((await self.shell("true", limits=Limits(files=1 << 40))).exit.ok)

    async def test_nothing_leaks(self) -> None:
        """No descriptor stays open, however commands end, and fifty at once all end right."""
        await self.shell("sleep 60 & true")  # what the reactor opens once is no leak
        before = descriptors()
        works = [
            Deferred.fromCoroutine(self.shell(f"exit {number}", merge=number % 2 == 0))
            for number in range(50)
        ]
        codes = [done.exit.status for done in await gatherResults(works)]
        self.assertEqual(codes, list(range(50)))
        await self.shell("yes", limits=Limits(output=10))
        self.assertEqual(descriptors(), before)


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
