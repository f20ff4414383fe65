"""Which user of the host stands for which user inside: pure, one map for every container.

The user that services run as, 1000 inside, is the host user of the `process` runtime, so that
caches, apps and shared data belong to the same one under both. Everybody else, root first, is
somebody with no other existence on the host.
"""

from __future__ import annotations

from containers.boxing import DEFAULT_USER
from containers.sandbox import User

INSIDE = User(1000, 1000)  # `ubuntu`
ROOT_OUTSIDE = User(100_000, 100_000)
COUNT = 65_536


def outside(inside: int) -> int:
    """The host's uid (or gid) for one inside; `ValueError` for what has none."""
    if not 0 <= inside < COUNT:
        raise ValueError(f"{inside} is not a user inside, 0 to {COUNT - 1}")
    return DEFAULT_USER.uid if inside == INSIDE.uid else ROOT_OUTSIDE.uid + inside


def lines() -> list[str]:
    """The map in LXC's configuration."""
    first, one, after = ROOT_OUTSIDE.uid, DEFAULT_USER.uid, INSIDE.uid + 1
    ranges = ((0, first, INSIDE.uid), (INSIDE.uid, one, 1), (after, first + after, COUNT - after))
    return [
        f"lxc.idmap = {kind} {inside} {host} {count}"
        for kind in ("u", "g")
        for inside, host, count in ranges
    ]
