"""The parts of the LXC runtime that decide: limits, configuration, the map of users, records."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase, TestCase

from containers import files
from containers.boxing import DEFAULT_USER
from containers.interface import ContainerError, Limits, Mount
from containers.lxc import cgroups, config, ground, idmap, made, needs, network, nftables
from containers.lxc.cgroups import BUILD_WEIGHT, Cgroups, Setting
from containers.lxc.config import ROOT, Cage, Files, Stack
from containers.lxc.made import Made
from tests.containers.lxc import make_lxc
from tests.hooks.scene import scratch

IS_ROOT = os.geteuid() == 0
ROOT_ONLY = "only root hands directories to other users"

# As a Debian 12 and an Ubuntu 22.04 have it.
UNIFIED = """\
sysfs /sys sysfs rw,nosuid,nodev,noexec,relatime 0 0
cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nodev,noexec,relatime,nsdelegate,memory_recursiveprot 0 0
"""
UNIFIED_CONTROLLERS = "cpuset cpu io memory hugetlb pids rdma misc\n"
# As systemd mounts version 1.
LEGACY = """\
tmpfs /sys/fs/cgroup tmpfs ro,nosuid,nodev,noexec,size=4096k,nr_inodes=1024,mode=755 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,nosuid,nodev,noexec,relatime,xattr,name=systemd 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,nodev,noexec,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,nosuid,nodev,noexec,relatime,memory 0 0
cgroup /sys/fs/cgroup/freezer cgroup rw,nosuid,nodev,noexec,relatime,freezer 0 0
cgroup /sys/fs/cgroup/pids cgroup rw,nosuid,nodev,noexec,relatime,pids 0 0
"""
# The unified one is there too, with what the others leave to it.
HYBRID = LEGACY + "cgroup2 /sys/fs/cgroup/unified cgroup2 rw,nosuid,nodev,noexec,relatime 0 0\n"
V1, V2 = Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup")

ALL = Limits(memory=100 << 20, processes=64, cpus=0.5)


def unified() -> Cgroups:
    return cgroups.find(UNIFIED, {V2: UNIFIED_CONTROLLERS}, "sp")


def legacy() -> Cgroups:
    return cgroups.find(LEGACY, {}, "sp")


def told(found: list[Setting]) -> dict[str, str]:
    return {setting.key: setting.value for setting in found}


class CgroupsTests(SynchronousTestCase):
    def place(self) -> Path:
        place = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, place)
        return place

    def test_unified(self) -> None:
        """On a host with version 2 alone, each limit is one of version 2."""
        here = unified()
        self.assertTrue(set(cgroups.CONTROLLERS) <= set(here.controllers))
        self.assertEqual({one.version for one in here.controllers.values()}, {2})
        self.assertEqual(
            told(here.settings("a", ALL)),
            {
                "lxc.cgroup2.memory.max": "104857600",
                "lxc.cgroup2.memory.swap.max": "0",
                "lxc.cgroup2.pids.max": "64",
                "lxc.cgroup2.cpu.max": "50000 100000",
                "lxc.cgroup2.cpu.weight": "100",
            },
        )

    def test_legacy(self) -> None:
        """On a host with version 1 alone, each limit is one of version 1, in its own hierarchy."""
        here = legacy()
        self.assertEqual({one.version for one in here.controllers.values()}, {1})
        found = here.settings("a", ALL)
        self.assertEqual(
            told(found),
            {
                "lxc.cgroup.memory.limit_in_bytes": "104857600",
                "lxc.cgroup.pids.max": "64",
                "lxc.cgroup.cpu.cfs_quota_us": "50000",
                "lxc.cgroup.cpu.shares": "1000",
                **{one.key: one.value for one in found if "memsw" in one.key},
            },
        )
        self.assertEqual(found[-1].file, V1 / "cpu,cpuacct" / "sp" / "a" / "cpu.shares")

    def test_hybrid(self) -> None:
        """Where both are mounted, a controller is used where it really is, in any order."""
        for text in (HYBRID, "\n".join(reversed(HYBRID.splitlines()))):
            here = cgroups.find(text, {V1 / "unified": "hugetlb io\n"}, "sp")
            versions = {name: one.version for name, one in here.controllers.items()}
            self.assertEqual(
                versions, {"memory": 1, "pids": 1, "cpu": 1, "freezer": 1, "hugetlb": 2, "io": 2}
            )
            self.assertIn(V1 / "unified", here.roots)

    def test_mixed(self) -> None:
        """A controller that version 1 has not got is taken from version 2."""
        text = "".join(line for line in HYBRID.splitlines(True) if "/pids" not in line)
        here = cgroups.find(text, {V1 / "unified": "pids\n"}, "sp")
        keys = set(told(here.settings("a", ALL)))
        self.assertIn("lxc.cgroup2.pids.max", keys)
        self.assertIn("lxc.cgroup.memory.limit_in_bytes", keys)

    @pytest.mark.skipif(not Path("/proc/self/mounts").exists(), reason="no Linux")
    def test_this_host(self) -> None:
        """What is found on this host is there: each controller's root is a directory of cgroups."""
        for one in cgroups.of_this_host("sp").controllers.values():
            self.assertTrue((one.root / "cgroup.procs").exists(), one.root)

    def test_nowhere(self) -> None:
        """A limit of a controller that is nowhere is an error; what is not asked for is not."""
        here = cgroups.find(UNIFIED, {V2: "memory\n"}, "sp")
        self.assertEqual(set(told(here.settings("a", Limits(memory=1 << 20)))), {
            "lxc.cgroup2.memory.max", "lxc.cgroup2.memory.swap.max",
        })  # fmt: skip
        for limits, name in ((Limits(processes=3), "pids"), (Limits(cpus=1), "cpu")):
            with self.assertRaisesRegex(ContainerError, f"no cgroup controller {name}$"):
                here.settings("a", limits)
        with self.assertRaisesRegex(ContainerError, "no cgroup controller memory$"):
            cgroups.find(UNIFIED, {}, "sp").settings("a", Limits(memory=1))

    def test_read_back(self) -> None:
        """What the kernel is asked for afterwards is the file of the container's own cgroup."""
        for setting in unified().settings("a", ALL):
            name = setting.key.removeprefix("lxc.cgroup2.")
            self.assertEqual(setting.file, V2 / "sp" / "a" / name)
            self.assertEqual(setting.reads, setting.value)

    def test_whole_pages(self) -> None:
        """Memory is told in whole pages, never less than asked: the kernel would round it."""
        page = os.sysconf("SC_PAGE_SIZE")
        for size, pages in ((1, 1), (page, 1), (page + 1, 2)):
            value = told(unified().settings("a", Limits(memory=size)))["lxc.cgroup2.memory.max"]
            self.assertEqual(value, str(pages * page))

    def test_shares_of_cpus(self) -> None:
        """A share of the CPUs is told to the microsecond, for each that can be asked for."""
        for hundredths in (1, 7, 29, 57, 100, 250, 99_999):
            value = told(unified().settings("a", Limits(cpus=hundredths / 100)))
            self.assertEqual(value["lxc.cgroup2.cpu.max"], f"{hundredths * 1000} 100000")

    def test_swap_of_version_1(self) -> None:
        """Under version 1, swap is bounded where the host counts it, with the same bound."""
        place = self.place()
        here = cgroups.find(f"cgroup {place} cgroup rw,memory 0 0\n", {}, "sp")
        (only,) = here.settings("a", Limits(memory=4096))
        self.assertEqual(only.key, "lxc.cgroup.memory.limit_in_bytes")
        (place / "memory.memsw.limit_in_bytes").touch()
        swap = told(here.settings("a", Limits(memory=4096)))
        self.assertEqual(swap["lxc.cgroup.memory.memsw.limit_in_bytes"], "4096")

    def test_builds_weigh_less(self) -> None:
        """A build has a tenth of a service's weight, under both versions."""
        for here, key in (
            (unified(), "lxc.cgroup2.cpu.weight"),
            (legacy(), "lxc.cgroup.cpu.shares"),
        ):
            service = told(here.settings("a", Limits()))[key]
            build = told(here.settings("a", Limits(), weight=BUILD_WEIGHT))[key]
            self.assertEqual(int(service), 10 * int(build))

    def test_exists(self) -> None:
        """A container is there while anything of it or of its monitor is, in any hierarchy."""
        place = scratch(self)
        here = Cgroups({}, (place / "one", place / "other"), "sp")
        self.assertFalse(here.exists("a"))
        for left in ("other/sp/a", "one/sp-monitors/a"):
            (place / left).mkdir(parents=True)
            self.assertTrue(here.exists("a"), left)
            self.assertFalse(here.exists("b"), left)
            (place / left).rmdir()

    def test_stirred(self) -> None:
        """A process is written into the cgroup in which it is, and into no other."""
        place = scratch(self)
        for version, line in ((1, "8:cpu,pids:/mine\n0::/else"), (2, "1:cpu:/else\n0::/mine")):
            here = Cgroups({"pids": cgroups.Hierarchy(place, version)}, (place,), "sp")
            self.patch(cgroups, "OWN", place / "own")
            (place / "own").write_text(f"{line}\n")
            procs = place / "mine" / "cgroup.procs"
            here.stir()
            self.assertFalse(procs.exists())
            procs.parent.mkdir(exist_ok=True)
            for listed, then in (("1\n", "1\n"), (f"1\n{os.getpid()}\n", f"0\n{os.getpid()}\n")):
                procs.write_text(listed)
                here.stir()
                self.assertEqual(procs.read_text(), then)
            procs.unlink()

    def test_stirred_here(self) -> None:
        """Nothing moves by it on this host."""
        before = Path("/proc/self/cgroup").read_text()
        cgroups.of_this_host("sp").stir()
        self.assertEqual(Path("/proc/self/cgroup").read_text(), before)

    def test_oom_kills(self) -> None:
        """The count of killings is read from the files of both versions; none is 0."""
        v1 = "oom_kill_disable 0\nunder_oom 1\noom_kill 3\n"
        v2 = "low 0\nhigh 9\nmax 41\noom 2\noom_kill 1\noom_group_kill 7\n"
        self.assertEqual(cgroups.oom_kills(v1), 3)
        self.assertEqual(cgroups.oom_kills(v2), 1)
        self.assertEqual(cgroups.oom_kills("oom_kill_disable 0\nunder_oom 0\n"), 0)
        self.assertEqual(cgroups.oom_kills(""), 0)
        self.assertEqual(unified().oom_file("a"), V2 / "sp/a/memory.events")
        self.assertEqual(legacy().oom_file("a"), V1 / "memory/sp/a/memory.oom_control")

    def test_freeze(self) -> None:
        """It is frozen and thawed by the words of the host's version; what is gone is left so."""
        place = self.place()
        (place / "sp" / "a").mkdir(parents=True)
        for line, file, words in (
            (f"cgroup {place} cgroup rw,freezer 0 0\n", "freezer.state", ["FROZEN", "THAWED"]),
            (f"cgroup2 {place} cgroup2 rw 0 0\n", "cgroup.freeze", ["1", "0"]),
        ):
            here = cgroups.find(line, {}, "sp")
            (place / "sp" / "a" / file).touch()
            for is_frozen, word in zip((True, False), words, strict=True):
                here.freeze("a", is_frozen)
                self.assertEqual((place / "sp" / "a" / file).read_text(), word)
            here.freeze("gone", True)
            self.assertFalse((place / "sp" / "gone").exists())

    def test_members(self) -> None:
        """Living processes are found in the cgroup and below it; the dead and other names not."""
        place = self.place()
        inner = place / "sp" / "a" / "inner"
        inner.mkdir(parents=True)
        (place / "sp-monitors" / "a").mkdir(parents=True)
        gone = subprocess.Popen(["true"])
        gone.wait()
        (inner / "cgroup.procs").write_text(f"{os.getpid()}\n{gone.pid}\n")
        (inner.parent / "cgroup.procs").write_text("")
        (place / "sp-monitors" / "a" / "cgroup.procs").write_text(f"{os.getppid()}\n")
        here = cgroups.find(f"cgroup {place} cgroup rw,pids 0 0\n", {}, "sp")
        self.assertEqual([one.process.pid for one in here.members("a")], [os.getpid()])
        self.assertEqual([one.pid for one in here.monitors("a")], [os.getppid()])
        self.assertEqual(here.members("b"), [])
        self.assertIsNone(here.init("b"))
        self.assertEqual(here.names(), {"a"})

    def test_removed(self) -> None:
        """What is left of one container goes, with what is below; the others' stays."""
        place = self.place()
        for part in ("sp/a/inner", "sp-monitors/a", "sp/b", "other/a"):
            (place / part).mkdir(parents=True)
        here = cgroups.find(f"cgroup {place} cgroup rw,pids 0 0\n", {}, "sp")
        here.remove("a")
        left = {str(path.relative_to(place)) for path in place.rglob("*")}
        self.assertEqual(left, {"sp", "sp/b", "sp-monitors", "other", "other/a"})
        here.leave()
        self.assertEqual({path.name for path in place.iterdir()}, {"other"})


PLAN = network.plan(
    "sp012345",
    IPv4Network("10.64.0.0/20"),
    front=(IPv4Address("127.0.0.1"), 8080),
    ipv6=True,
    mtu=1400,
)


def cage(**given: object) -> Cage:
    usual = Cage(
        name="app",
        stack=Stack((Path("/c/app/build/upper"), Path("/g/layer"), Path("/b/base")), Path("/c/up")),
        files=Files(Path("/c/app/service")),
        user=idmap.INSIDE,
        settings=(),
        limits=Limits(),
        below="sp012345",
        plan=PLAN,
        address=IPv4Address("10.64.0.9"),
        port=5000,
        mounts=(),
        resolv=Path("/g/resolv.conf"),
        seccomp=Path("/g/seccomp"),
        oom=Path("/cg/memory.events"),
    )
    return evolve(usual, **given)  # type: ignore[arg-type]


def values(text: str, key: str) -> list[str]:
    pairs = (line.split(" = ", 1) for line in text.split("\n") if line)
    return [value for name, value in pairs if name == key]


def bound(mount: Mount) -> list[list[str]]:
    """The fields of the fstab lines that this mount makes."""
    before = values(config.text(cage()), "lxc.mount.entry")
    after = values(config.text(cage(mounts=(mount,))), "lxc.mount.entry")
    return [entry.split(" ") for entry in after[len(before) :]]


SANE = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1)
PATHS = st.lists(SANE, min_size=1, max_size=3).map(lambda parts: Path("/", *parts))


class ConfigTests(SynchronousTestCase):
    def test_layers(self) -> None:
        """The layers come topmost first, and what is written to comes last."""
        (rootfs,) = values(config.text(cage()), "lxc.rootfs.path")
        self.assertEqual(rootfs, "overlay:/c/app/build/upper:/g/layer:/b/base:/c/up")

    def test_paths_of_layers(self) -> None:
        """A path that would be read as several layers or options is refused by name."""
        for path in ("/a:b", "/a b", "/a,b", "/a\nb", "/a\tb"):
            for stack in (Stack((Path(path),), Path("/u")), Stack((Path("/l"),), Path(path))):
                with self.assertRaisesRegex(ContainerError, "cannot be a layer"):
                    config.text(cage(stack=stack))

    @given(PATHS)
    def test_layers_are_what_is_given(self, path: Path) -> None:
        """Whatever a layer's path is, it is refused or one word of one line, as it is."""
        try:
            text = config.text(cage(stack=Stack((path,), Path("/u"))))
        except ContainerError:
            return
        self.assertEqual(values(text, "lxc.rootfs.path"), [f"overlay:{path}:/u"])
        self.assertEqual(text.count("\n"), config.text(cage()).count("\n"))

    def test_mounts_are_escaped(self) -> None:
        """A mount is fstab lines of six fields, whatever is in its paths."""
        for fields in bound(Mount(Path("/data/a b\\c\td"), "/var/x y\\z")):
            self.assertEqual(fields[:2], [r"/data/a\040b\134c\011d", r"var/x\040y\134z"])
            self.assertEqual(len(fields), 6)

    @given(st.text("\\ \t\n0124/a", min_size=1) | SANE)
    def test_fields_of_mounts(self, word: str) -> None:
        """A source is one field, from which the path can be read again."""
        source = Path("/data/" + word.strip("/"))
        for field, *_ in bound(Mount(source, "/x")):
            for code, letter in ((r"\011", "\t"), (r"\012", "\n"), (r"\040", " "), (r"\134", "\\")):
                field = field.replace(code, letter)
            self.assertEqual(field, str(source))

    def test_rights_of_mounts(self) -> None:
        """What is bound is writable only where that is said, and never has devices or setuid."""
        for writable in (True, False):
            lines = bound(Mount(Path("/"), "/var/data", writable=writable))
            options = {option for fields in lines for option in fields[3].split(",")}
            self.assertLessEqual({"bind", "nosuid", "nodev", "create=dir"}, options)
            self.assertEqual("ro" in options, not writable)

    def test_a_directory_of_somebody_else_may_be_the_app(self) -> None:
        """It comes after the app of the container, and so over it; nothing else is there."""
        mine = Mount(Path("/dev"), "/app", writable=True, theirs=True)
        stack = Stack((Path("/base"),), Path("/upper"), Path("/own"))
        lines = config.text(cage(mounts=(mine,), stack=stack)).splitlines()
        there = [line for line in lines if " app none " in line]
        self.assertEqual([line.split()[2] for line in there], ["/own", "/dev"])
        with self.assertRaisesRegex(ContainerError, "nothing can be mounted at"):
            config.text(cage(mounts=(Mount(Path("/d"), "/app/x", theirs=True),)))

    def test_bad_places(self) -> None:
        """Nothing is mounted over the container's own places, or outside of it."""
        for at in ("/app", "/app/x", "/etc/passwd", "/proc/sys", "/../x", "x", "/x/../y", "/"):
            with self.assertRaisesRegex(ContainerError, "nothing can be mounted at"):
                config.text(cage(mounts=(Mount(Path("/d"), at),)))

    def test_rights(self) -> None:
        """A service has no capability and gets none; its root has what packages need, no more."""
        service, root = config.text(cage()), config.text(cage(user=ROOT))
        self.assertEqual(values(service, "lxc.cap.keep"), ["none"])
        self.assertEqual(values(service, "lxc.no_new_privs"), ["1"])
        self.assertEqual(values(service, "lxc.init.uid"), ["1000"])
        (kept,) = values(root, "lxc.cap.keep")
        for mighty in (
            "mknod", "net_admin", "net_raw", "sys_admin", "sys_boot", "sys_module", "sys_ptrace",
            "sys_rawio", "sys_resource", "sys_time", "syslog",
        ):  # fmt: skip
            self.assertNotIn(mighty, kept.split())

    def test_nothing_included(self) -> None:
        """All that LXC is told is in the text: no other file, no key twice that may be once."""
        text = config.text(cage())
        self.assertNotIn("include", text)
        keys = [line.split(" = ")[0] for line in text.splitlines()]
        twice = {key for key in keys if keys.count(key) > 1}
        self.assertEqual(twice, {"lxc.idmap", "lxc.mount.entry"})
        self.assertEqual(values(text, "lxc.seccomp.profile"), ["/g/seccomp"])
        self.assertEqual(values(text, "lxc.mount.auto"), ["proc:mixed sys:ro"])

    def test_network(self) -> None:
        """It is on the bridge of its zone, by both addresses, and by the veth named after them."""
        for address in (IPv4Address("10.64.0.9"), IPv4Address("10.64.8.9")):
            text, zone = config.text(cage(address=address)), PLAN.zone_of(address)
            self.assertEqual(values(text, "lxc.net.0.link"), [zone.bridge])
            self.assertEqual(values(text, "lxc.net.0.ipv4.address"), [f"{address}/21"])
            self.assertEqual(values(text, "lxc.net.0.ipv4.gateway"), [str(zone.gateway)])
            self.assertEqual(values(text, "lxc.net.0.ipv6.gateway"), [str(zone.gateway6)])
            self.assertEqual(values(text, "lxc.net.0.veth.pair"), [PLAN.veth(address)])
            self.assertEqual(values(text, "lxc.net.0.mtu"), ["1400"])

    def test_hooks(self) -> None:
        """LXC bounds every container, one that is not online as well, and asks before it runs."""
        for online, port in ((True, 5000), (True, None), (False, None)):
            text = config.text(cage(online=online, port=port))
            (asked,) = values(text, "lxc.hook.start-host")
            self.assertIn("{ echo 64 >/proc/sys/user/max_inotify_instances && ", asked)
            self.assertEqual("route_localnet" in asked, port is not None)
            self.assertRegex(
                asked, r"""^2>&1; cd /c/app/service && .* \[ "\$said" = go \] && echo up >&4'$"""
            )

    def test_limits(self) -> None:
        """Limits are there when they are given; nothing dumps core."""
        setting = Setting("lxc.cgroup.pids.max", "7", Path("/f"), "7")
        text = config.text(cage(settings=(setting,), limits=Limits(files=99)))
        self.assertEqual(values(text, "lxc.cgroup.pids.max"), ["7"])
        self.assertEqual(values(text, "lxc.prlimit.nofile"), ["99"])
        self.assertEqual(values(text, "lxc.prlimit.core"), ["0"])
        self.assertEqual(values(config.text(cage()), "lxc.prlimit.nofile"), [])

    @given(st.from_regex(files.NAME, fullmatch=True))
    def test_host_name(self, name: str) -> None:
        """A container's host name is one that hosts may have; the name of a run is its own."""
        found = config.hostname(f"{name}+run")
        self.assertEqual(found, config.hostname(name))
        self.assertRegex(found, r"\A[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?\Z")

    def test_seccomp(self) -> None:
        """A filter denies by name; with user namespaces denied, no flags hide in clone3."""
        service, root = config.seccomp(), config.seccomp(user_namespaces=True)
        for text in (service, root):
            self.assertEqual(text.splitlines()[:3], ["2", "denylist", "[all]"])
            for call in ("mount", "bpf", "unshare", "setns", "init_module", "keyctl"):
                self.assertIn(f"\n{call} errno 1\n", text)
        self.assertIn("\nclone3 errno 38\n", service)
        self.assertIn("\nclone errno 1 [0,268435456,SCMP_CMP_MASKED_EQ,268435456]\n", service)
        self.assertNotIn("clone", root)


@pytest.mark.skipif(bool(needs.missing()), reason="this host has no LXC")
class SeccompTests(TestCase):
    timeout = 120

    def setUp(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="pure-"))
        self.addCleanup(shutil.rmtree, self.place)
        self.place.chmod(0o711)

    async def test_filter_is_in_force(self) -> None:
        """A real container takes the filter: what is denied fails inside, for its root as well."""
        runtime = make_lxc(reactor, self.place / "containers")
        self.addCleanup(runtime.leave)
        container = await runtime.containerize("a")
        self.addCleanup(runtime.destroy, container)
        look = "grep ^Seccomp: /proc/self/status; unshare --user true; unshare --uts true; :"
        for root in (False, True):
            out = bytearray()
            exit = await runtime.run(
                container, ["sh", "-c", look], env={}, output=out.extend, limits=Limits(seconds=60),
                root=root,
            )  # fmt: skip
            self.assertTrue(exit.ok, out.decode())
            self.assertIn(b"Seccomp:\t2\n", out)
            self.assertEqual(out.count(b"unshare failed: Operation not permitted"), 2, out.decode())


class IdmapTests(SynchronousTestCase):
    def test_whole(self) -> None:
        """Every user inside is mapped exactly once, to where `outside` says, and nobody twice."""
        for kind in ("u", "g"):
            inside: dict[int, int] = {}
            for line in idmap.lines():
                key, _, of, *numbers = line.split()
                self.assertEqual(key, "lxc.idmap")
                first, host, count = map(int, numbers)
                if of == kind:
                    for step in range(count):
                        self.assertNotIn(first + step, inside)
                        inside[first + step] = host + step
            self.assertEqual(sorted(inside), list(range(65536)))
            self.assertEqual(len(set(inside.values())), 65536)
            for one, host in inside.items():
                self.assertEqual(idmap.outside(one), host)

    def test_who(self) -> None:
        """The user of services is the same on the host under each runtime; root is nobody there."""
        self.assertEqual(idmap.outside(1000), DEFAULT_USER.uid)
        self.assertEqual(idmap.outside(0), 100_000)

    def test_nobody(self) -> None:
        """Who is not mapped has no number on the host."""
        for one in (-1, 65536, 4_294_967_295):
            with self.assertRaises(ValueError):
                idmap.outside(one)


class MadeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)

    @pytest.mark.skipif(not IS_ROOT, reason=ROOT_ONLY)
    def test_read_again(self) -> None:
        """What it is made of is read as it was written; it is made once."""
        of = Made((Path("/g/layer"), Path("/b/base")), True, 1 << 30)
        container = made.container_of(self.root, "a")
        made.make(container, of)
        made.make(container, Made((), False))
        self.assertEqual(made.read(container), of)
        self.assertTrue(made.is_made(container.directory))
        self.assertEqual(made.used_layers(self.root, ["a", "b", "-bad"]), set(of.layers))

    @pytest.mark.skipif(not IS_ROOT, reason=ROOT_ONLY)
    def test_owners(self) -> None:
        """Layers are the container's root's, the app its user's; the directory stays the ship's."""
        container = made.container_of(self.root, "a")
        made.make(container, Made((), False))
        for part, owner in (
            ("", 0), ("made.json", 0), ("run", 0), ("service", 0), ("build", 100_000),
            ("build/upper", 100_000), ("release/upper", 100_000), ("build/upper/app", 20_000),
            ("tmp", 20_000),
        ):  # fmt: skip
            self.assertEqual((container.directory / part).stat().st_uid, owner, part)
        self.assertEqual(container.directory.stat().st_mode & 0o777, 0o711)
        self.assertEqual(container.app, container.directory / "build/upper/app")

    @pytest.mark.skipif(not IS_ROOT, reason=ROOT_ONLY)
    def test_half_made(self) -> None:
        """One whose making was cut short is not found, and is made anew over what was left."""
        container = made.container_of(self.root, "a")
        half = self.root / f"{files.MAKING}a"
        (half / "build").mkdir(parents=True)
        (half / "made.json").write_text("{}")
        with self.assertRaisesRegex(ContainerError, "there is no container a$"):
            made.read(container)
        self.assertFalse(container.directory.exists())
        made.make(container, Made((), False))
        self.assertFalse(half.exists())
        self.assertEqual(made.read(container), Made((), False))

    def test_other_shapes(self) -> None:
        """A record that is not whole or of another shape is an error, not a container."""
        container = made.container_of(self.root, "a")
        container.directory.mkdir()
        whole = {"layers": [], "ordered": False, "disk": None}
        shapes = [
            "",
            "{",
            "null",
            "3",
            "[]",
            '{"layers": 3, "ordered": true, "disk": null}',
            "\xff",
        ]
        shapes += [
            json.dumps({name: value for name, value in whole.items() if name != without})
            for without in whole
        ]
        for text in shapes:
            (container.directory / "made.json").write_bytes(text.encode("latin-1"))
            with self.assertRaisesRegex(ContainerError, "^container a: its made.json is broken$"):
                made.read(container)
        (container.directory / "made.json").write_text(json.dumps(whole))
        self.assertEqual(made.read(container), Made((), False))

    def test_other_runtime(self) -> None:
        """A container of another runtime is none of this one."""
        (self.root / "a" / "app").mkdir(parents=True)
        self.assertFalse(made.is_made(self.root / "a"))
        with self.assertRaisesRegex(ContainerError, "there is no container a$"):
            made.read(made.container_of(self.root, "a"))

    def test_names(self) -> None:
        """What is no name leads nowhere, least of all out of the directory."""
        for name in ("..", "../a", "a/b", "", ".a", "-a", "A", "a b", "a\n", "a+run", "a" * 201):
            with self.assertRaisesRegex(ContainerError, "is not a name"):
                made.container_of(self.root, name)


class GroundTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.place = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.place)
        self.host, self.behind = self.place / "resolv.conf", self.place / "behind"
        self.patch(ground, "NAME_SERVERS", self.host)
        self.patch(ground, "BEHIND_STUB", self.behind)

    def test_name_servers(self) -> None:
        """The host's name servers are the container's, unless they are on the host's loopback."""
        real, stub = "nameserver 192.0.2.1\n", "nameserver 127.0.0.53\noptions edns0\n"
        self.assertEqual(ground.name_servers(), "")
        self.host.write_text(real)
        self.assertEqual(ground.name_servers(), real)
        self.behind.write_text("nameserver 192.0.2.9\n")
        self.assertEqual(ground.name_servers(), real)
        self.host.write_text(stub)
        self.assertEqual(ground.name_servers(), "nameserver 192.0.2.9\n")
        self.behind.write_text(stub)
        self.assertEqual(ground.name_servers(), "")

    def test_stubs(self) -> None:
        """A stub is known however it is written; a comment is none."""
        self.behind.write_text("nameserver 192.0.2.9\n")
        for text, is_stub in (
            ("nameserver\t127.0.0.53\n", True),
            ("search x\n  nameserver  127.0.0.1", True),
            ("nameserver ::1\n", True),
            ("# nameserver 127.0.0.53\nnameserver 192.0.2.1\n", False),
            ("nameserver ::1234\n", False),
        ):
            self.host.write_text(text)
            self.assertEqual(ground.name_servers() != text, is_stub, text)

    def test_dangling_link(self) -> None:
        """A resolv.conf that leads nowhere is as none."""
        self.host.symlink_to(self.place / "nowhere")
        self.behind.write_text("nameserver 192.0.2.9\n")
        self.assertEqual(ground.name_servers(), "nameserver 192.0.2.9\n")

    @pytest.mark.skipif(not IS_ROOT, reason=ROOT_ONLY)
    def test_prepared(self) -> None:
        """Mount points, profiles and name servers are there; again it changes nothing."""
        self.host.write_text("nameserver 192.0.2.1\n")
        here = ground.Ground(self.place / "lxc")
        here.prepare()
        for part in ("etc/hosts", "etc/hostname", "etc/resolv.conf", "app", "var/data"):
            found = (here.layer / part).lstat()
            self.assertEqual((found.st_uid, found.st_gid), (100_000, 100_000), part)
        self.assertEqual(here.resolv.read_text(), "nameserver 192.0.2.1\n")
        self.assertEqual(here.seccomp(root=True).read_text(), config.seccomp(user_namespaces=True))
        self.assertEqual(here.seccomp(root=False).read_text(), config.seccomp())
        before = {path: path.stat().st_ino for path in here.directory.rglob("*")}
        here.prepare()
        self.assertEqual({path: path.stat().st_ino for path in here.directory.rglob("*")}, before)
        self.host.write_text("nameserver 192.0.2.2\n")
        here.prepare()
        self.assertEqual(here.resolv.read_text(), "nameserver 192.0.2.2\n")

    def test_network_is_kept(self) -> None:
        """A ship keeps its network while it has bridges there or nobody took it, be it within a
        wider one; it takes none that is in use."""
        here = ground.Ground(self.place)
        taken: list[IPv4Network] = []
        self.patch(network, "taken_networks", lambda tag: taken)
        (self.place / "spo").mkdir()
        self.patch(network, "INTERFACES", self.place)
        first = here.network(None, "sp")
        self.assertEqual(here.network(None, "sp"), first)
        taken.append(first)
        self.assertEqual(here.network(None, "sp"), first)
        (self.place / "spo").rmdir()
        moved = here.network(None, "sp")
        self.assertFalse(moved.overlaps(first))
        taken.append(network.CANDIDATES)
        self.assertEqual(here.network(None, "sp"), moved)
        with self.assertRaisesRegex(ContainerError, f"{first} is in use on this host"):
            here.network(first, "sp")
        wanted = IPv4Network("10.9.0.0/20")
        self.assertEqual(here.network(wanted, "sp"), wanted)
        self.assertEqual(here.network(None, "sp"), wanted)


class NeedsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.place = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.place)
        self.patch(os, "geteuid", lambda: 0)
        for tool in needs.TOOLS:
            self.tool(tool)
        self.patch(needs, "SYSTEM_PATH", str(self.place))
        self.patch(cgroups, "of_this_host", lambda below: unified())
        self.patch(nftables, "library", lambda: None)

    def tool(self, name: str) -> None:
        (self.place / name).write_text("#!/bin/sh\n")
        (self.place / name).chmod(0o755)

    @pytest.mark.skipif(
        "\toverlay\n" not in Path("/proc/filesystems").read_text(), reason="no overlay here"
    )
    def test_nothing(self) -> None:
        """A host with all of it lacks nothing."""
        self.assertEqual(needs.missing(), [])

    def test_packages(self) -> None:
        """A tool that is not there is named as the package that has it, each once."""
        for tool, package in needs.TOOLS.items():
            (self.place / tool).unlink()
            self.assertIn(f"the package {package}", needs.missing())
            self.tool(tool)
        for tool in ("lxc-execute", "lxc-attach", "nft"):
            (self.place / tool).unlink()
        found = [one for one in needs.missing() if "package" in one]
        self.assertEqual(found, ["the package lxc", "the package nftables"])

    def test_library(self) -> None:
        """nft's library is named where only its program is."""

        def none() -> None:
            raise OSError("cannot open shared object file")

        self.patch(nftables, "library", none)
        self.assertIn("the library libnftables.so.1", needs.missing())

    def test_controllers(self) -> None:
        """A controller that this host has not got is named."""
        self.patch(cgroups, "of_this_host", lambda below: cgroups.find(UNIFIED, {V2: "cpu"}, ""))
        found = [one for one in needs.missing() if "cgroup" in one]
        self.assertEqual(found, ["the cgroup controller memory", "the cgroup controller pids"])

    def test_a_module(self) -> None:
        """A kernel that has overlay as a module, as distributions' have, is told to load it."""
        systems = self.place / "filesystems"
        systems.write_text("nodev\tproc\n")
        self.patch(needs, "FILE_SYSTEMS", systems)
        self.tool("modprobe")
        self.assertIn("the file system overlay (modprobe overlay)", needs.missing())
        loads = f"#!/bin/sh\nprintf 'nodev\\toverlay\\n' >>{systems}\n"
        (self.place / "modprobe").write_text(loads)
        self.assertEqual(needs.missing(), [])

    def test_overlay(self) -> None:
        """A kernel without overlay is named."""
        known = self.place / "filesystems"
        self.patch(needs, "FILE_SYSTEMS", known)
        for text, lacks in (
            ("nodev\toverlay\n\text4\n", False),
            ("nodev\toverlayfs\n", True),
            ("\text4\n", True),
        ):
            known.write_text(text)
            found = any("overlay" in one for one in needs.missing())
            self.assertEqual(found, lacks, text)

    def test_not_root(self) -> None:
        """A ship that is not root lacks that, whatever else."""
        self.patch(os, "geteuid", lambda: 1000)
        self.assertEqual(needs.missing(), ["a ship that runs as root"])
