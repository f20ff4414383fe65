"""The small pure parts: ports, logs, back-off, and the argv of a sandbox."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from containers import log, proc
from containers.interface import Address, Container, ContainerError, Exit, Limits, Mount
from containers.keep import Backoff, keep
from containers.ports import Ports, is_free
from containers.record import Record, sandboxed_exit
from containers.sandbox import Box, User, chain, environment, outer, script, view
from containers.services import Service
from containers.watching import Waiters

AMONG = next(
    range(first, first + 4)
    for first in range(28000 + os.getpid() % 900 * 4, 32000, 4)
    if all(is_free(port) for port in range(first, first + 4))
)
FIRST = AMONG.start
BOX = Box("/usr/bin/bwrap", User(20000, 20000), True, Path("/r/.accounts"), (("bin", "usr/bin"),))
A = Container("a", Path("/r/a"))


class PortsTests(SynchronousTestCase):
    def test_round(self) -> None:
        """Ports go round; one given back comes last, one wanted comes first."""
        ports = Ports(AMONG)
        first = ports.reserve("a")
        second, third, fourth = ((first - FIRST + step) % 4 + FIRST for step in (1, 2, 3))
        self.assertEqual([ports.reserve(owner) for owner in "bc"], [second, third])
        ports.release("a")
        self.assertEqual(ports.reserve("d"), fourth)
        self.assertEqual(ports.reserve("e"), first)
        with self.assertRaisesRegex(ContainerError, f"is free between {FIRST} and {FIRST + 3}"):
            ports.reserve("f")
        ports.release("b")
        self.assertEqual(ports.reserve("c", third), third)
        self.assertEqual(ports.reserve("f", third), second)

    def test_taken_by_others(self) -> None:
        """A port on which somebody else listens, on whatever address, is not given out."""
        ports = Ports(AMONG)
        with socket.create_server(("127.0.0.1", FIRST)), socket.create_server(("", FIRST + 1)):
            given = {ports.reserve("a", FIRST), ports.reserve("b", FIRST + 1)}
        self.assertEqual(given, {FIRST + 2, FIRST + 3})

    def test_all_that_listen(self) -> None:
        """However many listen, each is seen: the kernel tells of them a page at a time."""
        listening = []
        for _ in range(150):
            one = socket.create_server(("127.0.0.1", 0))
            self.addCleanup(one.close)
            listening.append(one.getsockname()[1])
        self.assertLessEqual(set(listening), set(proc.listening(os.getpid())))

    def test_claimed(self) -> None:
        """A port that an adopted service has is not given to another."""
        ports = Ports(AMONG)
        ports.claim("a", FIRST)
        self.assertNotEqual(ports.reserve("b", FIRST), FIRST)


class LogTests(SynchronousTestCase):
    def setUp(self) -> None:
        place = Path(tempfile.mkdtemp(prefix="log-"))
        self.addCleanup(shutil.rmtree, place)
        self.path = place / "log"

    def test_tail(self) -> None:
        """The last lines are given, oldest first, however long the file; none if there is none."""
        self.assertEqual(log.tail(self.path), [])
        self.path.write_bytes(b"x" * 200_000 + b"\n" + b"\n".join(b"%d" % n for n in range(50)))
        self.assertEqual(log.tail(self.path, 3), ["47", "48", "49"])
        self.assertEqual(len(log.tail(self.path)), 20)
        self.assertEqual(log.tail(self.path, 0), [])
        self.path.write_bytes(b"\xff bad\n")
        self.assertEqual(log.tail(self.path), ["\ufffd bad"])

    def test_punch(self) -> None:
        """The disk has the beginning back; the size is as it was, and so is the rest."""
        self.path.write_bytes(b"x" * (1 << 20) + b"rest")
        with self.path.open("r+b") as file:
            self.assertTrue(log.punch(file.fileno(), 1 << 20))
        self.assertLess(self.path.stat().st_blocks * 512, 1 << 16)
        self.assertEqual(self.path.read_bytes(), b"\0" * (1 << 20) + b"rest")
        with self.path.open("rb") as file, self.assertRaises(OSError):
            log.punch(file.fileno(), 1)


class Ends:
    """Of a runtime only what `keep` uses: services that end when told to."""

    def __init__(self) -> None:
        self.waiting: list[Deferred[Exit]] = []

    async def exited(self, container: Container) -> Exit:
        self.waiting.append(Deferred())
        return await self.waiting[-1]


class KeepTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.runtime = Clock(), Ends()
        self.told: list[tuple[Exit, float]] = []
        self.restarts = 0
        self.fails = ""
        self.keeping = Deferred.fromCoroutine(
            keep(
                self.clock,
                self.runtime,  # type: ignore[arg-type]
                A,
                self.restart,
                backoff=Backoff(first=1, most=3, steady=10),
                on_exit=lambda exit, delay: self.told.append((exit, delay)),
            )
        )

    async def restart(self) -> None:
        self.restarts += 1
        if self.fails:
            raise ContainerError(self.fails)

    def end(self) -> None:
        self.runtime.waiting[-1].callback(Exit(status=1))

    def test_waits_longer_each_time(self) -> None:
        """Each end in a row doubles the wait up to the most; a steady run starts the row anew."""
        for delay in (1, 2, 3, 3):
            self.end()
            self.assertEqual(self.told[-1], (Exit(status=1), delay))
            self.clock.advance(delay - 0.1)
            before = self.restarts
            self.clock.advance(0.1)
            self.assertEqual(self.restarts, before + 1)
        self.clock.advance(10)
        self.end()
        self.assertEqual(self.told[-1][1], 1)

    def test_restart_fails(self) -> None:
        """A restart that fails is told as an end, with its reason, and tried again."""
        self.end()
        self.fails = "no port is free"
        self.clock.advance(1)
        self.end()
        self.assertEqual(self.told[-1], (Exit(reason="no port is free"), 2))
        self.fails = ""
        self.clock.advance(2)
        self.assertEqual(self.restarts, 2)

    def test_cancel(self) -> None:
        """Cancelled, it restarts nothing more, be it waiting for an end or for its time."""
        self.end()
        self.keeping.cancel()
        self.failureResultOf(self.keeping, CancelledError)
        self.clock.advance(100)
        self.assertEqual(self.restarts, 0)


class SandboxTests(SynchronousTestCase):
    def test_nothing_secret_in_argv(self) -> None:
        """The argv names no variable, no value and no file of the ship's: options come by fd."""
        argv = [*outer(BOX, 7), *chain(BOX, Limits(files=9, seconds=3))]
        ids = "--reuid=20000 --regid=20000 --clear-groups --inh-caps=-all --no-new-privs"
        expected = (
            f"/usr/bin/bwrap --args 7 -- /usr/bin/setpriv {ids}"
            " /usr/bin/unshare --user --map-user=20000 --map-group=20000 --"
            " /usr/bin/prlimit --core=0 --nofile=9 -- /bin/sh -s --"
        )
        self.assertEqual(argv, expected.split())

    def test_view(self) -> None:
        """Only the container's own places and writable mounts are bound writable."""
        options = view(BOX, A, [Mount(Path("/c"), "/cache", writable=True)], status_fd=8)
        binds = [tuple(options[i + 1 : i + 3]) for i, o in enumerate(options) if o == "--bind"]
        self.assertEqual(binds, [("/r/a/tmp", "/tmp"), ("/r/a/app", "/app"), ("/c", "/cache")])
        self.assertNotIn("--unshare-net", options)
        for option in ("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--remount-ro"):
            self.assertIn(option, options)

    def test_ordinary_user(self) -> None:
        """A ship that is not root uses a user namespace, and has no user to become."""
        box = Box("/usr/bin/bwrap", None, True, Path("/r/.accounts"))
        self.assertIn("--unshare-user", view(box, A, []))
        self.assertNotIn("--cap-add", view(box, A, []))
        self.assertEqual(chain(box, Limits()), ["/bin/sh", "-s", "--"])

    def test_environment(self) -> None:
        """What is given goes over the runtime's own few variables."""
        env = environment({"A": "1", "HOME": "/x"}, home="/app", tmp="/tmp", path=["/tools"])
        self.assertEqual(set(env), {"A", "HOME", "PATH", "LANG", "TMPDIR"})
        self.assertEqual(env["HOME"], "/x")
        self.assertTrue(env["PATH"].startswith("/tools:/usr/local/sbin:"))

    @given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
    def test_script_keeps_values(self, value: str) -> None:
        """Whatever a value is, the command gets exactly it: nothing of it is run by the shell."""
        given = script({"A": value}, cwd="/")
        done = subprocess.run(
            ["/bin/sh", "-s", "--", "/usr/bin/printenv", "A"],
            input=given,
            capture_output=True,
            env={},
        )
        self.assertEqual(done.stdout, os.fsencode(value) + b"\n")

    def test_signals_behind_bubblewrap(self) -> None:
        """A status above 128 is the signal that it stands for."""
        self.assertEqual(sandboxed_exit(Exit(status=137)), Exit(signal=9))
        self.assertEqual(sandboxed_exit(Exit(status=128)), Exit(status=128))
        self.assertEqual(sandboxed_exit(Exit(status=255)), Exit(status=255))


class EndTests(SynchronousTestCase):
    def test_what_is_left_stays(self) -> None:
        """That a service ended is told also where what is left of it cannot be put away."""

        async def close() -> Exit:
            raise OSError("too many open files")

        async def gone() -> None: ...

        over: list[Exit] = []
        service = Service(Record(Address("127.0.0.1", 1), "mark"), close=close, over=over.append)
        ended = Deferred.fromCoroutine(service.ended())
        service.watch(gone())
        self.assertIn("too many open files", self.successResultOf(ended).how)
        self.assertEqual(len(over), 1)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)


class Waiting(SynchronousTestCase):
    def test_all_who_wait_go_on(self) -> None:
        """Who left is not told, nor who came to wait because it happened."""
        waiters, later = Waiters(), list[Deferred[None]]()
        first, gone, second = waiters.wait(), waiters.wait(), waiters.wait()

        def happened(_: None) -> None:
            gone.cancel()
            later.append(waiters.wait())

        first.addCallback(happened)
        waiters.go_on()
        self.failureResultOf(gone, CancelledError)
        self.assertIsNone(self.successResultOf(second))
        self.assertNoResult(later[0])
        waiters.go_on()
        self.assertIsNone(self.successResultOf(later[0]))
