"""The pages of a ship on a real socket, and those who read them."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from attrs import define, field, frozen
from twisted.internet import reactor as the_reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from hooks.journal.journal import Journal
from hooks.layout import Layout
from hooks.settings import MB, Settings
from receiver.web import site
from receiver.web.peers import Peers
from receiver.web.site import Access, Pages
from receiver.web.stream import Logstream

reactor: Any = the_reactor
ANN = {"X-Starphleet-Owner": "ann"}
TOKEN = "a-token-of-the-phleet"
PATIENCE = 20.0  # seconds


@frozen
class Heard:
    """One event of a stream."""

    kind: str
    id: str
    said: dict[str, Any]

    @property
    def content(self) -> str:
        return str(self.said["content"])


@define
class Ear:
    """Reads a stream. Blocks: for a thread."""

    connection: http.client.HTTPConnection
    response: http.client.HTTPResponse
    beats: int = 0

    @property
    def status(self) -> int:
        return self.response.status

    def next(self) -> Heard:
        """The next event, whatever comments come before it."""
        fields: dict[str, str] = {}
        while line := self.response.readline().decode():
            name, _, value = line.rstrip("\n").partition(": ")
            if line == "\n" and "data" in fields:
                found = json.loads(fields["data"])
                return Heard(fields.get("event", ""), fields.get("id", ""), found)
            if line.startswith(":"):
                self.beats += 1
            fields[name] = value
        raise EOFError

    def lines(self, count: int) -> list[Heard]:
        """The next messages; what is said about the stream itself is passed over."""
        found: list[Heard] = []
        while len(found) < count:
            heard = self.next()
            found += [heard] if not heard.kind else []
        return found

    def __enter__(self) -> Ear:
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()

    def close(self) -> None:
        self.response.close()
        self.connection.close()


def connected(to: Path | int) -> http.client.HTTPConnection:
    """To a unix socket, or a port of the loopback."""
    connection = http.client.HTTPConnection("127.0.0.1", to if isinstance(to, int) else 0)
    if isinstance(to, int):
        connection.sock = socket.create_connection(("127.0.0.1", to), PATIENCE)
    else:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(PATIENCE)
        connection.sock.connect(str(to))
    return connection


def ear(to: Path | int, query: str = "", headers: Mapping[str, str] = ANN) -> Ear:
    """Somebody who reads the log stream. Blocks."""
    connection = connected(to)
    connection.request("GET", f"/starphleet/logstream{query}", headers=dict(headers))
    return Ear(connection, connection.getresponse())


@frozen
class Answer:
    status: int
    headers: Mapping[str, str]
    text: str


def ask(to: Path | int, path: str, method: str = "GET", **headers: str) -> Answer:
    """One request and its whole answer. Blocks."""
    connection = connected(to)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers=named)
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read().decode())
    finally:
        connection.close()


def aside(work: Any, *args: Any, **named: Any) -> Deferred[Any]:
    """Do what blocks in a thread."""
    return deferToThread(work, *args, **named)


@define(eq=False)
class Shore:
    """A ship as far as its log stream goes: a real journal, and the site on a socket and a port."""

    case: TestCase
    name: str = "here"
    peers: tuple[str, ...] = ()
    token: str = TOKEN
    roots: Path | None = None
    most: int = 500
    logs: int = 64 * MB
    root: Path = field(factory=lambda: Path(mkdtemp(prefix="web-")))
    journal: Journal = field(init=False)
    stream: Logstream = field(init=False)
    pages: Pages = field(init=False)
    port: int = 0
    _listening: list[Any] = field(factory=list)

    async def begin(self) -> Shore:
        layout = Layout(self.root)
        layout.prepare()
        self.journal = Journal(reactor, layout, Settings(logs=self.logs))
        await self.journal.open()
        peers = Peers(reactor, self.peers, self.token, self.roots) if self.peers else None
        self.stream = Logstream(reactor, self.journal, self.name, peers, self.most)
        access = Access(self.name, {"/starphleet/logstream": self.token})
        self.pages = Pages(access, {"logstream": self.stream})
        self._listening = [site.listen(reactor, self.socket, self.pages)]
        self.open()
        self.case.addCleanup(self.end)
        return self

    def open(self) -> None:
        """Listen on the port, the one it had."""
        port = reactor.listenTCP(self.port, self.pages, interface="127.0.0.1")
        self._listening.append(port)
        self.port = port.getHost().port

    async def close(self) -> None:
        """Be away: nothing listens on the port, and what was open is broken off."""
        await self._listening.pop().stopListening()
        self.pages.close()

    @property
    def socket(self) -> Path:
        return self.root / "pages" / "socket"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def write(self, *lines: str, service: str = "app") -> None:
        self.journal.write(service, f"{service}-0-1", "web", lines)

    async def settled(self, *lines: str, service: str = "app") -> None:
        """Write `lines`, and wait until they are in the journal."""
        before = self.journal.newest
        self.write(*lines, service=service)
        while self.journal.newest < before + len(lines):
            await self.journal.grown()

    async def ear(self, query: str = "", headers: Mapping[str, str] = ANN) -> Ear:
        heard: Ear = await aside(ear, self.socket, query, headers)
        self.case.addCleanup(heard.close)
        return heard

    async def alone(self) -> None:
        """Wait until nobody reads any more."""
        while self.stream.readers:
            await pause()

    async def end(self) -> None:
        for one in self._listening:
            await one.stopListening()
        self.pages.close()
        while self.pages.protocols:
            await pause()
        await self.journal.close()
        await aside(shutil.rmtree, self.root)


def pause() -> Deferred[None]:
    """One turn of the reactor, and a little."""
    waiting: Deferred[None] = Deferred()
    reactor.callLater(0.005, waiting.callback, None)
    return waiting
