"""500 MB in one push against sshd: nearby, at a distance, and into something slow."""

from __future__ import annotations

import itertools
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.bench.distance import distance
from tests.bench.measure import Figure, Line, alternate, ratio, seconds, under
from tests.bench.scene import Scene
from tests.voyages.harbour import App

MB = 10**6
FILES, FILE = 2000, MB // 4  # so many that the ship keeps the pack instead of unpacking it
NEAR, FAR = 5, 2  # rounds
AWAY = 25.0  # milliseconds each way
RUNS, RESTS = 0.005, 0.020  # seconds: a disk of about a fifth of the speed
UNKNOWN = ("-o", "measure")  # an option no ship knows: refused when all is received and indexed
MEMORY = under(64, "MB")


def big(scene: Scene) -> Iterator[Line]:
    """Both receive, index and check all of it, and then refuse: nothing is kept, nothing built."""
    app = half_a_gigabyte(scene)
    bare = scene.bare("big")
    refuse = bare / "hooks" / "pre-receive"
    refuse.write_text("#!/bin/sh\nexit 1\n")
    refuse.chmod(0o755)

    def to_ship(port: int) -> float:
        return seconds(
            lambda: scene.push(app, scene.at_ship("big"), "master", *UNKNOWN, port=port, fails=True)
        )

    def to_sshd(port: int) -> float:
        where = scene.at_sshd(bare)
        return seconds(lambda: scene.push(app, where, "master", *UNKNOWN, port=port, fails=True))

    ship, sshd = scene.harbour.ssh_port, scene.sshd_port
    process = scene.harbour.ship
    idle = process.memory_info().rss
    with peak_growth(process, idle) as grown:
        ours, theirs = alternate(NEAR, lambda: to_ship(ship), lambda: to_sshd(sshd), warm=False)
    yield Line("push of 500 MB : to sshd, bare repository", ours, theirs, ratio(1.05))
    yield Line("  memory that the ship took for it", Figure((grown[0],), "MB"), None, MEMORY)
    with distance(ship, AWAY) as far_ship, distance(sshd, AWAY) as far_sshd:
        ours, theirs = alternate(
            FAR, lambda: to_ship(far_ship), lambda: to_sshd(far_sshd), warm=False
        )
    yield Line("push of 500 MB, 50 ms away : to sshd", ours, theirs, ratio(1.05))
    with peak_growth(process, idle) as grown, slow_index_pack(process):
        slow = Figure((to_ship(ship),))
    yield Line("push of 500 MB, git running a fifth of the time", slow)
    yield Line("  memory that the ship took for it", Figure((grown[0],), "MB"), None, MEMORY)


def half_a_gigabyte(scene: Scene) -> App:
    """A repository of 500 MB of noise in one pack, which a push sends as it lies there."""
    app = scene.harbour.app({"README": "noise\n"}, "big")
    for name, value in (("core.compression", "0"), ("pack.window", "0"), ("gc.auto", "0")):
        app.git("config", name, value)
    noise = random.Random(500)
    for number in range(FILES):
        (app.path / f"noise{number}").write_bytes(noise.randbytes(FILE))
    app.commit({})
    app.git("repack", "-q", "-a", "-d")
    return app


@contextmanager
def peak_growth(process: psutil.Process, idle: int) -> Iterator[list[float]]:
    """Gives a list; after the block it holds by how many MB the process was above `idle` bytes."""
    grown: list[float] = []
    directory = Path(f"/proc/{process.pid}")
    (directory / "clear_refs").write_text("5")  # the peak is counted anew, see proc(5)
    yield grown
    status = (directory / "status").read_text()
    (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    grown.append((int(peak) * 1024 - idle) / MB)


@contextmanager
def slow_index_pack(ship: psutil.Process) -> Iterator[None]:
    """Let the git that indexes packs for the ship run in short turns, as if its disk were slow."""
    over, stops = threading.Event(), itertools.count()
    holding = threading.Thread(target=_hold, args=(ship, over, stops))
    holding.start()
    try:
        yield
    finally:
        over.set()
        holding.join()
    if next(stops) < 100:
        raise AssertionError("git was not slowed: its process was not found")


def _hold(ship: psutil.Process, over: threading.Event, stops: Iterator[int]) -> None:
    while not over.wait(0.01):
        for git in _index_packs(ship):
            while not over.is_set() and _signal(git, signal.SIGSTOP):
                next(stops)
                over.wait(RESTS)
                _signal(git, signal.SIGCONT)
                over.wait(RUNS)


def _signal(git: psutil.Process, number: signal.Signals) -> bool:
    try:
        git.send_signal(number)
        return git.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _index_packs(ship: psutil.Process) -> list[psutil.Process]:
    found = []
    for process in ship.children(recursive=True):
        try:
            if "index-pack" in process.cmdline():
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found
