"""A Debian machine of the tests' own: systemd as its first process, sshd on port 22, no network but
one wire to the test.

Its root file system is made once and kept: the slim base, and what a fresh Debian server has. Each
machine writes to memory alone, which stays what it is when the machine boots anew. LXC works in it:
/var/starphleet is a disk of its own, since no overlay can stand on another, and of what nspawn
shows read-only the machine's own cgroups, network interfaces and user limits are writable.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tomllib
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import psutil
from attrs import define, field

from containers.interface import Exit
from containers.lxc.bases import Bases, Standard
from tests.cache import CACHE, prepare
from tests.containers import lxc
from tests.containers.lxc import CHECKOUT
from tests.voyages.harbour import until

SHARE = CHECKOUT / "overlay/usr/share/starphleet"
MACHINES = CACHE / "machines"
HERE, THERE = "198.51.100.1", "198.51.100.2"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
WHEELS = "var/cache/wheels"
CGROUPS = Path("/sys/fs/cgroup")
SHIFT = 100000  # of the ids in a base
# Before nspawn: a disk in memory, and cgroups below which nothing of another machine is.
UNDER = """
root=$1 disk=$2 name=$3
shift 3
mount -t tmpfs -o mode=755 none "$disk"
mkdir "$disk/upper" "$disk/work" "$disk/root" "$disk/ship"
mount -t overlay -o "lowerdir=$root,upperdir=$disk/upper,workdir=$disk/work" none "$disk/root"
while (
  for place in $(awk '$3 ~ /^cgroup/ { print $2 }' /proc/mounts); do
    find "$place/$name" -depth -type d -exec rmdir {} ';' || true
    mkdir "$place/$name"
    for given in cpuset.cpus cpuset.mems; do # of version 1, where none are none at all
      [ ! -e "$place/$given" ] || cat "$place/$given" >"$place/$name/$given"
    done
    echo 0 >"$place/$name/cgroup.procs"
  done
  exec "$@"
) || [ "$?" = 133 ]; do :; done # that is how it ends to be booted anew
"""
# Before systemd, which moves processes when controllers become its own later.
OPENED = """
mount -t proc none /mnt && mount --bind /mnt/sys/user /proc/sys/user && umount /mnt
mount -t sysfs none /mnt && mount -o remount,rw /mnt
mount --bind /mnt/devices/virtual/net /sys/devices/virtual/net && umount /mnt
for place in $(awk '$3 ~ /^cgroup/ { print $2 }' /proc/mounts); do
  mount -o remount,bind,rw "$place"
done
exec /lib/systemd/systemd
"""
# What a server has before it becomes a ship. One package that a ship needs is only within reach.
FRESH = ("systemd", "systemd-sysv", "dbus", "libpam-systemd", "openssh-server", "logrotate", "make")
WITHIN_REACH = "conntrack"
ELSEWHERE = ("node", "npm", "ruby")  # such as an operator may have from another place
APT = [
    "apt-get", "--yes", "--quiet", "--quiet", "--no-install-recommends",
    "-o", "Dpkg::Options::=--force-unsafe-io",
    "-o", "Dpkg::Options::=--path-exclude=/usr/share/man/*",
    "-o", "Dpkg::Options::=--path-exclude=/usr/share/doc/*",
    "-o", "Dpkg::Options::=--path-exclude=/usr/share/locale/*",
]  # fmt: skip


def missing() -> str:
    """Why there can be no such machine here, "" if there can."""
    if os.geteuid() != 0:
        return "only root boots machines"
    return "" if shutil.which("systemd-nspawn") else "systemd-nspawn is not installed"


def packages() -> list[str]:
    """What a ship needs, but for what is on the machine in another way, and for the last one."""
    wanted = [*(SHARE / "packages.ship").read_text().split(), *FRESH, "sudo"]
    wanted += (SHARE / "packages.lxc").read_text().split()
    return [one for one in wanted if one not in (*("nodejs", "npm", "ruby"), WITHIN_REACH)]


def root() -> Path:
    """The root file system, made by one of all test processes."""
    lxc.base("slim")
    prepare(MACHINES)
    told = [APT, packages(), _layer().parent.name, (CHECKOUT / "constraints.txt").read_text()]
    place = MACHINES / sha256(json.dumps(told).encode()).hexdigest()[:16]
    with (MACHINES / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.is_dir():
            growing = MACHINES / "growing"
            shutil.rmtree(growing, ignore_errors=True)
            _make(growing)
            growing.rename(place)
    return place


def _layer() -> Path:
    bases = Bases(None, lxc.BASES, script=lxc.SCRIPT, provision=_nobody, env=lxc.ENV)
    (layer,) = bases.find(Standard("slim")) or ()
    return layer


async def _nobody(*_: object) -> Exit:
    raise NotImplementedError


def _make(place: Path) -> None:
    shutil.copytree(_layer(), place, symlinks=True)
    _own(_layer(), place)
    for program in ELSEWHERE:
        (place / "usr/local/bin" / program).symlink_to("/bin/true")
    policy = place / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    script = f"apt-get -qq update && {' '.join(APT)} install $* && {' '.join(APT)} --download-only"
    run = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--pipe"]
    run += ["--resolv-conf=copy-host", f"--directory={place}", f"--setenv=PATH={PATH}"]
    run += ["--setenv=DEBIAN_FRONTEND=noninteractive", "/bin/sh", "-c"]
    subprocess.run([*run, f"{script} install {WITHIN_REACH}", "sh", *packages()], check=True)
    policy.unlink()
    (place / "etc/resolv.conf").write_text("")
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    needed = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"]
    (version,) = (place / "usr/bin").glob("python3.[0-9]*[0-9]")
    pip += ["--python-version", version.name.removeprefix("python")]
    pip += ["--constraint", str(CHECKOUT / "constraints.txt"), "--dest", str(place / WHEELS)]
    subprocess.run([*pip, *needed], check=True, stderr=subprocess.DEVNULL)


def _own(layer: Path, place: Path) -> None:
    """Give everything to whom it belongs outside of containers, and modes that this takes away."""
    for path in (layer, *layer.rglob("*")):
        about, copy = path.lstat(), place / path.relative_to(layer)
        os.lchown(copy, max(0, about.st_uid - SHIFT), max(0, about.st_gid - SHIFT))
        if not copy.is_symlink():
            copy.chmod(about.st_mode & 0o7777)


@define
class Machine:
    """One that runs, below the directory `home`, which is shared with it as /host."""

    home: Path
    wire: str = field(factory=lambda: f"m{os.getpid() % 100000}")
    running: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Machine:
        disk = self.home.with_name(f"{self.home.name}.disk")
        disk.mkdir()
        argv = ["unshare", "--net", "--mount", "/bin/sh", "-euc", UNDER, "sh", str(root())]
        argv += [str(disk), self.wire]
        argv += ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit"]
        argv += [f"--directory={disk}/root", "--network-veth", f"--machine={self.wire}"]
        argv += ["--console=pipe", f"--bind-ro={self.home}:/host", f"--bind={lxc.BASES}:/bases"]
        argv += [f"--bind={disk}/ship:/var/starphleet"]
        argv += ["/bin/sh", "-euc", OPENED]
        with (self.home / "console").open("wb") as console:
            self.running = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=console, stderr=console
            )
        try:
            self._up()
            self.sh("echo 127.0.1.1 $(hostname) >>/etc/hosts")
            self.sh("echo 'Acquire::Retries \"0\";' >/etc/apt/apt.conf.d/99-nobody-is-out-there")
            self.sh("mkdir -m 711 /var/starphleet/lxc && ln -s /bases /var/starphleet/lxc")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """As if its power failed: what it wrote is gone anyway."""
        assert self.running is not None
        with suppress(StopIteration, psutil.Error):
            self._first().kill()
        self.running.wait(30)
        for place in (*CGROUPS.glob(f"*/{self.wire}"), CGROUPS / self.wire):
            for below in (*sorted(place.rglob("*/"), reverse=True), place):
                with suppress(OSError):
                    below.rmdir()

    def reboot(self) -> None:
        """As whoever is root there would; it is up again when this returns."""
        first = self._first()
        self.sh("systemctl reboot", check=False)
        until(lambda: not first.is_running(), "the machine goes down", 60)
        self._up()

    def _up(self) -> None:
        until(self._booted, "the machine is booted", 60)
        for near in (
            ["addr", "replace", f"{HERE}/24", "dev", f"ve-{self.wire}"],
            ["link", "set", f"ve-{self.wire}", "up"],
            ["link", "set", "lo", "up"],
        ):
            self.beside("ip", *near)
        self.sh(f"ip addr add {THERE}/24 dev host0 && ip link set host0 up")

    def sh(self, script: str, *, check: bool = True, **env: str) -> str:
        """What a script prints on the machine, run as root there."""
        argv = ["nsenter", "--target", str(self._first().pid), "--all", "env", "-i", f"PATH={PATH}"]
        argv += ["HOME=/root", "LANG=C.UTF-8", *(f"{name}={value}" for name, value in env.items())]
        return self._said([*argv, "/bin/sh", "-euc", f"cd; {script}"], check=check)

    def beside(self, *argv: str, check: bool = True) -> str:
        """What a command of the host prints that has the other end of the wire."""
        assert self.running is not None
        run = ["nsenter", "--target", str(self.running.pid), "--net", *argv]
        return self._said(run, check=check)

    def clone(self) -> None:
        """This tree as it is, in one commit, in /root/starphleet of the machine."""
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=CHECKOUT, check=True, stdout=subprocess.PIPE,
        ).stdout  # fmt: skip
        pack = ["tar", "--create", "--null", "--ignore-failed-read", "--files-from=-"]
        with (self.home / "tree.tar").open("wb") as tree:
            subprocess.run(pack, cwd=CHECKOUT, input=listed, stdout=tree, check=True)
        self.sh(
            "mkdir starphleet && cd starphleet && tar --extract --file /host/tree.tar && "
            "git init -q -b master && git add -A && "
            "git -c user.name=Ann -c user.email=ann@example.com commit -q -m all && "
            "git remote add origin https://example.com/starphleet.git"
        )

    def _said(self, argv: list[str], *, check: bool) -> str:
        done = subprocess.run(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=300,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{argv}: {done.returncode}\n{done.stdout}")
        return done.stdout

    def _first(self) -> psutil.Process:
        """Its process 1."""
        assert self.running is not None
        children = psutil.Process(self.running.pid).children(recursive=True)
        return next(one for one in children if one.name() == "systemd")

    def _booted(self) -> bool:
        assert self.running is not None
        if self.running.poll() is not None:
            raise AssertionError((self.home / "console").read_text())
        told = "systemctl is-system-running || true"
        try:
            return self.sh(told, check=False).strip() in ("running", "degraded")
        except (StopIteration, psutil.Error):
            return False
