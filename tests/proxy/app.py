"""A tiny HTTP/1.1 service that shows what it was asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from attrs import define, evolve, field, frozen
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from proxy.routes import Backend
from tests.proxy.reactor import reactor


class Wire(Protocol):
    """One connection to the app. Each request is answered by `App.answer`, bodies are counted."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.buffer = b""
        self.requests = 0
        self.raw = False
        self.asked: Request | None = None

    def connectionMade(self) -> None:
        self.app.wires.append(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.app.wires.remove(self)
        self.app.lost += 1

    def send(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def close(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()

    def abort(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()

    def reply(self, body: bytes, *headers: str, status: str = "200 OK") -> None:
        head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
        self.send("\r\n".join(head).encode() + b"\r\n\r\n" + body)

    def dataReceived(self, data: bytes) -> None:
        if self.raw:
            self.send(data)
            return
        self.buffer += data
        while not self.raw and self.buffer:
            if self.asked is None:
                head, end, rest = self.buffer.partition(b"\r\n\r\n")
                if not end:
                    return
                self.asked, self.buffer = parsed(head), rest
            taken = min(len(self.buffer), self.asked.length - self.asked.body)
            self.buffer = self.buffer[taken:]
            self.asked = evolve(self.asked, body=self.asked.body + taken)
            if self.asked.body == self.asked.length:
                asked, self.asked = self.asked, None
                self.requests += 1
                self.app.answer(self, asked)


@frozen
class Request:
    method: str
    target: str
    headers: list[tuple[str, str]]
    length: int
    body: int = 0

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


def parsed(head: bytes) -> Request:
    lines = head.decode("latin-1").split("\r\n")
    pairs = [line.partition(": ") for line in lines[1:]]
    headers = [(name, value) for name, _, value in pairs]
    length = int({name.lower(): value for name, value in headers}.get("content-length", 0))
    method, target, _ = lines[0].split(" ", 2)
    return Request(method, target, headers, length)


@define
class App(Factory):
    """A service: says what it was asked, holds /hold until let go, and a few odd things."""

    name: str
    port: int = 0
    wires: list[Wire] = field(factory=list)
    held: list[Wire] = field(factory=list)
    lost: int = 0
    listening: Any = None
    proxy: Any = None

    def buildProtocol(self, addr: object) -> Wire:
        return Wire(self)

    def listen(self, port: int = 0) -> App:
        self.listening = reactor.listenTCP(port, self, interface="127.0.0.1")
        self.port = self.listening.getHost().port
        return self

    def listen_at(self, path: Path) -> App:
        self.listening = reactor.listenUNIX(str(path), self, mode=0o666)
        return self

    @property
    def backend(self) -> Backend:
        return Backend(self.name, "127.0.0.1", self.port)

    def answer(self, wire: Wire, request: Request) -> None:
        path = request.target.partition("?")[0]
        odd = getattr(self, f"on_{path.strip('/').replace('-', '_')}", None)
        if odd is not None:
            odd(wire, request)
            return
        said = {
            "app": self.name,
            "method": request.method,
            "target": request.target,
            "headers": request.headers,
            "body": request.body,
        }
        wire.reply(json.dumps(said).encode(), "Content-Type: application/json")

    def on_hold(self, wire: Wire, request: Request) -> None:
        self.held.append(wire)

    def let_go(self) -> None:
        for wire in self.held:
            wire.reply(b"let go")
        self.held.clear()

    def on_socket(self, wire: Wire, request: Request) -> None:
        wire.raw = True
        upgrade = request.all("upgrade")[0]
        wire.send(
            f"HTTP/1.1 101 Switching\r\nUpgrade: {upgrade}\r\nConnection: upgrade\r\n\r\n".encode()
        )

    def on_events(self, wire: Wire, request: Request) -> None:
        """A stream without chunks: a proxy that gathers would hold it back."""
        wire.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
        )
        self.held.append(wire)

    def on_flow(self, wire: Wire, request: Request) -> None:
        """A stream that says itself that it is not to be gathered."""
        wire.send(b"HTTP/1.1 200 OK\r\nX-Accel-Buffering: no\r\nConnection: close\r\n\r\n")
        self.held.append(wire)

    def on_cookies(self, wire: Wire, request: Request) -> None:
        wire.reply(b"taken", "Set-Cookie: app=1")

    def on_count(self, wire: Wire, request: Request) -> None:
        wire.reply(str(wire.requests).encode(), "Content-Type: text/plain")

    def on_hsts(self, wire: Wire, request: Request) -> None:
        wire.reply(b"", "Strict-Transport-Security: max-age=1")

    def on_private(self, wire: Wire, request: Request) -> None:
        wire.reply(b"mine", "Cache-Control: private")

    def on_sharing(self, wire: Wire, request: Request) -> None:
        wire.reply(
            b"{}",
            "Access-Control-Allow-Origin: https://the.app",
            "Access-Control-Allow-Credentials: true",
        )

    def on_break(self, wire: Wire, request: Request) -> None:
        wire.close()

    def on_fail(self, wire: Wire, request: Request) -> None:
        wire.reply(b"my own words", status="503 Mine")

    def on_text(self, wire: Wire, request: Request) -> None:
        wire.reply(b"all work and no play " * 500, "Content-Type: text/css")

    def on_image(self, wire: Wire, request: Request) -> None:
        wire.reply(b"all work and no play " * 500, "Content-Type: image/png")

    def on_once(self, wire: Wire, request: Request) -> None:
        """Answers the first request of a connection, and drops the second unread."""
        if wire.requests > 1:
            wire.close()
        else:
            wire.reply(b"first of its connection")

    def on_escape(self, wire: Wire, request: Request) -> None:
        wire.reply(b"stayed", "X-Accel-Redirect: /~other/secret", "X-Starphleet-Container: fake")
