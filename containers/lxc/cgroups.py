"""Limits and membership of containers, on hosts with cgroups of version 1, 2, or both mixed.

Each controller is used where this host really has it: in a hierarchy of version 1 if one is
mounted, else in the unified one. A controller that is nowhere is an error when it is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from containers.interface import ContainerError, Limits
from containers.proc import Process, stat

PERIOD = 100_000  # microseconds in which a share of the CPUs is measured
SERVICE_WEIGHT, BUILD_WEIGHT = 100, 10
SHARES = 1024 // SERVICE_WEIGHT  # of version 1 for one of weight
INIT, SHELL = 1, 2
MONITORS = "-monitors"
OWN = Path("/proc/self/cgroup")
CONTROLLERS = ("memory", "pids", "cpu", "freezer")


@frozen
class Setting:
    """One limit: LXC's key and value, and the file that must say so once the container runs."""

    key: str
    value: str
    file: Path
    reads: str


@frozen
class Member:
    """A living process of a container, and the pid it has inside: 1 is init, 2 the first shell."""

    process: Process
    inside: int


@frozen
class Hierarchy:
    """Where a controller is: the directory of its root, and which version it speaks."""

    root: Path
    version: int


@frozen
class Cgroups:
    """The controllers of this host by name, and below which name the ship's containers are."""

    controllers: Mapping[str, Hierarchy]
    roots: tuple[Path, ...]
    below: str

    def settings(self, name: str, limits: Limits, *, weight: int = SERVICE_WEIGHT) -> list[Setting]:
        """What LXC is told for the container `name`. Raises `ContainerError` for a limit that
        this host cannot keep.
        """
        found: list[Setting] = []
        if limits.memory is not None:
            found += self._memory(name, limits.memory)
        if limits.processes is not None:
            count = str(limits.processes)
            found.append(self._setting(name, "pids", "pids.max", "pids.max", count))
        if limits.cpus is not None:
            found += self._cpus(name, limits.cpus)
        if "cpu" in self.controllers:
            v1, v2 = str(SHARES * weight), str(weight)
            found.append(self._setting(name, "cpu", "cpu.shares", "cpu.weight", v1, v2))
        return found

    def directory(self, controller: str, name: str) -> Path:
        """The cgroup of the container `name`. `ContainerError` if there is no such controller."""
        found = self.controllers.get(controller)
        if found is None:
            raise ContainerError(f"this host has no cgroup controller {controller}")
        return found.root / self.below / name

    def members(self, name: str) -> list[Member]:
        """The living processes of the container `name`; none if it does not run."""
        return list(_living(self.directory("pids", name)))

    def monitors(self, name: str) -> list[Process]:
        """What of LXC's looks after the container `name`: one process, or none."""
        directory = self.controllers["pids"].root / f"{self.below}{MONITORS}" / name
        return [one.process for one in _living(directory)]

    def init(self, name: str) -> Process | None:
        """The first process of the container `name`, in whose end all of it ends."""
        living = _living(self.directory("pids", name))
        return next((one.process for one in living if one.inside == INIT), None)

    def freeze(self, name: str, frozen: bool) -> None:
        """Stop all of it where it is, or let it go on. Nothing if it does not run."""
        directory = self.directory("freezer", name)
        with suppress(FileNotFoundError):
            if self.controllers["freezer"].version == 1:
                _write(directory / "freezer.state", "FROZEN" if frozen else "THAWED")
            else:
                _write(directory / "cgroup.freeze", "1" if frozen else "0")

    def names(self) -> set[str]:
        """The containers that have a cgroup, whether anything is in it or not."""
        found: set[str] = set()
        for root in self.roots:
            with suppress(FileNotFoundError):
                found |= {entry.name for entry in (root / self.below).iterdir() if entry.is_dir()}
        return found

    def exists(self, name: str) -> bool:
        """Whether there is anything of a container, or of its monitor, in any hierarchy."""
        # Strings, for it is asked before each start, of each hierarchy.
        parts = (f"{self.below}/{name}", f"{self.below}{MONITORS}/{name}")
        return any(os.path.exists(f"{root}/{part}") for root in self.roots for part in parts)  # noqa: PTH110

    def stir(self) -> None:
        """Have the kernel begin now with what it does before a process changes its cgroup. Blocks.

        The first to ask for that waits until no CPU is inside a fork by the fast way, a grace
        period of milliseconds; who asks while it lasts waits for the rest of it, and who asks soon
        after not at all. So LXC, which is still to be started then, finds most of it done. Nothing
        moves: this process is written where it is, and only where the kernel says that it is.
        """
        with suppress(OSError, KeyError):
            hierarchy = self.controllers["pids"]
            own = "pids" if hierarchy.version == 1 else ""
            lines = (line.split(":", 2) for line in OWN.read_text().splitlines())
            path = next((path for _, names, path in lines if own in names.split(",")), "/")
            there = Path(f"{hierarchy.root}{path}") / "cgroup.procs"
            if str(os.getpid()) in there.read_text().split():
                _write(there, "0")

    def remove(self, name: str) -> None:
        """Remove what a killed monitor left; there is nothing in it any more."""
        for root in self.roots:
            _remove(root / self.below / name)
            _remove(root / f"{self.below}{MONITORS}" / name)

    def leave(self) -> None:
        """Remove the ship's own cgroups, in which there is nothing any more."""
        for root in self.roots:
            for name in (self.below, f"{self.below}{MONITORS}"):
                _remove(root / name)

    def oom_file(self, name: str) -> Path:
        """What the kernel counts its killings for want of memory in."""
        v1 = self.controllers["memory"].version == 1
        return self.directory("memory", name) / ("memory.oom_control" if v1 else "memory.events")

    def _memory(self, name: str, size: int) -> list[Setting]:
        page = os.sysconf("SC_PAGE_SIZE")
        size = -(-size // page) * page
        memory, swap = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
        found = [self._setting(name, "memory", memory, "memory.max", str(size))]
        root = self.controllers["memory"].root
        v2 = self.controllers["memory"].version == 2
        # Else what does not fit goes to the swap, and slows the whole host.
        if v2 or (root / swap).exists():
            found.append(self._setting(name, "memory", swap, "memory.swap.max", str(size), "0"))
        return found

    def _cpus(self, name: str, cpus: float) -> list[Setting]:
        quota = str(round(cpus * PERIOD))
        v1 = "cpu.cfs_quota_us"
        return [self._setting(name, "cpu", v1, "cpu.max", quota, f"{quota} {PERIOD}")]

    def _setting(
        self, name: str, controller: str, v1: str, v2: str, value: str, value_v2: str = ""
    ) -> Setting:
        directory = self.directory(controller, name)
        if self.controllers[controller].version == 1:
            return Setting(f"lxc.cgroup.{v1}", value, directory / v1, value)
        value = value_v2 or value
        return Setting(f"lxc.cgroup2.{v2}", value, directory / v2, value)


def find(mounts: str, unified: Mapping[Path, str], below: str) -> Cgroups:
    """What `/proc/self/mounts` says of cgroups; `unified` has the `cgroup.controllers` of each
    mount of version 2.
    """
    controllers: dict[str, Hierarchy] = {}
    roots: list[Path] = []
    for line in mounts.splitlines():
        _, at, kind, options, *_ = line.split()
        if kind == "cgroup2":
            roots.append(Path(at))
            for name in (*unified.get(Path(at), "").split(), "freezer"):
                controllers.setdefault(name, Hierarchy(Path(at), 2))
        elif kind == "cgroup":
            roots.append(Path(at))
            for name in set(options.split(",")).intersection(CONTROLLERS):
                controllers[name] = Hierarchy(Path(at), 1)
    return Cgroups(controllers, tuple(roots), below)


def of_this_host(below: str) -> Cgroups:
    mounts = Path("/proc/self/mounts").read_text()
    unified = {}
    for line in mounts.splitlines():
        _, at, kind, *_ = line.split()
        if kind == "cgroup2":
            unified[Path(at)] = (Path(at) / "cgroup.controllers").read_text()
    return find(mounts, unified, below)


def oom_kills(text: str) -> int:
    """How often the kernel killed for want of memory, by `memory.oom_control` or `.events`."""
    for line in text.splitlines():
        name, _, count = line.partition(" ")
        if name == "oom_kill":
            return int(count)
    return 0


def _living(directory: Path) -> Iterator[Member]:
    for pid in sorted(_pids(directory)):
        found = stat(pid)
        if found is not None and found.alive:
            yield Member(found.process, _inside(pid))


def _pids(directory: Path) -> set[int]:
    try:
        found = {int(pid) for pid in (directory / "cgroup.procs").read_text().split()}
        inner = [Path(entry.path) for entry in os.scandir(directory) if entry.is_dir()]
    except OSError:  # it is being removed, or never was
        return set()
    return found.union(*map(_pids, inner))


def _inside(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    line = next(line for line in status.splitlines() if line.startswith("NSpid:"))
    return int(line.split()[-1])


def _write(file: Path, text: str) -> None:
    """Into a file that is there: a cgroup's are not made by being written."""
    with file.open("r+") as setting:
        setting.write(text)


def _remove(directory: Path) -> None:
    with suppress(OSError):
        for entry in os.scandir(directory):
            if entry.is_dir():
                _remove(Path(entry.path))
        directory.rmdir()
