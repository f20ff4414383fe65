"""A real nginx for each test, and what the test puts behind it."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.trial.unittest import TestCase

from proxy.engine import Patience
from proxy.instance import Instance
from proxy.nginx import Proxy
from proxy.protection import Protection
from proxy.routes import Backend, Route
from tests.ports import free_port
from tests.proxy.app import App
from tests.proxy.client import Answer, Client, fetch
from tests.proxy.reactor import reactor, run, until

OF_THE_PROXY = ("run", "operator", "patience", "search")  # options; others are of its instance


def route(name: str, *hosts: str) -> Route:
    return Route(name, hosts or (f"{name}.localhost",), f"/~{name}/")


def public(table: Mapping[Route, Backend]) -> dict[Route, tuple[Backend, Protection]]:
    """A table of services that anybody may use."""
    return {leading: (backend, Protection()) for leading, backend in table.items()}


class ProxyCase(TestCase):
    """Gives each test a prefix and a port, and ends what the test started."""

    timeout = 60.0

    def setUp(self) -> None:
        self.prefix = Path(tempfile.mkdtemp(prefix="proxy-"))
        self.addCleanup(shutil.rmtree, self.prefix)
        self.port = free_port()
        self.reactor: IReactorTime = reactor

    def proxy(self, **options: Any) -> Proxy:
        """A proxy on this test's prefix and port; its nginx ends with the test."""
        given: dict[str, Any] = {
            "run": run,
            "patience": Patience(verify=20.0, stop=2.0, parting=0.02, apart=0.0),
            "port": self.port,
            "bind": "127.0.0.1",
            "ship": "enterprise.example",
            "workers": 2,
            **options,
        }
        own = {name: given.pop(name) for name in OF_THE_PROXY if name in given}
        proxy = Proxy(self.reactor, Instance(self.prefix, **given), **own)
        self.addCleanup(self.stop, proxy)
        return proxy

    async def stop(self, proxy: Proxy) -> None:
        await proxy.stop()

    async def started(self, *apps: App, **options: Any) -> Proxy:
        """A started proxy that has each app at `NAME.localhost` and `/~NAME/`."""
        proxy = self.proxy(**options)
        refused = await proxy.start(public({route(app.name): app.backend for app in apps}))
        self.assertEqual(refused, {})
        return proxy

    def app(self, name: str, port: int = 0) -> App:
        app = App(name).listen(port)
        self.addCleanup(self.close, app)
        return app

    async def close(self, app: App) -> None:
        await maybeDeferred(app.listening.stopListening)  # closed already: None
        for wire in list(app.wires):
            wire.abort()
        await until(lambda: not app.wires, "connections of the app to end")

    async def master(self) -> int:
        """The pid of this test's nginx master."""
        return int((self.prefix / "nginx.pid").read_text())

    async def workers(self) -> set[int]:
        """The pids of its workers."""
        return {child.pid for child in psutil.Process(await self.master()).children()}

    def generation(self) -> int:
        """The number of the configuration that is current."""
        return int((self.prefix / "current").readlink().name)

    def kill(self, pid: int) -> None:
        """End a process of this test's nginx as a crash would."""
        os.kill(pid, signal.SIGKILL)

    async def client(self) -> Client:
        client = await Client(self.port).connect()
        self.addCleanup(until, lambda: client.closed, "client to close")
        self.addCleanup(client.close)
        return client

    def fetch(self, target: str, *, at: int | None = None, **options: Any) -> Deferred[Answer]:
        return fetch(at or self.port, target, **options)
