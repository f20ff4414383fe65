"""What every runtime promises, written against `containers.interface` alone.

A runtime joins by one line in `RUNTIMES`. This file is also the ship that gets killed: executed
with a kind, a root and a first port, it starts a service and an endless run, and waits.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from containers.interface import Address, Container, ContainerError, Exit, Limits, Mount, Runtime
from containers.process import ProcessRuntime
from tests.containers.lxc import make_lxc

RUNTIMES: dict[str, Callable[[Any, Path, range], Runtime]] = {
    "lxc": lambda re, root, ports: make_lxc(re, root),
    "sandboxed": lambda re, root, ports: ProcessRuntime(re, root, ports=ports, sandbox=True),
    "bare": lambda re, root, ports: ProcessRuntime(re, root, ports=ports, sandbox=False),
}

CHECKOUT = Path(__file__).parents[2]
LIMITS = Limits(seconds=30)
PYTHON = "/usr/bin/python3"
PRINT_ENV = "import json,os; print(json.dumps(dict(os.environ)))"
SERVER = """
import http.server, os, signal, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"hello")
    def log_message(self, *_): pass
def bye(*_):
    print("bye", flush=True); os._exit(3)
signal.signal(signal.SIGTERM, bye)
server = http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answer)
print("ready", flush=True)
server.serve_forever()
"""
# Processes in sessions of their own, which do not listen to TERM, three deep.
STUBBORN = "trap '' TERM; setsid sh -c 'setsid sleep {0} & sleep {0}' & sleep {0}; sleep {0}"

_ranges = (10000 + (os.getpid() * 7 + step) % 39 * 100 for step in count())


def running(word: str) -> list[int]:
    """Living processes of this host that have `word` in an argument."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if word.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def sleeping(word: str) -> int:
    """How many `sleep` commands with this argument run."""
    count = 0
    for pid in running(word):
        with contextlib.suppress(OSError):  # it has just ended
            count += Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep\0")
    return count


def terminate_server(word: str, address: Address) -> None:
    """TERM to the server that has `word`, from outside: its runtime knows nothing of it."""
    for pid in running(word):
        with contextlib.suppress(OSError):
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            told = Path(f"/proc/{pid}/environ").read_bytes()
            if b"server.py" in arguments and f"PORT={address.port}".encode() in told:
                os.kill(pid, signal.SIGTERM)


class Contract(TestCase):
    """The promises. Each kind of runtime runs them in a class of its own, made below."""

    __test__ = False
    kind = ""
    timeout = 60

    def setUp(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="contract-"))
        self.place.chmod(0o711)
        self.addCleanup(shutil.rmtree, self.place)
        self.ports = range(first := next(_ranges), first + 100)
        self.root = self.place / "containers"
        self.runtime = self.another()
        self.word = f"9{uuid.uuid4().int % 10**12}"  # an argument of `sleep` that nobody else has
        self.log = self.place / "log"
        self.addCleanup(self.end_everything)

    def another(self) -> Runtime:
        """What a new ship process makes of the same root."""
        return RUNTIMES[self.kind](reactor, self.root, self.ports)

    async def end_everything(self) -> None:
        await self.runtime.sweep(set())
        await self.runtime.leave()

    async def run_in(self, container: Container, *argv: str, **given: Any) -> tuple[Exit, bytes]:
        out = bytearray()
        given = {"env": {}, "limits": LIMITS, **given}
        return await self.runtime.run(container, argv, output=out.extend, **given), bytes(out)

    async def serve(self, container: Container, *argv: str, **given: Any) -> Address:
        given = {"env": {}, "limits": Limits(), "log": self.log, **given}
        if not argv:
            (container.app / "server.py").write_text(SERVER)
            (container.app / "server.py").chmod(0o644)
            argv = (PYTHON, "server.py")
        return await self.runtime.start(container, argv, **given)

    async def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            self.assertLess(time.monotonic(), deadline, "waited too long")
            await deferLater(reactor, 0.01)

    async def answer(self, address: Address) -> bytes:
        """What the service answers, once it does."""

        def ask() -> bytes:
            url = f"http://{address.host}:{address.port}/"
            for _ in range(2000):
                try:
                    with urllib.request.urlopen(url, timeout=5) as response:
                        body = response.read()
                        assert isinstance(body, bytes)
                        return body
                except OSError:
                    time.sleep(0.01)
            raise AssertionError(f"{url} does not answer: {self.log.read_text()}")

        return await deferToThread(ask)

    async def test_containerize_twice(self) -> None:
        """Making a container that exists finds it, with what is in it."""
        first = await self.runtime.containerize("a.b-1")
        (first.app / "file").write_text("kept")
        second = await self.runtime.containerize("a.b-1")
        self.assertEqual(first, second)
        self.assertEqual((second.app / "file").read_text(), "kept")
        self.assertEqual(self.runtime.find("a.b-1"), first)
        self.assertEqual(self.runtime.names(), {"a.b-1"})
        self.assertIsNone(self.runtime.find("other"))

    async def test_bad_names(self) -> None:
        """What is no name is refused in words, and nothing is made."""
        for name in ("", ".", "..", "-a", ".a", "a/b", "a\n", "A", "a" * 201, "a\0", "ä"):
            with self.assertRaisesRegex(ContainerError, "is not a name"):
                await self.runtime.containerize(name)
        self.assertEqual(self.runtime.names(), set())

    async def test_run_tells_how_it_ended(self) -> None:
        """A command's exit status, and the signal that killed it, are reported as such."""
        container = await self.runtime.containerize("a")
        self.assertEqual((await self.run_in(container, "true"))[0], Exit(status=0))
        self.assertEqual((await self.run_in(container, "sh", "-c", "exit 7"))[0], Exit(status=7))
        killed, _ = await self.run_in(container, "sh", "-c", "kill -9 $$")
        self.assertEqual(killed, Exit(signal=9))

    async def test_run_what_is_not_there(self) -> None:
        """A command that does not exist ends with a status that is not zero, and says so."""
        container = await self.runtime.containerize("a")
        exit, out = await self.run_in(container, "no-such-command")
        self.assertFalse(exit.ok)
        self.assertIn(b"no-such-command", out)

    async def test_run_merges_output(self) -> None:
        """stdout and stderr arrive in the order in which they were written."""
        container = await self.runtime.containerize("a")
        _, out = await self.run_in(container, "sh", "-c", "echo a; echo b >&2; echo c")
        self.assertEqual(out, b"a\nb\nc\n")

    async def test_run_gives_big_output_whole(self) -> None:
        """All of a long output arrives, also what was written just before the end."""
        container = await self.runtime.containerize("a")
        _, out = await self.run_in(container, "sh", "-c", "seq 200000; echo end")
        self.assertTrue(out.startswith(b"1\n2\n"))
        self.assertTrue(out.endswith(b"200000\nend\n"))

    async def test_run_time_limit(self) -> None:
        """A command that takes too long is ended, all of it, and the reason says so."""
        container = await self.runtime.containerize("a")
        began = time.monotonic()
        script = STUBBORN.format(self.word)
        exit, _ = await self.run_in(container, "sh", "-c", script, limits=Limits(seconds=0.3))
        self.assertEqual(exit.reason, "ran longer than 0.3 s")
        self.assertFalse(exit.ok)
        self.assertLess(time.monotonic() - began, 5)
        self.assertEqual(running(self.word), [])

    async def test_run_output_limit(self) -> None:
        """A command that prints too much is ended, and no more than the limit is passed on."""
        container = await self.runtime.containerize("a")
        exit, out = await self.run_in(container, "yes", limits=Limits(seconds=20, output=100_000))
        self.assertEqual(exit.reason, "printed more than 100000 bytes")
        self.assertLessEqual(len(out), 100_000)

    async def test_environment_from_nothing(self) -> None:
        """A command gets the few variables of the runtime and those given, none of the ship's."""
        self.patch(os, "environ", {**os.environ, "SHIPS_OWN": "1"})
        container = await self.runtime.containerize("a")
        _, out = await self.run_in(container, PYTHON, "-c", PRINT_ENV, env={"A": "1"})
        env = json.loads(out)
        own = {"PATH", "HOME", "LANG", "TMPDIR", "A"}
        extra = {"PWD", "LC_CTYPE", "STARPHLEET_CONTAINER", "STARPHLEET_RUN"}
        self.assertEqual(set(env) - extra, own)
        self.assertIn("/usr/bin", env["PATH"].split(":"))
        self.assertEqual(env["HOME"], self.runtime.app_at(container))

    async def test_environment_values(self) -> None:
        """Values arrive as they are, whatever characters are in them; bad names are refused."""
        container = await self.runtime.containerize("a")
        given = {
            "A": 'it\'s "$HOME" `id` \\n\n\ttwo lines ü',
            "B": "",
            "_c9": "--x",
            "PATH": "/bin",
        }
        _, out = await self.run_in(container, PYTHON, "-c", PRINT_ENV, env=given)
        env = json.loads(out)
        self.assertEqual({name: env[name] for name in given}, given)
        for name, value in (("A B", ""), ("A;id", ""), ("9A", ""), ("", ""), ("A", "\0")):
            with self.assertRaisesRegex(ContainerError, "environment"):
                await self.run_in(container, "true", env={name: value})

    async def test_runs_in_the_app_directory(self) -> None:
        """A command starts in the app directory, may write there and in TMPDIR, and owns it."""
        container = await self.runtime.containerize("a")
        (container.app / "given").write_text("x")
        self.runtime.own(container)
        script = 'test "$(pwd)" = "$HOME" && echo y >> given && mktemp && cat given'
        exit, out = await self.run_in(container, "sh", "-c", script)
        self.assertTrue(exit.ok, out)
        self.assertEqual((container.app / "given").read_text(), "xy\n")

    async def test_mounts(self) -> None:
        """A mount is seen where `seen_at` says; a writable one takes what is written."""
        container = await self.runtime.containerize("a")
        reading, writing = self.place / "reading", self.place / "writing"
        for directory in (reading, writing):
            directory.mkdir()
        (reading / "file").write_text("from outside")
        mounts = [Mount(reading, "/mnt/read"), Mount(writing, "/mnt/write", writable=True)]
        seen = [self.runtime.seen_at(container, mount) for mount in mounts]
        exit, out = await self.run_in(container, "cp", f"{seen[0]}/file", seen[1], mounts=mounts)
        self.assertTrue(exit.ok, out)
        self.assertEqual((writing / "file").read_text(), "from outside")

    async def test_a_directory_of_somebody_else_as_the_app(self) -> None:
        """Where there is a sandbox, it is what a command and a service see as their app. They write
        there once it is shared, and nothing in it changes its owner."""
        container = await self.runtime.containerize("a")
        self.runtime.own(container)
        theirs = self.place / "work" / "theirs"
        theirs.mkdir(parents=True)
        (theirs / "file").write_text("theirs")
        mount = Mount(theirs, "/app", writable=True, theirs=True)
        if self.runtime.seen_at(container, mount) != "/app":
            return
        if os.geteuid() == 0:
            for path in (theirs.parent, theirs, theirs / "file"):
                os.chown(path, 4321, 4321)
        whose = theirs.stat().st_uid
        self.assertTrue(self.runtime.share(theirs))
        script = (
            "cat file && echo too >>file && mkdir made && echo made >made/it"
            ' && cp -a . "$TMPDIR/all" && pwd && echo "$HOME"'
        )
        exit, out = await self.run_in(container, "sh", "-c", script, mounts=[mount])
        self.assertEqual((exit.ok, out), (True, b"theirs/app\n/app\n"))
        self.assertEqual((theirs / "file").read_text(), "theirstoo\n")
        self.assertEqual({one.stat().st_uid for one in (theirs, theirs / "file")}, {whose})
        self.assertEqual(list(container.app.iterdir()), [])
        (theirs / "server.py").write_text(SERVER)
        address = await self.runtime.start(
            container, [PYTHON, "server.py"], env={}, log=self.place / "log", limits=Limits(),
            mounts=[mount],
        )  # fmt: skip
        self.assertEqual(await self.answer(address), b"hello")

    async def test_run_leaves_nothing_behind(self) -> None:
        """What a command leaves in the background ends with it."""
        container = await self.runtime.containerize("a")
        script = f"sleep {self.word} & setsid sleep {self.word} & exit 0"
        exit, _ = await self.run_in(container, "sh", "-c", script)
        self.assertTrue(exit.ok)
        self.assertEqual(running(self.word), [])

    async def test_cancelled_run(self) -> None:
        """Cancelling a run kills everything that it started, before it is over."""
        container = await self.runtime.containerize("a")
        script = STUBBORN.format(self.word)
        work = Deferred.fromCoroutine(self.run_in(container, "sh", "-c", script))
        await self.until(lambda: sleeping(self.word) >= 3)
        work.cancel()
        with self.assertRaises(CancelledError):
            await work
        self.assertEqual(running(self.word), [])

    async def test_serves_on_its_port(self) -> None:
        """A started service finds its port in PORT, answers there, and is seen to listen."""
        container = await self.runtime.containerize("a")
        address = await self.serve(container)
        self.assertEqual(await self.answer(address), b"hello")
        self.assertEqual(self.runtime.listening(container), [address.port])
        with self.assertRaisesRegex(ContainerError, "already running"):
            await self.serve(container)

    async def test_no_secret_in_any_argument(self) -> None:
        """The values of the environment are in no argument of any process."""
        container = await self.runtime.containerize("a")
        await self.answer(await self.serve(container, env={"SECRET": f"x{self.word}"}))
        self.assertEqual(running(self.word), [])

    async def test_exited(self) -> None:
        """The end of a service is told to everyone who waits, and to who asks later."""
        container = await self.runtime.containerize("a")
        address = await self.serve(container, "sh", "-c", "echo out; echo err >&2; exit 7")
        waits = [Deferred.fromCoroutine(self.runtime.exited(container)) for _ in range(3)]
        waits[0].addErrback(lambda _: None).cancel()
        self.assertEqual([await waits[1], await waits[2]], [Exit(status=7)] * 2)
        self.assertEqual(await self.runtime.exited(container), Exit(status=7))
        self.assertEqual(self.log.read_text(), "out\nerr\n")
        again = await self.serve(container, "sh", "-c", "kill -6 $$", address=address)
        self.assertEqual(again, address)
        self.assertEqual(await self.runtime.exited(container), Exit(signal=6))

    async def test_stop_asks(self) -> None:
        """Stopping sends TERM: a service may finish what it does, and ends as it likes."""
        container = await self.runtime.containerize("a")
        await self.answer(await self.serve(container))
        ended = Deferred.fromCoroutine(self.runtime.exited(container))
        await self.runtime.stop(container, grace=20)
        self.assertEqual(await ended, Exit(status=3))
        self.assertIn("bye", self.log.read_text())

    async def test_stop_asks_the_children(self) -> None:
        """TERM reaches a service below a shell, and its grace outlasts the shell."""
        container = await self.runtime.containerize("a")
        slow = (
            "import signal,sys,time; signal.signal(15, lambda *_: (time.sleep(.3), print('bye')))"
        )
        (container.app / "slow.py").write_text(f"{slow}\nprint('up', flush=True)\nsignal.pause()")
        (container.app / "slow.py").chmod(0o644)
        await self.serve(container, "sh", "-c", f"setsid {PYTHON} slow.py; true")
        await self.until(lambda: "up" in self.log.read_text())
        began = time.monotonic()
        await self.runtime.stop(container, grace=20)
        self.assertLess(time.monotonic() - began, 10)
        self.assertIn("bye", self.log.read_text())

    async def test_stop_kills(self) -> None:
        """What does not listen to TERM is killed after the grace, to the last grandchild."""
        container = await self.runtime.containerize("a")
        await self.serve(container, "sh", "-c", STUBBORN.format(self.word))
        await self.until(lambda: sleeping(self.word) >= 3)
        began = time.monotonic()
        await self.runtime.stop(container, grace=0.3)
        self.assertEqual(running(self.word), [])
        self.assertGreater(time.monotonic() - began, 0.3)
        self.assertLess(time.monotonic() - began, 5)

    async def test_stop_again(self) -> None:
        """Stopping what does not run does nothing; a stopped service can be started again."""
        container = await self.runtime.containerize("a")
        await self.runtime.stop(container, grace=1)
        address = await self.serve(container)
        await self.runtime.stop(container, grace=1)
        await self.runtime.stop(container, grace=1)
        self.assertEqual(self.runtime.listening(container), [])
        await self.serve(container, address=address)

    async def test_stop_at_once(self) -> None:
        """A service can be stopped the moment it was started."""
        container = await self.runtime.containerize("a")
        for _ in range(5):
            await self.serve(container, "sleep", self.word)
            began = time.monotonic()
            await self.runtime.stop(container, grace=10)
            self.assertLess(time.monotonic() - began, 5)
            self.assertEqual(running(self.word), [])

    async def test_destroy(self) -> None:
        """Destroying leaves no process and no directory, also of what a service closed."""
        container = await self.runtime.containerize("a")
        await self.runtime.containerize("b")
        address = await self.serve(container)
        await self.answer(address)
        (container.app / "closed").mkdir(mode=0)
        await self.runtime.destroy(container)
        await self.runtime.destroy(container)
        self.assertEqual(self.runtime.names(), {"b"})
        self.assertFalse(container.directory.exists())
        with self.assertRaises(OSError), socket.create_connection((address.host, address.port), 1):
            pass

    async def test_twenty_at_once(self) -> None:
        """Twenty services start side by side, on ports of their own, and go again."""
        containers = [await self.runtime.containerize(f"c{number}") for number in range(20)]
        starts = [Deferred.fromCoroutine(self.serve(one)) for one in containers]
        addresses = await gatherResults(starts)
        self.assertEqual(len(set(addresses)), 20)
        for address in addresses:
            self.assertEqual(await self.answer(address), b"hello")
        ends = [Deferred.fromCoroutine(self.runtime.destroy(one)) for one in containers]
        await gatherResults(ends)
        self.assertEqual(self.runtime.names(), set())

    def killed_ship(self) -> Iterator[Address]:
        """Where the service of a ship answers that was then killed; its other run is `word`."""
        words = [self.kind, str(self.root), str(self.ports[0]), self.word]
        argv = [sys.executable, "-m", "tests.contracts.test_runtime", *words]
        ship = subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=CHECKOUT)
        assert ship.stdout is not None
        host, port = ship.stdout.readline().split()
        yield Address(host.decode(), int(port))
        ship.send_signal(signal.SIGKILL)
        ship.wait()
        ship.stdout.close()

    async def test_adopt(self) -> None:
        """A service outlives its ship's `kill -9`; a new ship takes it over and may stop it."""
        for address in self.killed_ship():
            self.assertEqual(await self.answer(address), b"hello")
        self.runtime = self.another()
        container = self.runtime.find("a")
        assert container is not None
        self.assertEqual(self.runtime.adopt(container), address)
        self.assertEqual(self.runtime.adopt(container), address)
        self.assertEqual(await self.answer(address), b"hello")
        self.assertEqual(self.runtime.listening(container), [address.port])
        other = await self.runtime.containerize("b")
        self.assertNotEqual(await self.serve(other, "sleep", "60"), address)
        ended = Deferred.fromCoroutine(self.runtime.exited(container))
        await self.runtime.stop(container, grace=20)
        self.assertIn(await ended, (Exit(), Exit(status=3)))
        self.assertEqual((self.root.parent / "log").read_text(), "ready\nbye\n")
        self.assertIsNone(self.runtime.adopt(container))

    async def test_let_go(self) -> None:
        """Who has let go leaves a service to another ship process, which may stop it and start it
        again while the first one lives on, and puts nothing away."""
        container = await self.runtime.containerize("a")
        address = await self.serve(container)
        await self.answer(address)
        before, self.runtime = self.runtime, self.another()
        ended = Deferred.fromCoroutine(before.exited(container))
        ended.addErrback(lambda failure: failure.trap(CancelledError))
        before.let_go()
        self.assertEqual(self.runtime.adopt(container), address)
        await self.runtime.stop(container, grace=20)
        self.assertEqual(await self.serve(container, address=address), address)
        self.assertEqual(await self.answer(address), b"hello")
        self.assertNoResult(ended)
        ended.cancel()

    async def test_adopted_exit(self) -> None:
        """The end of an adopted service is noticed without asking, then it can be started."""
        for address in self.killed_ship():
            await self.answer(address)
        self.runtime = self.another()
        container = await self.runtime.containerize("a")
        self.runtime.adopt(container)
        ended = Deferred.fromCoroutine(self.runtime.exited(container))
        terminate_server(self.word[::-1], address)
        self.assertIn(await ended, (Exit(), Exit(status=3)))
        self.assertIsNone(self.another().adopt(container))
        self.assertEqual(await self.serve(container, address=address), address)
        self.assertEqual(await self.answer(address), b"hello")

    async def test_start_over_an_unadopted_one(self) -> None:
        """Starting a container whose earlier service nobody adopted replaces that service."""
        for address in self.killed_ship():
            await self.answer(address)
        self.runtime = self.another()
        container = await self.runtime.containerize("a")
        self.assertEqual(await self.serve(container, "sleep", self.word, address=address), address)
        self.assertEqual(self.runtime.listening(container), [])

    async def test_sweep(self) -> None:
        """At boot all goes that is not kept, and in what is kept all but the service."""
        for address in self.killed_ship():
            await self.answer(address)
            await self.until(lambda: sleeping(self.word))
        self.runtime = self.another()
        await self.runtime.containerize("b")
        await self.runtime.sweep({"a"})
        self.assertEqual(self.runtime.names(), {"a"})
        self.assertEqual(running(self.word), [])
        self.assertEqual(await self.answer(address), b"hello")
        await self.runtime.sweep(set())
        self.assertEqual(self.runtime.names(), set())
        with self.assertRaises(OSError), socket.create_connection((address.host, address.port)):
            pass

    async def test_sweep_spares_our_own(self) -> None:
        """What this ship process itself runs in a kept container is not swept."""
        container = await self.runtime.containerize("a")
        work = Deferred.fromCoroutine(self.run_in(container, "sleep", self.word))
        await self.until(lambda: sleeping(self.word))
        await self.runtime.sweep({"a"})
        self.assertTrue(sleeping(self.word))
        work.addErrback(lambda _: None).cancel()
        await work


def collect(kind: str) -> None:
    """Let the promises be tested of this kind of runtime, in a class of its own."""
    name = f"{kind.capitalize()}RuntimeTests"
    made = type(name, (Contract,), {"kind": kind, "__test__": True, "__module__": __name__})
    globals()[name] = made


for each in RUNTIMES:
    collect(each)


async def be_a_ship(kind: str, root: Path, first: int, word: str) -> None:
    """Start a service and a run that does not end, say where the service is, and wait."""
    runtime = RUNTIMES[kind](reactor, root, range(first, first + 100))
    container = await runtime.containerize("a")
    (container.app / "server.py").write_text(SERVER)
    (container.app / "server.py").chmod(0o644)
    log = root.parent / "log"
    address = await runtime.start(
        container, [PYTHON, "server.py", word[::-1]], env={}, log=log, limits=Limits()
    )
    print(address.host, address.port, flush=True)
    await runtime.run(container, ["sleep", word], env={}, output=lambda _: None, limits=Limits())


if __name__ == "__main__":
    from twisted.internet.task import react

    kind, root, first, word = sys.argv[1:]
    react(lambda _: Deferred.fromCoroutine(be_a_ship(kind, Path(root), int(first), word)))
