"""What `/proc` says about processes: the one module that reads it. A pid alone is never trusted."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Set
from pathlib import Path

from attrs import frozen

PROC = Path("/proc")
CHUNK = 1 << 16
LISTEN = "0A"  # a socket's state


@frozen
class Process:
    """A process: its pid, and the start time (in clock ticks since boot) that makes it unique."""

    pid: int
    ticks: int


@frozen
class Stat:
    """One line of `/proc/PID/stat`, as far as it is needed."""

    process: Process
    state: str
    parent: int
    group: int
    session: int

    @property
    def alive(self) -> bool:
        """False for a zombie: it has ended, only nobody has asked how."""
        return self.state not in "ZX"


def stat(pid: int) -> Stat | None:
    """What runs under `pid` now, zombies included."""
    line = _read(pid, "stat")
    if not line:
        return None
    fields = line[line.rindex(b")") + 2 :].split(None, 20)
    return Stat(
        Process(pid, int(fields[19])),
        state=fields[0].decode(),
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
    )


def named(child: int) -> Process:
    """A child that is not reaped yet: it stays in `/proc` until then."""
    found = stat(child)
    assert found is not None
    return found.process


def everything() -> Iterator[Stat]:
    """All processes that can be seen but the kernel's own; some 20 microseconds each."""
    for entry in os.scandir(PROC):
        if entry.name.isdigit():
            found = stat(int(entry.name))
            # The kernel's own have no session; whatever this ship started has one.
            if found is not None and found.session != 0:
                yield found


def is_alive(process: Process) -> bool:
    found = stat(process.pid)
    return found is not None and found.process == process and found.alive


def open_process(process: Process) -> int | None:
    """A pidfd for exactly this process, or None if it has ended."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    if is_alive(process):
        return pidfd
    os.close(pidfd)
    return None


def open_processes(processes: Iterable[Process]) -> list[int]:
    """pidfds of those that still live."""
    opened = (open_process(process) for process in processes)
    return [pidfd for pidfd in opened if pidfd is not None]


def group_exists(group: int) -> bool:
    """Whether any process, be it a zombie, is in this process group."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def process_group(group: int) -> list[Process]:
    """The living members of a process group."""
    return [found.process for found in everything() if found.group == group and found.alive]


def family(pids: Set[int]) -> list[Stat]:
    """The living ones of these processes, of the sessions they lead, and all descendants.

    Never this process itself, nor anything of its session.
    """
    own = os.getsid(0)
    snapshot = [found for found in everything() if found.session != own]
    children: dict[int, list[Stat]] = {}
    for found in snapshot:
        children.setdefault(found.parent, []).append(found)
    first = (one for one in snapshot if one.process.pid in pids or one.session in pids)
    members = {found.process.pid: found for found in first}
    waiting = list(members)
    while waiting:
        for child in children.get(waiting.pop(), []):
            if child.process.pid not in members:
                members[child.process.pid] = child
                waiting.append(child.process.pid)
    return [found for found in members.values() if found.alive]


def environment(pid: int) -> dict[str, str]:
    """The environment that a process was executed with; empty if that is not for us to see."""
    pairs = (pair.partition("=") for pair in os.fsdecode(_read(pid, "environ")).split("\0"))
    return {name: value for name, _, value in pairs}


def in_our_pid_namespace(pid: int) -> bool:
    """False for what lives in a sandbox, and for what is not for us to see."""
    try:
        theirs = (PROC / str(pid) / "ns" / "pid").readlink()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
    return theirs == (PROC / "self" / "ns" / "pid").readlink()


def listening(pid: int) -> list[int]:
    """TCP ports that anybody listens on in the network of this process, ascending."""
    lines = (_read(pid, "net/tcp") + _read(pid, "net/tcp6")).decode().splitlines()
    fields = (line.split() for line in lines if not line.lstrip().startswith("sl"))
    return sorted({int(one[1].rpartition(":")[2], 16) for one in fields if one[3] == LISTEN})


def _read(pid: int, name: str) -> bytes:
    """One file about a process; empty if it is not to be had."""
    try:
        fd = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
    try:
        found = b""
        while more := os.read(fd, CHUNK):  # tables come by the page
            found += more
        return found
    except ProcessLookupError:
        return b""
    finally:
        os.close(fd)


def boot_id() -> str:
    """What tells this run of the kernel from every other."""
    return (PROC / "sys" / "kernel" / "random" / "boot_id").read_text().strip()
