"""A ship that was killed, with ten services, starts again."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import psutil

from tests.bench.flask import answers
from tests.bench.measure import Figure, Line, alternate, seconds
from tests.bench.scene import Scene
from tests.ports import free_port
from tests.voyages.apps import web

SERVICES = 10
ROUNDS = 3


def start(scene: Scene) -> Iterator[Line]:
    """From its start until it takes pushes and all services answer; nothing is built."""
    harbour = scene.harbour
    urls = []
    for number in range(SERVICES):
        name = f"start{number}"
        urls.append(harbour.app(web(name), name).push(name).url)
    directory = harbour.home / "start0"

    def started() -> float:
        def up() -> None:
            harbour.up()
            while not all(harbour.get(url).status == 200 for url in urls):
                time.sleep(0.005)

        return seconds(up)

    def after_a_kill() -> float:
        harbour.kill()
        return started()

    def after_a_power_cut() -> float:
        harbour.kill()
        ended = of_the_ship(str(harbour.root))
        for process in ended:
            process.kill()
        psutil.wait_procs(ended, timeout=10)
        return started()

    def bare() -> float:
        return ten_bare(directory / "server.py")

    killed = Figure(tuple(after_a_kill() for _ in range(ROUNDS)))
    yield Line("ship killed, start until all 10 services answer", killed)
    cut, alone = alternate(ROUNDS, after_a_power_cut, bare)
    yield Line("all killed, start until all answer : 10 bare processes", cut, alone)


def of_the_ship(root: str) -> list[psutil.Process]:
    """Services and nginx of the ship in `root`: by their environment, or by its path in argv."""
    found = []
    for process in psutil.process_iter():
        try:
            marked = any(value.startswith(root) for value in process.environ().values())
            if marked or any(root in word for word in process.cmdline()):
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    return found


def ten_bare(server: object) -> float:
    """Seconds until as many processes of the same app answer, started at once by themselves."""
    ports = [free_port() for _ in range(SERVICES)]
    began = time.monotonic()
    processes = [
        subprocess.Popen(
            [sys.executable, str(server)],
            env={"PORT": str(port)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for port in ports
    ]
    try:
        while not all(answers(port) for port in ports):
            time.sleep(0.005)
        return time.monotonic() - began
    finally:
        for process in processes:
            process.kill()
            process.wait()
