"""LXC's configuration of one container, as text: pure, all of it generated, nothing included."""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from pathlib import Path

from attrs import frozen

from containers.interface import ContainerError, Limits, Mount
from containers.lxc import idmap
from containers.lxc.cgroups import MONITORS, Setting
from containers.lxc.network import Plan, mac
from containers.sandbox import SHARED_MEMORY, User, can_be

ROOT = User(0, 0)  # of the container
# What root inside needs to install packages; no more of it reaches the host than its own files.
ROOTS_CAPABILITIES = (
    "audit_write", "chown", "dac_override", "fowner", "fsetid", "kill", "net_bind_service",
    "setfcap", "setgid", "setpcap", "setuid", "sys_chroot",
)  # fmt: skip
# Calls that a service has no honest use for; some were the way into a kernel before.
DENIED = (
    "add_key", "bpf", "delete_module", "finit_module", "fsconfig", "fsmount", "fsopen", "fspick",
    "init_module", "io_uring_enter", "io_uring_register", "io_uring_setup", "kexec_file_load",
    "kexec_load", "keyctl", "mount", "mount_setattr", "move_mount", "open_by_handle_at",
    "open_tree", "perf_event_open", "pivot_root", "reboot", "request_key", "setns", "swapoff",
    "swapon", "syslog", "umount2", "unshare", "userfaultfd",
)  # fmt: skip
_LAYER = re.compile(r"[\w./+=@-]+", re.ASCII)
NEW_USER_NAMESPACE = 0x10000000
NOT_IMPLEMENTED, NO_SUCH_FAMILY = 38, 97
SOONER = 500  # of 1000, by which the kernel would kill before all others
GO, UP, UNBOUNDED = "go", "up", "unbounded"
VSOCK = 40  # leads to whatever the host is a guest of: no namespace holds it


@frozen
class Files:
    """What the ship writes for one container, and binds into it read-only."""

    directory: Path

    @property
    def config(self) -> Path:
        return self.directory / "config"

    @property
    def hosts(self) -> Path:
        return self.directory / "hosts"

    @property
    def hostname(self) -> Path:
        return self.directory / "hostname"

    @property
    def log(self) -> Path:
        """What LXC itself complains about."""
        return self.directory / "lxc.log"

    @property
    def oom(self) -> Path:
        """The kernel's count of killings, copied when it ended."""
        return self.directory / "oom"

    @property
    def memory(self) -> Path:
        """How much it may have, in words."""
        return self.directory / "memory"

    @property
    def up(self) -> Path:
        """The pipe in which LXC's hook says that it is made, by the pid of its init."""
        return self.directory / "up"

    @property
    def go(self) -> Path:
        """The pipe in which the ship says that it may run, see `gate`."""
        return self.directory / "go"


@frozen
class Stack:
    """Read-only file systems, topmost first, and `upper`, which takes what is written.

    `app` and `tmp` are bound at /app and /tmp where those are not to be part of `upper`.
    """

    layers: tuple[Path, ...]
    upper: Path
    app: Path | None = None
    tmp: Path | None = None


@frozen
class Cage:
    """All that is decided about one start of a container. `below` is where its cgroup is.

    `port` is where its service is to listen; None for a command. `oom` is the file in which the
    kernel counts its killings. One that is not `online` has nothing but a loopback.
    """

    name: str
    stack: Stack
    files: Files
    user: User
    settings: tuple[Setting, ...]
    limits: Limits
    below: str
    plan: Plan
    address: IPv4Address
    port: int | None
    mounts: tuple[Mount, ...]
    resolv: Path
    seccomp: Path
    oom: Path
    online: bool = True


def text(cage: Cage) -> str:
    """The configuration. Raises `ContainerError` for what cannot be mounted."""
    lines = [
        f"lxc.rootfs.path = overlay:{_overlay(cage.stack)}",
        # In a user namespace the kernel keeps an overlay's notes in no other kind of attribute;
        # without them a directory of the base could not be replaced.
        "lxc.rootfs.options = userxattr",
        f"lxc.uts.name = {hostname(cage.name)}",
        "lxc.apparmor.profile = unconfined",
        f"lxc.seccomp.profile = {cage.seccomp}",
        "lxc.tty.max = 0",
        "lxc.pty.max = 64",
        "lxc.mount.auto = proc:mixed sys:ro",
        *idmap.lines(),
        f"lxc.init.uid = {cage.user.uid}",
        f"lxc.init.gid = {cage.user.gid}",
        "lxc.init.cwd = /",
        f"lxc.cgroup.dir.container = {cage.below}/{cage.name}",
        f"lxc.cgroup.dir.monitor = {cage.below}{MONITORS}/{cage.name}",
        *_rights(cage),
        *(f"lxc.net.0.{line}" for line in _network(cage)),
        *(f"{setting.key} = {setting.value}" for setting in cage.settings),
        "lxc.hook.version = 1",
        f"lxc.hook.start-host = {_asking(cage)}",
        f"lxc.hook.stop = /bin/cp {cage.oom} {cage.files.oom}",
        *(f"lxc.mount.entry = {entry}" for entry in _entries(cage)),
    ]
    if cage.limits.files is not None:
        lines.append(f"lxc.prlimit.nofile = {cage.limits.files}")
    if cage.port is None:  # where the host itself is out of memory, a build goes before services
        lines.append(f"lxc.proc.oom_score_adj = {SOONER}")
    lines.append("lxc.prlimit.core = 0")
    return "\n".join(lines) + "\n"


def seccomp(*, user_namespaces: bool = False) -> str:
    """LXC's seccomp profile: what is not denied is allowed."""
    calls = [f"{call} errno 1" for call in DENIED]
    calls.append(f"socket errno {NO_SUCH_FAMILY} [0,{VSOCK},SCMP_CMP_EQ]")
    if not user_namespaces:
        flag = NEW_USER_NAMESPACE
        # The flags of clone3 are in memory, where no filter sees them: libc falls back to clone.
        calls += [f"clone errno 1 [0,{flag},SCMP_CMP_MASKED_EQ,{flag}]"]
        calls += [f"clone3 errno {NOT_IMPLEMENTED}"]
    return "\n".join(["2", "denylist", "[all]", *calls, ""])


def hostname(name: str) -> str:
    """A container's name as far as a host name may be long."""
    return name.partition("+")[0][:63].rstrip(".-")


def _overlay(stack: Stack) -> str:
    paths = [*map(str, stack.layers), str(stack.upper)]
    for path in paths:
        if not _LAYER.fullmatch(path):  # LXC gives it to a shell, for the hooks
            raise ContainerError(f"{path} cannot be a layer: only letters, digits and ./+=@_-")
    return ":".join(paths)


def _rights(cage: Cage) -> list[str]:
    if cage.user == ROOT:
        return [f"lxc.cap.keep = {' '.join(ROOTS_CAPABILITIES)}"]
    return ["lxc.cap.keep = none", "lxc.no_new_privs = 1"]


def _asking(cage: Cage) -> str:
    """What a shell of LXC's does when the container is made: it asks the ship, see `gate`, and puts
    bounds while that is busy. LXC puts `exec` before it: so the beginning is only about its stderr,
    and no second shell is started. Each pipe is opened for both ways: then nobody has to be at its
    other end yet.
    """
    ask = f'cd {cage.files.directory} && exec 3<>go 4<>up && echo "$LXC_PID" >&4'
    enter = "exec /usr/bin/nsenter --user=/proc/$LXC_PID/ns/user --net=/proc/$LXC_PID/ns/net"
    bound = f"{{ {bounds(cage.port)}; }} || {{ echo {UNBOUNDED} >&4; exit 1; }}"
    wait = f'read -r said <&3 && [ "$said" = {GO} ] && echo {UP} >&4'
    return f"2>&1; {ask} && {enter} /bin/sh -c '{bound}; {wait}'"


def bounds(port: int | None) -> str:
    """What a shell in a container's namespaces does before anything of it runs. inotify is counted
    for all containers and the host's root together: so each has a count of its own.
    """
    settings = {"user/max_inotify_instances": 64, "user/max_inotify_watches": 65536}
    if port is not None:  # what comes from outside goes on to the loopback, see `network.own`
        settings["net/ipv4/conf/all/route_localnet"] = 1
    return " && ".join(f"echo {value} >/proc/sys/{name}" for name, value in settings.items())


def _network(cage: Cage) -> list[str]:
    if not cage.online:
        return ["type = empty", "flags = up"]
    zone = cage.plan.zone_of(cage.address)
    lines = [
        "type = veth",
        f"link = {zone.bridge}",
        f"veth.pair = {cage.plan.veth(cage.address)}",
        # Of the address: the host knows it by that for a while after it was started anew.
        f"hwaddr = {mac(cage.plan.veth(cage.address))}",
        "flags = up",
        f"mtu = {cage.plan.mtu}",
        f"ipv4.address = {cage.address}/{zone.network.prefixlen}",
        f"ipv4.gateway = {zone.gateway}",
    ]
    if zone.network6 is not None:
        lines.append(f"ipv6.address = {cage.plan.address6(cage.address)}/{zone.network6.prefixlen}")
        lines.append(f"ipv6.gateway = {zone.gateway6}")
    return lines


def _entries(cage: Cage) -> list[str]:
    """fstab lines: what is bound, and where. The kernel follows no symlink on the way there."""
    own = [
        Mount(cage.files.hosts, "/etc/hosts"),
        Mount(cage.files.hostname, "/etc/hostname"),
        Mount(cage.resolv, "/etc/resolv.conf"),
    ]
    for mount in cage.mounts:
        if not can_be(mount):
            raise ContainerError(f"mount: nothing can be mounted at {mount.at!r}")
    given = [*own]
    if cage.stack.app is not None:
        given.append(Mount(cage.stack.app, "/app", writable=True))
    if cage.stack.tmp is not None:
        given.append(Mount(cage.stack.tmp, "/tmp", writable=True))  # noqa: S108 - inside, its own
    given += cage.mounts
    shared = f"tmpfs dev/shm tmpfs nosuid,nodev,mode=1777,size={SHARED_MEMORY},create=dir 0 0"
    return [shared, *(_entry(mount) for mount in given)]


def _entry(mount: Mount) -> str:
    kind = "dir" if mount.source.is_dir() else "file"
    rights = "bind" if mount.writable else "bind,ro"
    source, target = (
        path.replace("\\", r"\134")
        .replace(" ", r"\040")
        .replace("\t", r"\011")
        .replace("\n", r"\012")
        for path in (str(mount.source), mount.at.lstrip("/"))
    )
    return f"{source} {target} none {rights},nosuid,nodev,create={kind} 0 0"
