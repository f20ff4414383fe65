"""One small server as a process of its own and in a runtime's containers, and who waits for it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from containers.interface import Address, Container, Limits, Runtime
from containers.lxc.runtime import LxcRuntime
from containers.process import ProcessRuntime
from containers.watching import in_thread
from tests.bench.flask import answers
from tests.containers.lxc import make_lxc
from tests.ports import free_port

PYTHON = "/usr/bin/python3"  # the distribution's own, which the base has too
LIMITS = Limits(memory=512 << 20, processes=512, files=4096)
PATIENCE = 120.0  # seconds for what is waited for
MB = 2**20

# An answer is one write: else the client's delayed acknowledgement is what is measured.
SERVER = """
import http.server, os
class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version, wbufsize = "HTTP/1.1", -1
    def do_GET(self):
        if self.path == "/work": sum(range(100_000))
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answer).serve_forever()
"""

Samples = dict[str, list[float]]


async def runtimes(reactor: Any, home: Path) -> tuple[LxcRuntime, ProcessRuntime]:
    """Both below `home`; what they start and set up ends with the reactor, however it does."""
    lxc = await in_thread(reactor, make_lxc, reactor, home / "lxc" / "containers")
    ports = range(22000, 22100)
    process = ProcessRuntime(reactor, home / "process" / "containers", ports=ports, sandbox=True)

    async def end() -> None:
        for runtime in (lxc, process):
            await runtime.sweep(set())
            await runtime.leave()

    reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(end()))
    return lxc, process


def lay(container: Container, script: str = SERVER) -> None:
    """The app: one script, for whoever runs it."""
    (container.app / "server.py").write_text(script)
    (container.app / "server.py").chmod(0o644)


async def serve(
    runtime: Runtime, container: Container, log: Path, limits: Limits = LIMITS
) -> Address:
    """Start what was laid there."""
    argv = [PYTHON, "server.py"]
    return await runtime.start(container, argv, env={}, log=log, limits=limits)


def bare(server: Path, port: int) -> subprocess.Popen[bytes]:
    """The server as a process of its own."""
    nowhere = subprocess.DEVNULL
    env = {"PORT": str(port), "PATH": os.defpath}
    return subprocess.Popen([PYTHON, str(server)], env=env, stdout=nowhere, stderr=nowhere)


def bare_start(server: Path) -> float:
    """Seconds from its start to its first answer."""
    port = free_port()
    began = time.monotonic()
    process = bare(server, port)
    try:
        first_answer(Address("127.0.0.1", port))
        return time.monotonic() - began
    finally:
        process.kill()
        process.wait()


def many_bare(server: Path, count: int) -> tuple[float, list[float]]:
    """Seconds until so many at once answer, and the MB of each."""
    ports = [free_port() for _ in range(count)]
    began = time.monotonic()
    processes = [bare(server, port) for port in ports]
    try:
        all_answer([Address("127.0.0.1", port) for port in ports])
        return time.monotonic() - began, [proportional(one.pid) for one in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def all_answer(addresses: Sequence[Address]) -> None:
    for address in addresses:
        first_answer(address)


def first_answer(address: Address) -> None:
    """Returns when somebody answers HTTP there."""
    wait_for(lambda: answers(address.port, address.host), f"{address} answers", 0.001)


def wait_for(condition: Callable[[], bool], what: str, pause: float = 0.01) -> None:
    """Blocks until `condition`, which is asked every `pause` seconds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {PATIENCE:g} s")
        time.sleep(pause)


def proportional(pid: int) -> float:
    """MB of a process, of what it shares its part."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"process {pid} is gone")
