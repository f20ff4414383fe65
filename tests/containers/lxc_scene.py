"""What the tests of LXC's isolation stand on: a runtime of their own, and the ways in which a
command comes into a container."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from containers.interface import Address, Container, Exit, Limits, Wish
from containers.lxc import cgroups, needs
from tests.containers.lxc import make_lxc

PYTHON = "/usr/bin/python3"
LIMITS = Limits(seconds=20)
TRY = """
import ctypes, errno, json, os, signal, socket, time
libc = ctypes.CDLL(None, use_errno=True)
NUMBERS = {numbers}
def call(name, *words):
    words = (NUMBERS[name], *words)
    done = libc.syscall(*(ctypes.c_long(word) if isinstance(word, int) else word for word in words))
    if done < 0:
        raise OSError(ctypes.get_errno(), "")
    return done
own = ctypes.create_string_buffer(8)
there = (ctypes.c_long * 2)(ctypes.addressof(own), 8)  # an iovec
ended = {{}}
for name, attempt in {{{attempts}}}.items():
    try:
        attempt()
        ended[name] = "done"
    except OSError as error:
        ended[name] = errno.errorcode.get(error.errno, str(error))
print(json.dumps(ended))
"""
# Of system calls, by machine; the newer ones are the same everywhere.
NEWER = {"clone3": 435, "io_uring_setup": 425, "fsopen": 430, "open_tree": 428}
NUMBERS = {
    "x86_64": dict(
        add_key=248, bpf=321, clone=56, finit_module=313, keyctl=250, mknodat=259, mount=165,
        open_by_handle_at=304, pivot_root=155, process_vm_readv=310, ptrace=101, reboot=169,
        setns=308, sethostname=170, syslog=103, umount2=166, unshare=272,
        userfaultfd=323, perf_event_open=298, init_module=175, kexec_load=246, swapon=167,
    ),
    "aarch64": dict(
        add_key=217, bpf=280, clone=220, finit_module=273, keyctl=219, mknodat=33, mount=40,
        open_by_handle_at=265, pivot_root=41, process_vm_readv=270, ptrace=117, reboot=142,
        setns=268, sethostname=161, syslog=116, umount2=39, unshare=97,
        userfaultfd=282, perf_event_open=241, init_module=105, kexec_load=104, swapon=224,
    ),
}[platform.machine()] | NEWER  # fmt: skip


def trying(attempts: str) -> tuple[str, ...]:
    """A command that prints how each of the attempts ends: `"name": lambda: …, …` in Python.

    It prints {"name": "done" or "EPERM" and the like}. There `call` makes a system call, by name,
    and `there` is an iovec.
    """
    return (PYTHON, "-c", TRY.format(attempts=attempts, numbers=NUMBERS))


def left_of(tag: str) -> list[str]:
    """Interfaces, cgroups and tables that begin with the tag of a runtime."""
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout
    places = [Path("/sys/class/net"), *cgroups.of_this_host(tag).roots]
    found = [str(path) for place in places for path in place.glob(f"{tag}*")]
    return [*found, *(line for line in tables.splitlines() if tag in line)]


@pytest.mark.skipif(bool(needs.missing()), reason="this host has no LXC")
class LxcScene(TestCase):
    """A runtime in a directory that everybody on the host may look into."""

    timeout = 60
    http_port = 8080

    async def setUp(self) -> None:  # type: ignore[override]
        self.place = Path(tempfile.mkdtemp(prefix="lxc-", dir="/var/tmp"))
        self.place.chmod(0o755)
        self.addCleanup(shutil.rmtree, self.place)
        self.runtime = make_lxc(reactor, self.place / "root", http_port=self.http_port)
        self.addCleanup(self.end_everything)
        self.secret = f"s{uuid.uuid4().hex}"
        self.log = self.place / "log"

    async def end_everything(self) -> None:
        await self.runtime.sweep(set())
        await self.runtime.leave()
        await self.until(lambda: not left_of(self.runtime.plan.tag))

    async def make(self, name: str, *, ordered: bool = True) -> Container:
        return await self.runtime.containerize(name, Wish(ordered=ordered))

    async def run_in(self, container: Container, *argv: str, **given: Any) -> tuple[Exit, str]:
        """Run one command: alone as a build does, or beside the service if that runs."""
        out = bytearray()
        given = {"env": {}, "limits": LIMITS, **given}
        exit = await self.runtime.run(container, argv, output=out.extend, **given)
        return exit, out.decode()

    async def serve(self, container: Container, *argv: str, **given: Any) -> Address:
        given = {"env": {}, "limits": Limits(), "log": self.log, **given}
        return await self.runtime.start(container, argv, **given)

    async def serve_to_end(
        self, container: Container, *argv: str, **given: Any
    ) -> tuple[Exit, str]:
        """A service that ends by itself, and what it wrote."""
        self.log.unlink(missing_ok=True)
        await self.serve(container, *argv, **given)
        exit = await self.runtime.exited(container)
        return exit, self.log.read_text()

    async def everywhere(self, container: Container, *argv: str) -> Mapping[str, tuple[Exit, str]]:
        """How a command ends and what it says as a build, as the service, and beside that."""
        found = {"build": await self.run_in(container, *argv)}
        found["service"] = await self.serve_to_end(container, *argv)
        await self.serve(container, "sleep", "60")
        found["beside"] = await self.run_in(container, *argv)
        await self.runtime.stop(container, grace=0)
        return found

    async def attempt(self, container: Container, attempts: str, **given: Any) -> dict[str, str]:
        """How each of the attempts ended, see `trying`."""
        exit, out = await self.run_in(container, *trying(attempts), **given)
        self.assertTrue(exit.ok, out)
        found: dict[str, str] = json.loads(out)
        return found

    async def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            self.assertLess(time.monotonic(), deadline, "waited too long")
            await deferLater(reactor, 0.01)
