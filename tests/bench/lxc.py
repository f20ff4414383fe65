"""A process that starts containers as a ship does, and tells what that takes.

`python -m tests.bench.lxc PART HOME`, with a part of `PARTS`: one JSON object of lists of samples.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react
from twisted.python.failure import Failure

from containers.interface import Exit, Runtime
from containers.lxc.bases import Bases, Standard
from containers.lxc.runtime import LxcRuntime
from containers.lxc.worker import Worker
from containers.watching import in_thread
from tests.bench.neighbours import beside
from tests.bench.serving import (
    MB,
    SERVER,
    Samples,
    all_answer,
    bare_start,
    first_answer,
    lay,
    many_bare,
    proportional,
    runtimes,
    serve,
)
from tests.containers.lxc import ENV, SCRIPT

STARTS, MANY = 25, 100


async def starts(reactor: Any, home: Path) -> Samples:
    """The same server bare, in bubblewrap and in LXC, in turn; seconds to its first answer."""
    lxc, process = await runtimes(reactor, home)
    server = await in_thread(reactor, written, home)
    found: Samples = {}
    for number in range(STARTS + 1):
        taken = {"bare": await in_thread(reactor, bare_start, server)}
        for runtime in (process, lxc):
            taken |= await started(reactor, runtime, f"{runtime.name}{number}", home / "log")
        if number:  # the first finds nothing in memory
            for name, seconds in taken.items():
                found.setdefault(name, []).append(seconds)
    return found


async def started(reactor: Any, runtime: Runtime, name: str, log: Path) -> dict[str, float]:
    """Seconds to make a container, until its start returns, until it answers, and to its end."""
    making = time.monotonic()
    container = await runtime.containerize(name)
    made = time.monotonic()
    lay(container)
    starting = time.monotonic()
    address = await serve(runtime, container, log)
    begun = time.monotonic()
    await in_thread(reactor, first_answer, address)
    stopping = time.monotonic()
    await runtime.stop(container, grace=5)
    stopped = time.monotonic()
    await runtime.destroy(container)
    kind = runtime.name
    return {
        f"{kind} made": made - making,
        f"{kind} begun": begun - starting,
        f"{kind} answered": stopping - starting,
        f"{kind} stopped": stopped - stopping,
    }


async def many(reactor: Any, home: Path) -> Samples:
    """As many containers started at once; beside that, as many bare processes."""
    lxc, _ = await runtimes(reactor, home)
    log = home / "log"
    await started(reactor, lxc, "first", log)
    containers = [await lxc.containerize(f"many{number}") for number in range(MANY)]
    for container in containers:
        lay(container)
    free = psutil.virtual_memory().available
    began = time.monotonic()
    starting = [Deferred.fromCoroutine(serve(lxc, one, log)) for one in containers]
    await in_thread(reactor, all_answer, await gatherResults(starting))
    answered = time.monotonic() - began
    inside, monitors = zip(*(memory(lxc, one.name) for one in containers), strict=True)
    less = free - psutil.virtual_memory().available
    ending = time.monotonic()
    await gatherResults([Deferred.fromCoroutine(lxc.destroy(one)) for one in containers])
    ended = time.monotonic() - ending
    server = await in_thread(reactor, written, home)
    bare, each = await in_thread(reactor, many_bare, server, MANY)
    return {
        "answered": [answered], "inside": list(inside), "monitors": list(monitors),
        "host": [less / MANY / MB], "ended": [ended], "bare": [bare], "bare each": each,
    }  # fmt: skip


async def bases(reactor: Any, home: Path) -> Samples:
    """Each variant of the provided base made from nothing: its seconds, and its MB."""
    found: Samples = {}
    making = Bases(reactor, home / "made", script=SCRIPT, provision=_nobody, env=ENV)
    for variant in ("slim", "full"):
        began = time.monotonic()
        (layer,) = await making.layers(Standard(variant), lambda line: None)
        found[variant] = [time.monotonic() - began]
        found[f"{variant} MB"] = [await Worker(reactor).size(layer) / MB]
        await in_thread(reactor, shutil.rmtree, layer.parent)
    return found


PARTS: dict[str, Callable[[Any, Path], Awaitable[Samples]]] = {
    "starts": starts,
    "many": many,
    "bases": bases,
    "beside": beside,
}


def written(home: Path) -> Path:
    """The server, for who runs it bare."""
    server = home / "server.py"
    server.write_text(SERVER)
    return server


def memory(runtime: LxcRuntime, name: str) -> tuple[float, float]:
    """MB that the kernel has down for a container, and of the monitor that looks after it."""
    directory = runtime.cgroups.directory("memory", name)
    names = ("memory.usage_in_bytes", "memory.current")
    used = next(directory / one for one in names if (directory / one).exists())
    monitors = sum(proportional(one.pid) for one in runtime.cgroups.monitors(name))
    return int(used.read_text()) / MB, monitors


async def _nobody(*_: object) -> Exit:
    raise NotImplementedError


def main(reactor: Any, part: str, home: str) -> Deferred[None]:
    async def told() -> None:
        print(json.dumps(await PARTS[part](reactor, Path(home))), flush=True)

    def show(failure: Failure) -> Failure:
        failure.printTraceback()
        return failure

    return Deferred.fromCoroutine(told()).addErrback(show)


if __name__ == "__main__":
    react(main, sys.argv[1:], _reactor)
