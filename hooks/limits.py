"""How much one service may use: what its orders ask for, within what the ship allows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

import psutil
from attrs import evolve

from containers.interface import Limits
from hooks.errors import Refused

Number = TypeVar("Number", int, float)

MB = 2**20
MEMORY, PIDS = "STARPHLEET_MEMORY", "STARPHLEET_PIDS"
CPUS, DISK = "STARPHLEET_CPUS", "STARPHLEET_DISK"

_SIZE = re.compile(r"([1-9][0-9]{0,8})([MG])")
_COUNT = re.compile(r"[1-9][0-9]{0,5}")
_SHARE = re.compile(r"(?=.*[1-9])[0-9]{1,3}(\.[0-9]{1,2})?")


def asked(environment: Mapping[str, str]) -> Limits:
    """The limits that an environment names; `None` where it names none. Raises `Refused`."""
    return Limits(
        memory=read_size(environment[MEMORY], MEMORY) if environment.get(MEMORY) else None,
        processes=_count(environment[PIDS]) if environment.get(PIDS) else None,
        cpus=_share(environment[CPUS]) if environment.get(CPUS) else None,
        disk=read_size(environment[DISK], DISK) if environment.get(DISK) else None,
    )


def over(default: Limits, wanted: Limits) -> Limits:
    """`default` with what is `wanted` in its place."""
    names = ("memory", "processes", "cpus", "disk")
    given = {name: getattr(wanted, name) for name in names}
    return evolve(default, **{name: value for name, value in given.items() if value is not None})


def within(wanted: Limits, most: Limits) -> Limits:
    """What is `wanted`, each at most what `most` allows: a push may have less, but not more."""
    return evolve(
        wanted,
        memory=_least(wanted.memory, most.memory),
        processes=_least(wanted.processes, most.processes),
        cpus=_least(wanted.cpus, most.cpus),
        disk=_least(wanted.disk, most.disk),
    )


def usual_memory(total: int) -> int:
    """What a service may have that nobody bounds, on a host with `total` bytes: as much as most
    need, and no more than a small host could ever have free."""
    return min(1024 * MB, total // 2)


def available_memory() -> int:
    """Bytes that programs could take on this host without swapping."""
    return int(psutil.virtual_memory().available)


def require_memory(wanted: int | None, available: int) -> None:
    """`Refused` when a service asks for more memory (bytes) than the host has free."""
    if wanted is not None and wanted > available:
        raise Refused(
            f"{MEMORY}: {wanted // MB} MB do not fit, the host has {available // MB} MB free; "
            "what serves goes on serving"
        )


def read_size(text: str, where: str) -> int:
    """Bytes, of a size such as 512M or 2G. Raises `Refused`, which begins with `where`."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise Refused(f"{where}: {ascii(text)[:40]} is not a size such as 512M or 2G")
    return int(match[1]) * (MB if match[2] == "M" else 1024 * MB)


def read_share(text: str, where: str) -> float:
    """A number of CPUs such as 2 or 0.5. Raises `Refused`, which begins with `where`."""
    if not _SHARE.fullmatch(text):
        raise Refused(f"{where}: {ascii(text)[:40]} is not a number of CPUs such as 2 or 0.5")
    return float(text)


def _share(text: str) -> float:
    return read_share(text, CPUS)


def _count(text: str) -> int:
    if not _COUNT.fullmatch(text):
        raise Refused(f"{PIDS}: {ascii(text)[:40]} is not a number of processes")
    return int(text)


def _least(wanted: Number | None, most: Number | None) -> Number | None:
    return wanted if wanted is None or most is None else min(wanted, most)
