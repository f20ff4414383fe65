"""Clients that speak plain HTTP to the proxy, byte for byte."""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from tests.proxy.reactor import reactor, until


@frozen
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.body)
        return value

    @property
    def text(self) -> str:
        return self.body.decode()


def fetch_now(
    port: int,
    target: str,
    *,
    host: str = "ship:8080",
    method: str = "GET",
    headers: Sequence[tuple[str, str]] = (),
    body: bytes | None = None,
    source: str = "127.0.0.1",
) -> Answer:
    """One request on a connection of its own from `source`, an address of the loopback; the target
    goes out byte for byte."""
    at = "::1" if ":" in source else "127.0.0.1"
    connection = http.client.HTTPConnection(at, port, timeout=20, source_address=(source, 0))
    connection._validate_path = lambda url: None  # type: ignore[attr-defined]
    connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
    connection.putheader("Host", host)
    for name, value in headers:
        connection.putheader(name, value)
    if body is not None:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    response = connection.getresponse()
    try:
        return Answer(response.status, response.msg, response.read())
    finally:
        connection.close()


def fetch(port: int, target: str, **options: Any) -> Deferred[Answer]:
    return deferToThread(fetch_now, port, target, **options)


class Client:
    """A raw TCP client in the test's own reactor."""

    def __init__(self, port: int) -> None:
        self.received = b""
        self.closed = False
        self.port = port
        self.wire: Any = None

    async def connect(self) -> Client:
        client = self

        class Raw(Protocol):
            def dataReceived(self, data: bytes) -> None:
                client.received += data

            def connectionLost(self, reason: Failure = connectionDone) -> None:
                client.closed = True

        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port)
        self.wire = (await connectProtocol(endpoint, Raw())).transport
        return self

    def send(self, text: str) -> None:
        self.wire.write(text.encode())

    async def ask(self, target: str, *headers: str, host: str = "ship:8080") -> None:
        if self.wire is None:
            await self.connect()
        lines = [f"GET {target} HTTP/1.1", f"Host: {host}", *headers]
        self.send("\r\n".join(lines) + "\r\n\r\n")

    async def receives(self, text: bytes) -> None:
        await until(lambda: text in self.received, f"{text!r} in {self.received[-300:]!r}")

    def close(self) -> None:
        if self.wire is not None:
            self.wire.abortConnection()
