"""Whether a ship does what it is there for, as those see it who reach it from outside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attrs import frozen
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, UNIXClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from hooks.errors import ShipError

SECONDS = 10.0  # for one answer
PATIENCE = 15.0  # seconds that services have to answer as before
PULSE = 0.25
SERVICES = 5  # whose routes are looked at
_MOST = 8 << 20  # bytes of an answer
_BANNER = b"SSH-2.0-"


@frozen
class Place:
    """Where something listens."""

    host: str
    port: int

    @classmethod
    def of(cls, bind: str, port: int) -> Place:
        """Where to reach, from here, what is bound there."""
        host = bind.strip("[]")
        anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not bound by us
        return cls(anywhere.get(host, host), port)

    @classmethod
    def read(cls, text: str) -> Place:
        host, port = text.split(" ")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"{self.host} {self.port}"

    def endpoint(self, reactor: Any) -> Any:
        v6 = ip_address(self.host).version == 6
        kind = TCP6ClientEndpoint if v6 else TCP4ClientEndpoint
        return kind(reactor, self.host, self.port, timeout=SECONDS)


class _Line(Protocol):
    """Says something, and takes the first line of the answer."""

    def __init__(self, said: bytes) -> None:
        self.line: Deferred[bytes] = Deferred()
        self._said = said
        self._heard = b""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._said)

    def dataReceived(self, data: bytes) -> None:
        self._heard += data
        if b"\n" in data or len(self._heard) > _MOST:
            self._end()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end()

    def _end(self) -> None:
        if not self.line.called:
            self.line.callback(self._heard.partition(b"\n")[0])
        if self.transport is not None:
            self.transport.loseConnection()


async def ask(reactor: Any, endpoint: Any, said: bytes) -> bytes:
    """The first line that is answered; what there is of it when the other side closes, or is not
    there."""
    asking = _Line(said)
    try:
        await endpoint.connect(Factory.forProtocol(lambda: asking))
        return await asking.line.addTimeout(SECONDS, reactor)
    except (ConnectError, TimeoutError):
        return b""


async def answer(reactor: Any, http: Place, url: str) -> str:
    """The status line of a GET of `url` at `http`, without what may differ: such as `200`."""
    parts = urlsplit(url)
    request = f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n"
    line = await ask(reactor, http.endpoint(reactor), f"{request}\r\n".encode())
    words = line.decode("latin-1").split()
    return words[1] if len(words) > 1 else ""


async def answers(reactor: Any, http: Place, urls: Sequence[str]) -> dict[str, str]:
    """What the first few of `urls` answer, by URL; those that do not answer are not in it."""
    found = {url: await answer(reactor, http, url) for url in urls[:SERVICES]}
    return {url: status for url, status in found.items() if status}


async def status(reactor: Any, ship: Path) -> dict[str, Any]:
    """What a ship says of itself. `ShipError` when it says nothing."""
    endpoint = UNIXClientEndpoint(reactor, str(ship), timeout=SECONDS)
    line = await ask(reactor, endpoint, json.dumps({"hook": "status"}).encode() + b"\n")
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict) or "services" not in found:
        raise ShipError("the new one does not tell its status")
    return found


async def check(
    reactor: Any, ship: Path, ssh: Place, http: Place, before: Mapping[str, str]
) -> None:
    """`ShipError` when the ship whose socket is `ship` is not there by SSH and status, or does not
    let services answer as `before`: statuses by URL. A URL that it has no more is not asked."""
    if not (await ask(reactor, ssh.endpoint(reactor), b"")).startswith(_BANNER):
        raise ShipError("the new one does not answer SSH")
    now = {each["url"] for each in (await status(reactor, ship))["services"]}
    for url, expected in before.items():
        if url in now:
            await _as_before(reactor, http, url, expected)


async def _as_before(reactor: Any, http: Place, url: str, expected: str) -> None:
    deadline = reactor.seconds() + PATIENCE
    while (status := await answer(reactor, http, url)) != expected:
        if reactor.seconds() > deadline:
            raise ShipError(f"{url} answers {status or 'nothing'} and not {expected} as before")
        await deferLater(reactor, PULSE)
