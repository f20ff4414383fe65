"""The LXC runtime as tests have it: on the slim base, which is made once and kept."""

from __future__ import annotations

import fcntl
import functools
import os
import subprocess
import sys
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from containers.interface import Exit
from containers.lxc.bases import Bases, Standard
from containers.lxc.runtime import LxcRuntime
from tests.cache import CACHE, prepare

CHECKOUT = Path(__file__).parents[2]
BASES = CACHE / "bases"
SCRIPT = CHECKOUT / "overlay" / "usr" / "share" / "starphleet" / "starphleet-base"
ENV = {"PATH": os.environ["PATH"]}


def make_lxc(reactor: Any, root: Path, *, http_port: int = 8080) -> LxcRuntime:
    """A runtime whose containers are below `root`; what they share is beside it."""
    base("slim")
    home = root.parent / "lxc"
    home.mkdir(parents=True, exist_ok=True)
    share_bases(home)
    front = (IPv4Address("127.0.0.1"), http_port)
    return LxcRuntime(reactor, root, home=home, script=SCRIPT, env=ENV, front=front, main="slim")


def share_bases(home: Path) -> None:
    """Let the runtime that is at home there use the bases that are kept for tests."""
    if not (home / "bases").is_symlink():
        (home / "bases").symlink_to(BASES)


@functools.cache
def base(variant: str) -> None:
    """Have the provided base made, by one of all test processes."""
    prepare(BASES)
    with (CACHE / "bases.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        argv = [sys.executable, "-m", "tests.containers.lxc", variant]
        subprocess.run(argv, cwd=CHECKOUT, check=True)


async def _nobody(*_: object) -> Exit:
    raise NotImplementedError


if __name__ == "__main__":
    from twisted.internet.task import react

    def main(reactor: Any) -> Deferred[object]:
        bases = Bases(reactor, BASES, script=SCRIPT, provision=_nobody, env=ENV)
        return Deferred.fromCoroutine(bases.layers(Standard(sys.argv[1]), print))

    react(main)
