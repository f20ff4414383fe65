"""A real ACME server (pebble) on loopback, for which every name leads to this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import psutil
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.web.resource import Resource
from twisted.web.server import Site

from proxy.certificates import self_made
from tests.ports import free_port
from tests.proxy.reactor import reactor, until

NEEDED = ("pebble", "pebble-challtestsrv")


class Program(ProcessProtocol):
    """A program that runs beside a test; `said` is what it wrote."""

    def __init__(self, *argv: str, **env: str) -> None:
        self.said = ""
        self.ended: Deferred[None] = Deferred()
        path = {"PATH": os.environ["PATH"]}
        self.process = reactor.spawnProcess(self, argv[0], argv, {**path, **env})

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self.said += data.decode(errors="replace")

    def processEnded(self, reason: Any) -> None:
        self.ended.callback(None)

    def listens(self, port: int) -> bool:
        """Whether it takes connections on `port`."""
        assert not self.ended.called, self.said
        found = psutil.Process(self.process.pid).net_connections("tcp")
        return any(each.status == "LISTEN" and each.laddr.port == port for each in found)

    async def end(self) -> None:
        if not self.ended.called:
            self.process.signalProcess("KILL")
        await self.ended


class Pebble:
    """The server, its DNS, and where it looks for what shows that a name is ours."""

    def __init__(self, directory: Path, web: int) -> None:
        self.directory, self.web = directory, web
        self.roots = directory / "roots.pem"
        self.programs: list[Program] = []
        self.port = free_port()
        self.server = f"https://127.0.0.1:{self.port}/dir"

    async def start(self, **env: str) -> None:
        dns, management = free_port(), free_port()
        made = self_made(["127.0.0.1"], reactor.seconds())
        self.roots.write_bytes(made.chain)
        key = self.directory / "pebble.key"
        key.write_bytes(made.key)
        settings = {
            "listenAddress": f"127.0.0.1:{self.port}",
            "managementListenAddress": "",
            "certificate": str(self.roots),
            "privateKey": str(key),
            "httpPort": self.web,
            "tlsPort": 1,
        }
        config = self.directory / "pebble.json"
        config.write_text(json.dumps({"pebble": settings}))
        names = Program(
            *("pebble-challtestsrv", "-defaultIPv6", "", "-dns01", f"127.0.0.1:{dns}"),
            *("-management", f"127.0.0.1:{management}"),
            *("-http01", "", "-https01", "", "-tlsalpn01", ""),
        )
        given = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0"}
        server = Program(
            *("pebble", "-config", str(config), "-dnsserver", f"127.0.0.1:{dns}"),
            **{**given, **env},
        )
        self.programs += [names, server]
        await until(lambda: names.listens(dns), "the test's DNS to listen")
        await until(lambda: server.listens(self.port), "pebble to listen")

    @property
    def said(self) -> str:
        return self.programs[-1].said

    async def stop(self) -> None:
        for program in self.programs:
            await program.end()


class Shown(Resource):
    """Serves what is in a directory below /.well-known/acme-challenge/, and counts requests."""

    isLeaf = True

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory
        self.asked: list[str] = []

    def render_GET(self, request: Any) -> bytes:
        start, token = request.path.decode().rsplit("/", 1)
        self.asked.append(request.getRequestHostname().decode())
        file: Path = self.directory / token
        if start != "/.well-known/acme-challenge" or not file.is_file():
            request.setResponseCode(404)
            return b"\x1b[2Jnothing\nhere"
        return file.read_bytes()


def served(shown: Shown) -> Any:
    """The port on which `shown` is served."""
    return reactor.listenTCP(0, Site(shown), interface="127.0.0.1")
