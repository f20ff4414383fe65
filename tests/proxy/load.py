"""Runs `hammer.py` beside a test."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from tests.proxy.reactor import reactor, until


class Load(ProcessProtocol):
    """Clients that hammer a target from `begin` to `end`."""

    def __init__(self) -> None:
        self.output = b""
        self.ended: Deferred[None] = Deferred()

    def outReceived(self, data: bytes) -> None:
        self.output += data

    def errReceived(self, data: bytes) -> None:
        self.output += data

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(None)

    async def begin(self, port: int, target: str, connections: int) -> None:
        script = str(Path(__file__).with_name("hammer.py"))
        argv = [sys.executable, script, str(port), target, str(connections)]
        reactor.spawnProcess(self, sys.executable, argv, env={})
        await until(lambda: b"hammering" in self.output, "clients to begin")

    async def end(self) -> tuple[list[tuple[float, str]], list[str]]:
        """The answers as (sent, container), and the failures."""
        assert self.transport is not None
        self.transport.closeStdin()
        await self.ended
        try:
            told: dict[str, Any] = json.loads(self.output.partition(b"hammering\n")[2])
        except ValueError:
            raise AssertionError(self.output[-2000:].decode()) from None
        return [(sent, name) for sent, name in told["answers"]], told["failures"]
