"""What a container cannot outgrow: its memory, processes, CPUs and files, and that it cannot raise
what it may have."""

from __future__ import annotations

import time
import urllib.request
from pathlib import Path

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from containers.interface import Address, ContainerError, Limits
from containers.lxc.cgroups import Cgroups, Setting
from tests.containers.lxc_scene import PYTHON, LxcScene

MB = 1 << 20
OWN_SCORE = int(Path("/proc/self/oom_score_adj").read_text())
OUT_OF_MEMORY = "out of memory: it may have 64 MB (STARPHLEET_MEMORY)"
HOG = "x = bytearray(200 << 20); print('got it', flush=True)"
# Each of four takes what all together may have half of.
HOGS = """
import os, sys
for _ in range(4):
    if os.fork() == 0:
        x = bytearray(32 << 20)
        print("got it", flush=True)
        os.read(0, 1) or __import__("time").sleep(5)
        os._exit(0)
sys.exit(any(os.wait()[1] for _ in range(4)))
"""
COUNT_FORKS = """
import os, time
made = 0
try:
    while made < 500:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        made += 1
except OSError:
    pass
print(made)
"""
BOMB = "bomb() { bomb | bomb & }; bomb; sleep 60"
# The CPU time, in seconds, that two processes get in one second.
BURN = """
import os, time
end = time.monotonic() + 1
for _ in range(2):
    if os.fork() == 0:
        while time.monotonic() < end:
            pass
        os._exit(0)
for _ in range(2):
    os.wait()
print(sum(os.times()[2:4]))
"""
WATCH = """
import ctypes, sys, time
libc = ctypes.CDLL(None)
made = 0
while libc.inotify_init() >= 0:
    made += 1
print(made, "watches", flush=True)
time.sleep(20 * (made > 1))
"""
RAISE = """
import resource
for kind, more in ((resource.RLIMIT_NOFILE, 101), (resource.RLIMIT_CORE, 1)):
    try:
        resource.setrlimit(kind, (more, more))
        print("raised")
    except ValueError:
        print(*resource.getrlimit(kind))
"""
SERVER = """
import http.server, os, socketserver
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"hello")
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), Answer).serve_forever()
"""


class LimitsTests(LxcScene):
    """Each promise fails when its guard in `containers.lxc` is taken out."""

    async def test_memory(self) -> None:
        """Who takes more memory than its limit is killed, and the reason says so."""
        container = await self.make("a")
        limits = Limits(memory=64 * MB, seconds=20)
        for ended in (
            await self.run_in(container, PYTHON, "-c", HOG, limits=limits),
            await self.serve_to_end(container, PYTHON, "-c", HOG, limits=limits),
        ):
            self.assertEqual((ended[0].ok, ended[0].reason), (False, OUT_OF_MEMORY))
            self.assertNotIn("got it", ended[1])
        self.assertIn("got it", (await self.run_in(await self.make("b"), PYTHON, "-c", HOG))[1])

    async def test_memory_of_all(self) -> None:
        """The memory of all processes of a container counts together, and what is in /dev/shm."""
        container = await self.make("a")
        limits = Limits(memory=64 * MB, seconds=20)
        exit, out = await self.run_in(container, PYTHON, "-c", HOGS, limits=limits)
        self.assertFalse(exit.ok)
        self.assertLess(out.count("got it"), 4)
        fill = "head -c 60000000 /dev/zero > /dev/shm/one && head -c 60000000 /dev/zero | tail -c 9"
        exit, _ = await self.run_in(
            container, "sh", "-c", fill, limits=evolve(limits, memory=MB * 32)
        )
        self.assertFalse(exit.ok)
        exit, out = await self.run_in(container, "sh", "-c", "head -c 80M /dev/zero > /dev/shm/one")
        self.assertIn("No space left on device", out)

    async def test_processes(self) -> None:
        """No more processes come to be than the limit, with those beside the service counted."""
        container = await self.make("a")
        limits = Limits(processes=30, seconds=20)
        _, out = await self.run_in(container, PYTHON, "-c", COUNT_FORKS, limits=limits)
        self.assertLess(int(out), 30)
        await self.serve(container, "sleep", "60", limits=limits)
        _, out = await self.run_in(container, PYTHON, "-c", COUNT_FORKS)
        self.assertLess(int(out), 30)

    async def test_fork_bomb(self) -> None:
        """A fork bomb stays within its limit as long as it lives, and goes when it is stopped."""
        container = await self.make("a")
        await self.serve(container, "bash", "-c", BOMB, limits=Limits(processes=60))
        count = self.runtime.cgroups.directory("pids", "a") / "pids.current"
        await self.until(lambda: int(count.read_text()) > 50)
        for _ in range(50):
            self.assertLessEqual(int(count.read_text()), 60)
            await deferLater(reactor, 0.005)
        began = time.monotonic()
        await self.runtime.stop(container, grace=0.5)
        self.assertLess(time.monotonic() - began, 5)
        self.assertEqual(self.runtime.cgroups.members("a"), [])
        self.assertNotIn("a", self.runtime.cgroups.names())

    async def test_watches(self) -> None:
        """One container cannot take all inotify instances: others, and the host, have theirs."""
        one, other = await self.make("a"), await self.make("b")
        await self.serve(one, PYTHON, "-c", WATCH)
        await self.until(lambda: "watches" in self.log.read_text())
        self.assertEqual(self.log.read_text(), "64 watches\n")
        _, out = await self.run_in(other, PYTHON, "-c", WATCH.replace("while", "if"))
        self.assertEqual(out, "1 watches\n")

    async def test_cpus(self) -> None:
        """Half a CPU is what a container gets that may have half a CPU."""
        container = await self.make("a")
        limits = Limits(cpus=0.5, seconds=20)
        _, out = await self.run_in(container, PYTHON, "-c", BURN, limits=limits)
        self.assertLess(float(out), 0.8)
        self.assertGreater(float(out), 0.02)

    async def test_builds_come_after_services(self) -> None:
        """Where CPUs are short, a build has a tenth of what a service has."""
        service, build = await self.make("a"), await self.make("b")
        await self.serve(service, "sleep", "60")
        running = Deferred.fromCoroutine(self.run_in(build, "sleep", "60"))
        running.addErrback(lambda _: None)
        self.addCleanup(lambda: running)
        self.addCleanup(running.cancel)
        await self.until(lambda: self.runtime.cgroups.init("b+run"))
        weights = [self.in_force(name, Limits())[0] for name in ("a", "b+run")]
        self.assertEqual(weights[0], 10 * weights[1])

    async def test_builds_go_before_services(self) -> None:
        """Where the host runs out of memory, the kernel kills a build before any service."""
        container = await self.make("a")
        score = ("cat", "/proc/self/oom_score_adj")
        build, service = [
            int((await ran(container, *score))[1]) for ran in (self.run_in, self.serve_to_end)
        ]
        self.assertEqual((build, service), (500, OWN_SCORE))

    def in_force(self, name: str, limits: Limits) -> list[int]:
        """What the files say that these limits would set."""
        settings = self.runtime.cgroups.settings(name, limits)
        return [int(setting.file.read_text().split()[0]) for setting in settings]

    async def test_all_are_in_force(self) -> None:
        """When a service has started, every limit of it is what was asked for."""
        container = await self.make("a")
        limits = Limits(memory=64 * MB, processes=30, cpus=0.5, files=100)
        await self.serve(container, "sleep", "60", limits=limits)
        wanted = self.runtime.cgroups.settings("a", limits)
        self.assertGreaterEqual(len(wanted), 4)
        for setting in wanted:
            self.assertEqual(setting.file.read_text().strip(), setting.reads, setting.file)

    async def test_what_does_not_take(self) -> None:
        """A limit that the host does not keep is an error that names it, and nothing runs."""
        container = await self.make("a")
        honest = Cgroups.settings

        def other(*args: object, **given: object) -> list[Setting]:
            return [evolve(one, reads="4711") for one in honest(*args, **given)]  # type: ignore[arg-type]

        self.patch(Cgroups, "settings", other)
        limits = Limits(memory=64 * MB, seconds=20)
        why = r"the limit 4711 is not in force: memory\.\w+ 67108864"
        with self.assertRaisesRegex(ContainerError, why):
            await self.run_in(container, "touch", "/app/ran", limits=limits)
        with self.assertRaisesRegex(ContainerError, f"^cannot start a: {why}$"):
            await self.serve(container, "touch", "/app/ran", limits=limits)
        self.assertFalse((container.app / "ran").exists())
        self.assertEqual(self.runtime.cgroups.names(), set())
        self.patch(Cgroups, "settings", honest)
        await self.serve(container, "sleep", "60", limits=limits)

    async def test_raises_nothing(self) -> None:
        """No limit can be raised from inside, by root neither: no cgroups are there to be set."""
        container = await self.make("a")
        limits = Limits(files=100, seconds=20, memory=64 * MB)
        look = (
            "grep -c cgroup /proc/self/mountinfo; ls -A /sys/fs/cgroup | wc -l; echo $(ulimit -n)"
        )
        for root in (False, True):
            given = {"limits": limits, "root": root}
            _, out = await self.run_in(container, PYTHON, "-c", RAISE, **given)
            self.assertEqual(out.split(), ["100", "100", "0", "0"])
            _, out = await self.run_in(container, "sh", "-c", look, **given)
            self.assertEqual(out.split(), ["0", "0", "100"])
        await self.serve(container, "sleep", "60", limits=limits)
        _, out = await self.run_in(container, PYTHON, "-c", RAISE)
        self.assertEqual(out.split(), ["100", "100", "0", "0"])

    async def test_serves_beside_hogs(self) -> None:
        """While others fork, fill their memory and burn their CPUs, every request is answered."""
        served = await self.make("a")
        address = await self.serve(served, PYTHON, "-c", SERVER)
        await deferToThread(self.ask, address, 1, patience=10)
        hogs = {
            "forks": (("bash", "-c", BOMB), Limits(processes=60, cpus=0.5, memory=64 * MB)),
            "fills": (
                ("sh", "-c", f'while :; do {PYTHON} -c "{HOG}"; done'),
                Limits(memory=64 * MB),
            ),
            "burns": ((PYTHON, "-c", "while True: pass"), Limits(cpus=0.5)),
        }
        for name, (argv, limits) in hogs.items():
            log = self.place / f"{name}.log"
            await self.serve(await self.make(name), *argv, limits=limits, log=log)
        answered = await deferToThread(self.ask, address, 150)
        self.assertEqual(answered, 150)
        for name in hogs:
            self.assertTrue(self.runtime.cgroups.init(name), name)

    def ask(self, address: Address, count: int, patience: float = 0) -> int:
        """How many of `count` requests are answered, at most 0.02 s apart."""
        answered, end = 0, time.monotonic() + patience
        url = f"http://{address.host}:{address.port}/"
        while answered < count:
            try:
                with urllib.request.urlopen(url, timeout=10) as response:
                    answered += response.read() == b"hello"
            except OSError:
                if time.monotonic() > end:
                    return answered
            time.sleep(0.01)
        return answered
