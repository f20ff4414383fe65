"""What a sandboxed command cannot do: read, see, change or outgrow. Real bubblewrap throughout."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from containers.interface import Container, ContainerError, Exit, Limits, Mount
from containers.process import ProcessRuntime

PORTS = range(first := 17000 + os.getpid() % 50 * 20, first + 20)
PYTHON = "/usr/bin/python3"
COUNT_FORKS = """
import os, time
made = 0
try:
    while made < 500:
        if os.fork() == 0:
            time.sleep(60)
        made += 1
except OSError:
    pass
print(made)
"""


def sleeper(secret: str) -> subprocess.Popen[bytes]:
    """A process of the host, of the same user as the commands, with a secret environment."""
    user = 20000 if os.geteuid() == 0 else None
    return subprocess.Popen(["sleep", "60"], env={"S": secret}, cwd="/", user=user, group=user)


def namespaces() -> set[str]:
    """Those of this process."""
    return {str(path.readlink()) for path in Path("/proc/self/ns").iterdir()}


def commands() -> str:
    """The command lines of all processes of the host."""
    return subprocess.run(["ps", "-A", "-o", "args"], capture_output=True, text=True).stdout


class IsolationTests(TestCase):
    """Each promise fails when its guard in `containers.sandbox` is taken out."""

    timeout = 60

    async def setUp(self) -> None:  # type: ignore[override]
        self.place = Path(tempfile.mkdtemp(prefix="isolation-", dir="/var/tmp"))
        self.place.chmod(0o755)
        self.addCleanup(shutil.rmtree, self.place)
        self.tools = self.place / "tools"
        self.tools.mkdir(mode=0o777)
        self.tools.chmod(0o777)
        self.runtime = ProcessRuntime(
            reactor,
            self.place / "root",
            ports=PORTS,
            sandbox=True,
            also_readable=[self.tools],
        )
        self.addCleanup(self.runtime.sweep, set())
        self.container = await self.runtime.containerize("a")
        self.secret = f"s{uuid.uuid4().hex}"

    async def run_in(self, *argv: str, **given: Any) -> tuple[Exit, str]:
        out = bytearray()
        container: Container = given.pop("container", self.container)
        given = {"env": {}, "limits": Limits(seconds=20), **given}
        exit = await self.runtime.run(container, argv, output=out.extend, **given)
        return exit, out.decode()

    async def test_reads_nothing_of_the_host(self) -> None:
        """Neither the ship's files nor another container's nor anybody's home can be read."""
        other = await self.runtime.containerize("b")
        hidden = [self.place / "secret", other.app / "secret", self.container.directory / "secret"]
        for path in hidden:
            path.write_text(self.secret)
            path.chmod(0o644)
        for path in (*hidden, Path("/etc/shadow"), Path("/root/.profile"), Path("/etc/ssh")):
            exit, out = await self.run_in("ls", str(path))
            self.assertEqual((exit.ok, self.secret in out), (False, False), path)
        _, out = await self.run_in("ls", "/")
        allowed = "app bin dev etc lib lib32 lib64 libx32 proc run sbin tmp usr var"
        self.assertLessEqual(set(out.split()), set(allowed.split()))

    async def test_reads_what_is_also_readable(self) -> None:
        """What was made readable is at the same path, read-only, whatever its mode says."""
        (self.tools / "tool").write_text("#!/bin/sh\necho works\n")
        (self.tools / "tool").chmod(0o755)
        self.assertEqual((await self.run_in(f"{self.tools}/tool"))[1], "works\n")
        exit, out = await self.run_in("touch", f"{self.tools}/new")
        self.assertIn("Read-only file system", out)
        self.assertFalse(exit.ok)
        with self.assertRaisesRegex(ContainerError, "the containers are in it"):
            ProcessRuntime(reactor, self.place / "root", ports=PORTS, also_readable=[self.place])

    async def test_writes_only_its_own(self) -> None:
        """Of all that is mounted only its own places can be written; the base cannot."""
        reading = self.place / "reading"
        reading.mkdir(mode=0o777)
        reading.chmod(0o777)
        mounts = [Mount(reading, "/mnt/reading"), Mount(self.tools, "/mnt/w", writable=True)]
        _, out = await self.run_in("cat", "/proc/self/mountinfo", mounts=mounts)
        options = {line.split()[4]: line.split()[5].split(",") for line in out.splitlines()}
        writable = {place for place, found in options.items() if "ro" not in found}
        devices = {place for place in writable if place.startswith("/dev")}
        self.assertEqual(writable - devices, {"/app", "/tmp", "/mnt/w", "/proc"})
        for place in ("/usr", "/", "/etc", "/mnt/reading", "/var"):
            exit, _ = await self.run_in("touch", f"{place}/new", mounts=mounts)
            self.assertFalse(exit.ok, place)
        self.assertIn("/usr", options)

    async def test_sees_no_process_of_the_host(self) -> None:
        """Only its own processes are there: no environment to be read, nobody to be killed."""
        other = sleeper(self.secret)
        self.addCleanup(other.wait)
        self.addCleanup(other.kill)
        script = f"cat /proc/*/environ /proc/*/cmdline; kill -9 {other.pid}"
        _, out = await self.run_in("sh", "-c", script)
        self.assertNotIn(self.secret, out)
        self.assertIsNone(other.poll())
        _, out = await self.run_in("sh", "-c", "ls -d /proc/[0-9]*")
        self.assertLessEqual(len(out.split()), 3)

    async def test_own_namespaces(self) -> None:
        """Processes, ipc, mounts and host name are in namespaces of its own."""
        script = "for n in pid ipc mnt uts; do readlink /proc/self/ns/$n; done; hostname"
        _, out = await self.run_in("sh", "-c", script)
        *inside, hostname = out.split()
        self.assertEqual(set(inside) & namespaces(), set())
        self.assertEqual(hostname, "a")

    async def test_is_nobody(self) -> None:
        """It is not root, has no capability, cannot gain any, and holds no descriptor of ours."""
        (self.place / "open").touch()
        held = os.open(self.place / "open", os.O_RDONLY)
        self.addCleanup(os.close, held)
        os.set_inheritable(held, True)
        script = "id -un; id -u; grep -E 'Cap(Eff|Prm|Amb)|NoNew' /proc/self/status; ls /proc/$$/fd"
        _, out = await self.run_in("sh", "-c", script, limits=Limits(files=64))
        name, uid, *rest = out.split()
        self.assertEqual(name, "app")
        self.assertNotEqual(uid, "0")
        nothing = "0" * 16
        expected = f"CapPrm: {nothing} CapEff: {nothing} CapAmb: {nothing} NoNewPrivs: 1 0 1 2"
        self.assertEqual(rest, expected.split())

    async def test_environment_meets_nobody_else(self) -> None:
        """An LD_PRELOAD for the service is not loaded by what sets its sandbox up."""
        exit, out = await self.run_in("/bin/true", env={"LD_PRELOAD": "/app/evil.so"})
        self.assertTrue(exit.ok)
        self.assertEqual(out.count("/app/evil.so"), 1)
        exit, out = await self.run_in("/bin/true", env={"GLIBC_TUNABLES": "x", "BASH_ENV": "/a"})
        self.assertEqual((exit, out), (Exit(status=0), ""))

    async def test_fork_bomb(self) -> None:
        """A fork bomb stays within its limit, leaves others room, and goes when it is ended."""
        limits = Limits(processes=30, seconds=20)
        _, out = await self.run_in(PYTHON, "-c", COUNT_FORKS, limits=limits)
        self.assertLess(int(out), 30)
        bomb = f"{self.secret}() {{ {self.secret} | {self.secret} & }}; {self.secret}; sleep 60"
        limits = Limits(processes=50, seconds=2)
        bombing = Deferred.fromCoroutine(self.run_in("bash", "-c", bomb, limits=limits))
        other = await self.runtime.containerize("b")
        for _ in range(10):
            exit, out = await self.run_in(
                "sh", "-c", "true | true | true", container=other, limits=Limits(processes=10)
            )
            self.assertTrue(exit.ok, out)
        exit, _ = await bombing
        self.assertFalse(exit.ok)
        self.assertNotIn(self.secret, commands())

    async def test_memory_limit(self) -> None:
        """A command that takes more memory than its limit does not get it."""
        script = "x = bytearray(200 << 20); print('got it')"
        limits = Limits(memory=100 << 20, seconds=20)
        exit, out = await self.run_in(PYTHON, "-c", script, limits=limits)
        self.assertFalse(exit.ok)
        self.assertIn("MemoryError", out)
        self.assertIn("got it", (await self.run_in(PYTHON, "-c", script))[1])

    async def test_open_files_limit(self) -> None:
        """A command cannot open more files than its limit."""
        script = "x = [open('/dev/null') for _ in range(100)]"
        exit, out = await self.run_in(PYTHON, "-c", script, limits=Limits(files=50, seconds=20))
        self.assertFalse(exit.ok)
        self.assertIn("Too many open files", out)
        self.assertTrue((await self.run_in(PYTHON, "-c", script))[0].ok)

    async def test_interpreters_start(self) -> None:
        """Python, Node and Ruby start within ordinary limits."""
        limits = Limits(memory=512 << 20, processes=100, files=1024, seconds=20)
        pool = "import multiprocessing as m, threading; m.Lock(); m.get_context('fork').Queue()"
        for argv in (["python3", "-c", pool], ["node", "-e", "1"], ["ruby", "-e", "1"]):
            if shutil.which(argv[0], path="/usr/bin"):
                argv[0] = f"/usr/bin/{argv[0]}"
                exit, out = await self.run_in(*argv, limits=limits)
                self.assertTrue(exit.ok, out)

    async def test_reopens_its_output(self) -> None:
        """A service may open /dev/stdout and /dev/stderr by name, as nginx and Apache do."""
        log = self.place / "log"
        script = "echo one >> /dev/stdout; echo two >> /dev/stderr"
        await self.runtime.start(
            self.container, ["sh", "-c", script], env={}, log=log, limits=Limits()
        )
        self.assertTrue((await self.runtime.exited(self.container)).ok)
        self.assertEqual(log.read_text(), "one\ntwo\n")

    async def test_mounts_in_bad_places(self) -> None:
        """Nothing is mounted over the system, nor below what the command itself can write."""
        for at in ("/", "/app", "/app/x", "/tmp/x", "/usr/x", "/proc", "/etc", "x", "/a/../b", ""):
            with self.assertRaisesRegex(ContainerError, "nothing can be mounted at"):
                await self.run_in("true", mounts=[Mount(self.place, at)])

    async def test_owning_follows_no_link(self) -> None:
        """Handing files over changes nothing outside of the container."""
        target = self.place / "target"
        target.write_text("")
        (self.container.app / "directory").symlink_to(self.place)
        (self.container.app / "file").symlink_to(target)
        (self.container.app / "own").write_text("")
        self.runtime.own(self.container)
        self.assertEqual(target.stat().st_uid, os.geteuid())
        self.assertEqual(self.place.stat().st_uid, os.geteuid())
        exit, _ = await self.run_in("test", "-O", "/app/own")
        self.assertTrue(exit.ok)
