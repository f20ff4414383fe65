"""What neighbours do to a service: bad ones within their limits, and those that come and go."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, product
from pathlib import Path
from threading import Event
from typing import Any

from attrs import frozen

from containers.interface import Address, Container, Limits, Runtime, Wish
from containers.watching import in_thread
from tests.bench.serving import PATIENCE, Samples, first_answer, lay, runtimes, serve, wait_for

ROUNDS, COMING = 7, 20
LOADED = 1.0  # seconds under load for one p99


@frozen
class Load:
    """So many clients that ask for `path`, each without a pause."""

    clients: int
    path: str


# What works for each answer takes some milliseconds of a CPU, as an app does.
LOADS = {"4 ask for work": Load(4, "/work"), "1 asks for nothing": Load(1, "/")}
# Each says "at work" once it does its worst, and goes on with that.
ROUGH = {
    "fork bomb": """
import os
first, said = os.getpid(), False
while True:
    try: os.fork()
    except OSError:
        if os.getpid() == first and not said:
            said = True; print("at work", flush=True)
""",
    "memory hog": """
import os
while True:
    child = os.fork()
    if child == 0:
        held = []
        while True: held.append(bytearray(b"x") * (1 << 20))
    os.waitpid(child, 0); print("at work", flush=True)
""",
    "disk filler": """
import os
while True:
    try:
        with open("/app/filled", "wb", buffering=0) as file:
            while True: file.write(bytes(1 << 20)); os.fsync(file.fileno())
    except OSError:
        print("at work", flush=True); os.unlink("/app/filled")
""",
}
ROUGH_LIMITS = Limits(memory=256 << 20, processes=128, cpus=1.0)
ROUGH_DISK = 64 << 20


async def beside(reactor: Any, home: Path) -> Samples:
    """The p99 of a service under load, beside each of `ROUGH`, and alone just before; and its
    slowest answer while others come and go."""
    lxc, _ = await runtimes(reactor, home)
    service = await lxc.containerize("service")
    lay(service)
    address = await serve(lxc, service, home / "log")
    await in_thread(reactor, first_answer, address)
    found: Samples = {}

    async def measure(name: str) -> None:
        for load, of in LOADS.items():
            seconds = await in_thread(reactor, p99, address, of)
            found.setdefault(f"{name}, {load}", []).append(seconds)

    for _, name in product(range(ROUNDS), ROUGH):
        await measure(f"{name} alone")
        rough = await at_work(reactor, lxc, name, home / "rough")
        await measure(name)
        await lxc.destroy(rough)
    found["slowest"] = [await slowest(reactor, lxc, address, home / "others")]
    return found


async def slowest(reactor: Any, runtime: Runtime, address: Address, log: Path) -> float:
    """The most seconds that a service takes to answer while others start and end."""
    over = Event()
    asking = in_thread(reactor, asked, address, "/", over.is_set)
    try:
        for number in range(COMING):
            other = await runtime.containerize(f"other{number}")
            lay(other)
            await serve(runtime, other, log)
            await runtime.destroy(other)
    finally:
        over.set()
        taken = await asking
    return max(taken)


async def at_work(reactor: Any, runtime: Runtime, name: str, log: Path) -> Container:
    """A neighbour within limits, which does its worst by now."""
    container = await runtime.containerize("rough", Wish(disk=ROUGH_DISK))
    lay(container, ROUGH[name])
    await in_thread(reactor, log.unlink, missing_ok=True)
    await serve(runtime, container, log, ROUGH_LIMITS)
    what = f"the {name} is at work"
    await in_thread(reactor, wait_for, lambda: "at work" in log.read_text(), what)
    return container


def p99(address: Address, load: Load) -> float:
    """The seconds that 99 of a hundred requests stay below."""
    end = time.monotonic() + LOADED

    def ask(_: int) -> list[float]:
        return asked(address, load.path, lambda: time.monotonic() > end)

    with ThreadPoolExecutor(load.clients) as pool:
        taken = sorted(chain.from_iterable(pool.map(ask, range(load.clients))))
    return taken[len(taken) * 99 // 100]


def asked(address: Address, path: str, over: Callable[[], bool]) -> list[float]:
    """The seconds of one request after another over one connection."""
    taken = []
    request = f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()
    with socket.create_connection((address.host, address.port), PATIENCE) as connection:
        while not over():
            began = time.monotonic()
            connection.sendall(request)
            said = b""
            while not said.endswith(b"hello"):
                chunk = connection.recv(4096)
                if not chunk:
                    raise AssertionError(f"{address} hung up")
                said += chunk
            taken.append(time.monotonic() - began)
    return taken
