"""What a command in an LXC container cannot do: read, see or change what is not its own."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path
from unittest import SkipTest

from containers.interface import Mount
from containers.lxc.idmap import COUNT, INSIDE, ROOT_OUTSIDE, outside
from tests.containers.lxc_scene import PYTHON, LxcScene, trying

NOTHING = "0" * 16
REFUSED = {"EPERM", "EACCES", "ENOSYS", "EROFS", "ENOENT", "EAFNOSUPPORT"}
# What the kernel lets anybody do, unless a filter of system calls says no.
FILTERED = """
    "user namespace": lambda: call("unshare", 0x10000000),
    "user namespace by clone": lambda: call("clone", 0x10000011, 0, 0, 0, 0) or os._exit(0),
    "user namespace by clone3": lambda: call("clone3", 0, 0),
    "keyring": lambda: call("keyctl", 0, -3, 0),
    "key": lambda: call("add_key", b"user", b"x", b"x", 1, -3),
    "page faults": lambda: call("userfaultfd", 1),
    "ring": lambda: call("io_uring_setup", 8, ctypes.create_string_buffer(120)),
    "machine": lambda: socket.socket(40, socket.SOCK_STREAM),
"""


# Only root of some user namespace may do these at all.
MOUNTING = """
    "mount": lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, 0),
    "bind": lambda: call("mount", b"/etc", b"/tmp", b"", 4096, 0),
    "remount": lambda: call("mount", b"", b"/sys", b"", 4096 | 32, 0),
    "unmount": lambda: call("umount2", b"/etc/hosts", 2),
    "new mount": lambda: call("fsopen", b"tmpfs", 0),
    "tree": lambda: call("open_tree", -100, b"/", 1),
    "join": lambda: call("setns", os.open("/proc/self/ns/mnt", os.O_RDONLY), 0),
    "pivot": lambda: call("pivot_root", b"/tmp", b"/tmp"),
    "network": lambda: call("unshare", 0x40000000),
"""
PRIVILEGED = f"""{MOUNTING}
    "module": lambda: call("init_module", 0, 0, b""),
    "module file": lambda: call("finit_module", 0, b"", 0),
    "kernel": lambda: call("kexec_load", 0, 0, 0, 0),
    "device": lambda: call("mknodat", -100, b"/tmp/device", 0o020666, 0x103),
    "handle": lambda: call("open_by_handle_at", -100, there, 0),
    "program": lambda: call("bpf", 5, there, 16),
    "counters": lambda: call("perf_event_open", there, 0, -1, -1, 0),
    "swap": lambda: call("swapon", b"/app", 0),
    "reboot": lambda: call("reboot", 0xFEE1DEAD, 672274793, 0x1234567, 0),
    "time": lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()),
    "name": lambda: call("sethostname", b"x", 1),
    "messages": lambda: call("syslog", 3, there, 16),
    "priority": lambda: os.nice(-1),
    "real time": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
"""
# unshare(CLONE_NEWUSER) by i386's door, as far as this kernel has it, and by x32's.
OLD_CALLS = """
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(b"\\x53\\xb8\\x36\\x01\\x00\\x00\\xbb\\x00\\x00\\x00\\x10\\xcd\\x80\\x5b\\xc3")
print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))())
print(ctypes.CDLL(None).syscall(ctypes.c_long(0x40000000 + 272), ctypes.c_long(0x10000000)))
"""


def namespaces() -> set[str]:
    """Those of this process."""
    return {str(path.readlink()) for path in Path("/proc/self/ns").iterdir()}


def sleeper(secret: str) -> subprocess.Popen[bytes]:
    """A process of the host, of the user that services are outside, with a secret environment."""
    user = outside(INSIDE.uid)
    return subprocess.Popen(["sleep", "60"], env={"S": secret}, cwd="/", user=user, group=user)


class FilesTests(LxcScene):
    """Each promise fails when its guard in `containers.lxc` is taken out."""

    async def test_reads_nothing_of_the_host(self) -> None:
        """Neither the ship's files nor anybody's home nor what is readable for all is there."""
        container = await self.make("a")
        hidden = [self.place / "secret", self.runtime.root / "secret", container.directory / "x"]
        for path in hidden:
            path.write_text(self.secret)
            path.chmod(0o644)
        paths = [*map(str, hidden), "/etc/shadow", str(self.place), str(Path(__file__))]
        script = 'for path; do cat "$path" || ls "$path"; done; true'
        for way, (_, out) in (
            await self.everywhere(container, "sh", "-c", script, "", *paths)
        ).items():
            self.assertNotIn(self.secret, out, way)
            self.assertEqual(out.count("No such file"), 2 * (len(paths) - 1), out)
            self.assertIn("cat: /etc/shadow: Permission denied", out)

    async def test_reads_nothing_of_another(self) -> None:
        """What one container writes, in its app, in /tmp or elsewhere, no other container sees."""
        one, other = await self.make("a"), await self.make("b")
        places = ["/app/own", "/tmp/own", "/var/own", "/dev/shm/own"]
        write = f"for file in {' '.join(places)}; do echo {self.secret} > $file || exit; done"
        self.assertTrue((await self.run_in(other, "sh", "-c", write, root=True))[0].ok)
        write = write.replace("own", "new").replace("/var/new ", "")
        writing = await self.serve_to_end(other, "sh", "-c", write)
        self.assertTrue(writing[0].ok, writing)
        places += [place.replace("own", "new") for place in places]
        found = await self.everywhere(one, "cat", *places, str(other.app), str(other.directory))
        for way, (exit, out) in found.items():
            self.assertEqual((exit.ok, self.secret in out), (False, False), way)
            self.assertEqual(out.count("No such file"), 10, out)

    async def test_writes_only_its_own(self) -> None:
        """What is mounted of the host is read-only but for the container's own places."""
        container = await self.make("a")
        mounts = [Mount(self.runtime.root, "/mnt/reading")]
        _, out = await self.run_in(container, "cat", "/proc/self/mountinfo", mounts=mounts)
        lines = [line.split() for line in out.splitlines()]
        options = {words[4]: words[5].split(",") for words in lines}
        writable = {place for place, found in options.items() if "ro" not in found}
        devices = {place for place in writable if place.startswith("/dev")}
        self.assertEqual(writable - devices, {"/", "/app", "/tmp", "/proc"})
        self.assertIn("/mnt/reading", options)

    async def test_base_stays(self) -> None:
        """The container's root cannot change what other containers stand on."""
        container = await self.make("a")
        script = (
            "echo x >> /etc/passwd && echo x >> /etc/ssl/certs/ca-certificates.crt &&"
            "rm /usr/bin/env && echo x > /usr/bin/id && echo changed"
        )
        _, out = await self.run_in(container, "sh", "-c", script, root=True)
        self.assertIn("changed", out)
        script = "for file in /etc/hosts /etc/hostname /etc/resolv.conf; do echo x > $file; done"
        _, out = await self.run_in(container, "sh", "-c", script, root=True)
        self.assertEqual(out.count("Read-only file system"), 3, out)
        other = await self.make("b")
        script = "env true && id -un && cat /etc/passwd /etc/ssl/certs/ca-certificates.crt"
        exit, out = await self.run_in(other, "sh", "-c", script)
        self.assertTrue(exit.ok, out)
        self.assertEqual(out.splitlines()[0], "ubuntu")
        self.assertNotIn("x", out.splitlines())

    async def test_root_makes_what_its_service_sees(self) -> None:
        """What the container's root changes before the service starts, the service finds."""
        container = await self.make("a")
        script = (
            "mkdir /srv/made && chown ubuntu /srv/made && echo made > /etc/made && rm /etc/motd;"
            "useradd -r somebody && chown somebody /etc/made && stat -c %U /etc/made"
        )
        exit, out = await self.run_in(container, "sh", "-c", script, root=True)
        self.assertEqual((exit.ok, out), (True, "somebody\n"))
        script = "cat /etc/made; touch /srv/made/own && echo wrote; echo x > /etc/made"
        exit, out = await self.serve_to_end(container, "sh", "-c", script)
        self.assertEqual(out.splitlines()[:2], ["made", "wrote"])
        self.assertIn("Permission denied", out)

    async def test_root_is_nobody_outside(self) -> None:
        """Every file that the container's root makes belongs to a user that the host has not."""
        container = await self.make("a")
        script = "touch /root/own /app/own /tmp/own; chown 12:34 /srv; install -o ubuntu -d /opt/u"
        await self.run_in(container, "sh", "-c", script, root=True)
        upper = container.directory / "build" / "upper"
        found = {str(path.relative_to(upper)): path.lstat().st_uid for path in upper.rglob("*")}
        ranges = range(ROOT_OUTSIDE.uid, ROOT_OUTSIDE.uid + COUNT)
        self.assertEqual(found["root/own"], ROOT_OUTSIDE.uid)
        self.assertEqual(found["srv"], ROOT_OUTSIDE.uid + 12)
        self.assertEqual(
            {name for name, uid in found.items() if uid not in ranges}, {"app", "opt/u"}
        )


class ProcessesTests(LxcScene):
    """What is there besides itself."""

    async def test_sees_no_process_of_the_host(self) -> None:
        """No environment, argument or memory of the host's processes can be read, none be ended."""
        container = await self.make("a")
        host = sleeper(self.secret)
        self.addCleanup(host.wait)
        self.addCleanup(host.kill)
        script = f"cat /proc/*/environ /proc/*/cmdline /proc/{host.pid}/maps; kill -9 {host.pid}"
        for way, (_, out) in (await self.everywhere(container, "sh", "-c", script)).items():
            self.assertNotIn(self.secret, out, way)
            self.assertIn("No such process", out)
        self.assertIsNone(host.poll())
        container = await self.make("b")
        _, out = await self.run_in(container, "sh", "-c", "ls -d /proc/[0-9]*")
        self.assertLessEqual(len(out.split()), 4)
        read = f'"memory": lambda: call("process_vm_readv", {host.pid}, there, 1, there, 1, 0)'
        self.assertEqual(await self.attempt(container, read), {"memory": "ESRCH"})

    async def test_sees_no_process_of_another(self) -> None:
        """A service's environment, arguments, memory and shared memory are unknown to others."""
        one, other = await self.make("a"), await self.make("b")
        keep = "import os, time; open('/dev/shm/own', 'w').write(os.environ['S']); time.sleep(60)"
        await self.serve(other, PYTHON, "-c", keep, self.secret, env={"S": self.secret})
        await self.until(lambda: len(self.runtime.cgroups.members("b")) >= 3)
        script = "cat /proc/*/environ /proc/*/cmdline /dev/shm/*"
        for way, (_, out) in (await self.everywhere(one, "sh", "-c", script)).items():
            self.assertNotIn(self.secret, out, way)
        pids = [member.process.pid for member in self.runtime.cgroups.members("b")]
        kill = f"kill -9 -1 {' '.join(map(str, pids))}"
        await self.run_in(await self.make("c"), "sh", "-c", kill, root=True)
        self.assertEqual([member.process.pid for member in self.runtime.cgroups.members("b")], pids)

    async def test_own_namespaces(self) -> None:
        """Users, processes, ipc, mounts, host name, network and cgroups are its own."""
        kinds = "cgroup ipc mnt net pid user uts"
        script = f"for n in {kinds}; do readlink /proc/self/ns/$n; done; hostname"
        one = await self.make("a")
        await self.serve(one, "sleep", "60")
        *inside, hostname = (await self.run_in(one, "sh", "-c", script))[1].split()
        self.assertEqual((len(inside), hostname), (7, "a"))
        taken = namespaces() | set(inside)
        self.assertEqual(len(taken), len(namespaces()) + 7)
        for way, (_, out) in (
            await self.everywhere(await self.make("b"), "sh", "-c", script)
        ).items():
            self.assertEqual((taken & set(out.split()), out.split()[-1]), (set(), "b"), way)

    async def test_is_ubuntu_and_nothing_else(self) -> None:
        """It is uid 1000, without a capability or a way to gain one, or a descriptor of ours."""
        (self.place / "open").touch()
        held = os.open(self.place / "open", os.O_RDONLY)
        self.addCleanup(os.close, held)
        os.set_inheritable(held, True)
        container = await self.make("a")
        script = "id; grep -E 'Groups|Cap|NoNew|Seccomp:' /proc/self/status; ls /proc/$$/fd"
        capabilities = [f"Cap{kind}: {NOTHING}" for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")]
        user = "uid=1000(ubuntu) gid=1000(ubuntu) groups=1000(ubuntu) Groups:"
        expected = [user, *capabilities, "NoNewPrivs: 1 Seccomp: 2", "0 1 2"]
        for way, (_, out) in (await self.everywhere(container, "sh", "-c", script)).items():
            self.assertEqual(" ".join(out.split()), " ".join(expected), way)

    async def test_setuid_gives_nothing(self) -> None:
        """No setuid program makes root of a service: no su, no sudo, none that a build made."""
        container = await self.make("a")
        script = "cp /usr/bin/id /srv/id && chmod 4755 /srv/id && setpriv --reuid 9 /srv/id -u"
        exit, out = await self.run_in(container, "sh", "-c", script, root=True)
        self.assertEqual((exit.ok, out), (True, "0\n"))
        script = "/srv/id -u; su -c id; sudo -n id"
        exit, out = await self.serve_to_end(container, "sh", "-c", script)
        self.assertEqual((exit.ok, out.split()[0]), (False, "1000"))
        self.assertNotIn("uid=0", out)

    async def test_init_is_out_of_reach(self) -> None:
        """A command can neither trace nor read nor end the process that its container hangs on."""
        container = await self.make("a")
        attempts = """
            "attach": lambda: call("ptrace", 16, 1, 0, 0),
            "seize": lambda: call("ptrace", 0x4206, 1, 0, 0),
            "memory": lambda: open("/proc/1/mem"),
            "environment": lambda: open("/proc/1/environ"),
            "descriptors": lambda: os.readlink("/proc/1/fd/1"),
            "program": lambda: open("/proc/1/exe", "r+"),
        """
        for root in (False, True):
            found = await self.attempt(container, attempts, root=root)
            self.assertEqual(set(found.values()) - REFUSED, set(), found)
        exit, _ = await self.run_in(container, "sh", "-c", "kill -9 1; echo on")
        self.assertTrue(exit.ok)


class KernelTests(LxcScene):
    """What the kernel does for it."""

    async def test_calls_that_anybody_may_make(self) -> None:
        """User namespaces, keys, rings and the sockets of the machine below are filtered out."""
        container = await self.make("a")
        for way, (_, out) in (await self.everywhere(container, *trying(FILTERED))).items():
            found = json.loads(out)
            allowed = {name for name, how in found.items() if how not in REFUSED}
            self.assertEqual(allowed, set(), way)

    async def test_user_namespaces_by_other_doors(self) -> None:
        """What is filtered stays so for programs of 32 bits, and with the numbers of x32."""
        container = await self.make("a")
        if platform.machine() != "x86_64":
            raise SkipTest("another machine has no such doors")
        exit, out = await self.run_in(container, PYTHON, "-c", OLD_CALLS)
        self.assertTrue(exit.ok, out)
        self.assertEqual({int(line) < 0 for line in out.split()}, {True}, out)
        self.assertEqual(len(out.split()), 2)

    async def test_calls_of_roots(self) -> None:
        """Neither root inside nor root of a namespace in there mounts, loads or makes devices."""
        container = await self.make("a")
        found = await self.attempt(container, PRIVILEGED, root=True)
        self.assertEqual(set(found.values()) - REFUSED, set(), found)
        inner = "call('clone', 0x10020011, 0, 0, 0, 0) and (os.wait(), os._exit(0))"
        found = await self.attempt(container, f'"fork": lambda: {inner}, {MOUNTING}', root=True)
        self.assertEqual(found.pop("fork"), "done")
        self.assertEqual(set(found.values()), {"EPERM"}, found)

    async def test_calls_of_a_service(self) -> None:
        """A service cannot mount, load, reboot, set the time or a name, or open by handle."""
        container = await self.make("a")
        for way, (_, out) in (await self.everywhere(container, *trying(PRIVILEGED))).items():
            self.assertEqual(set(json.loads(out).values()) - REFUSED, set(), (way, out))

    async def test_settings_of_the_kernel(self) -> None:
        """Nothing in /proc/sys or /sys can be written, by root inside neither."""
        container = await self.make("a")
        attempts = """
            "forwarding": lambda: open("/proc/sys/net/ipv4/ip_forward", "w").write("1"),
            "core": lambda: open("/proc/sys/kernel/core_pattern", "w").write("|/app/x"),
            "shared memory": lambda: open("/proc/sys/kernel/shmmax", "w").write("1"),
            "queue": lambda: open("/sys/class/net/eth0/tx_queue_len", "w").write("9"),
            "uevent": lambda: open("/sys/class/net/eth0/uevent", "w").write("add"),
            "sysrq": lambda: open("/proc/sysrq-trigger", "w").write("b"),
            "memory": lambda: open("/dev/mem"),
            "messages": lambda: open("/dev/kmsg"),
            "disk": lambda: open("/dev/vda"),
        """
        for root in (False, True):
            found = await self.attempt(container, attempts, root=root)
            self.assertEqual(set(found.values()) - REFUSED, set(), found)
        look = "import os; print(*(os.statvfs(p).f_flag & 1 for p in ('/proc/sys', '/sys')))"
        for way, (_, out) in (await self.everywhere(container, PYTHON, "-c", look)).items():
            self.assertEqual(out, "1 1\n", way)


class EnvironmentTests(LxcScene):
    """What somebody's variables do to LXC's tools, which run as root."""

    async def test_environment_meets_nobody_else(self) -> None:
        """An LD_PRELOAD for the service is loaded by its own command alone."""
        evil = self.place / "evil.so"
        evil.write_text("is there on the host, and no library")
        container = await self.make("a")
        env = {"LD_PRELOAD": str(evil), "LD_LIBRARY_PATH": str(self.place)}
        exit, out = await self.run_in(container, "/bin/true", env=env)
        self.assertEqual((exit.ok, out.count(str(evil))), (True, 1), out)
        self.assertIn("cannot open shared object file", out)
        exit, out = await self.serve_to_end(container, "/bin/true", env=env)
        self.assertEqual((exit.ok, out.count(str(evil))), (True, 1), out)
        logs = [log.read_text() for log in container.directory.glob("*/lxc.log")]
        self.assertNotIn(str(evil), "".join(logs))

    async def test_odd_environments(self) -> None:
        """Names that shells, Python or LXC would listen to change nothing but the command."""
        tools = self.place / "tools"
        tools.mkdir()
        for name in ("cat", "nsenter", "nft", "cp", "sh", "cd", "true"):
            (tools / name).write_text(f"#!/bin/sh\necho {self.secret} > {self.place}/caught\n")
            (tools / name).chmod(0o755)
        (tools / "rc").write_text(f"echo {self.secret} > {self.place}/caught\n")
        odd = {
            "PATH": str(tools),
            "ENV": f"{tools}/rc",
            "BASH_ENV": f"{tools}/rc",
            "PYTHONPATH": str(tools),
            "LXC_CONFIG_FILE": "/nonexistent",
            "LXC_PID": "1",
            "LXC_LOG_LEVEL": "TRACE",
            "IFS": "/",
            "TMPDIR": "/nonexistent",
            "STARPHLEET_CONTAINER": str(self.place),
        }
        container = await self.make("a")
        show = (PYTHON, "-c", "import json, os; print(json.dumps(dict(os.environ)))")
        for exit, out in (
            await self.run_in(container, *show, env=odd),
            await self.serve_to_end(container, *show, env=odd),
        ):
            self.assertTrue(exit.ok, out)
            self.assertEqual({name: json.loads(out).get(name) for name in odd}, odd)
        await self.serve(container, "/bin/sleep", "60", env=odd)
        self.assertTrue((await self.run_in(container, *show, env=odd))[0].ok)
        self.assertFalse((self.place / "caught").exists())
