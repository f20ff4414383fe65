"""Asking over kept-alive https connections: one request, no process."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
    ResponseDone,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IPolicyForHTTPS
from zope.interface import implementer

from receiver.headquarters.lsrefs import Odd, answer, format_of, question
from receiver.headquarters.refs import Found

MOST = 4 << 20  # bytes of an answer
KEPT = 90  # seconds that an idle connection is kept: longer than any pulse
CONNECT = 10  # seconds
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)
_AGENT = b"git/2.39 (starphleet)"


def trusted(roots: Path | None) -> Any:
    """The certificate authorities in the file `roots`, else the platform's."""
    if roots is None:
        return ssl.platformTrust()
    found = _CERTIFICATE.findall(roots.read_bytes())
    return ssl.trustRootFromCertificates([ssl.Certificate.loadPEM(one) for one in found])


@implementer(IPolicyForHTTPS)
class OncePerHost:
    """Makes each host's TLS options once: they hold every certificate authority."""

    def __init__(self, trust: Any) -> None:
        self._policy = BrowserLikePolicyForHTTPS(trustRoot=trust)
        self._made: dict[tuple[bytes, int], Any] = {}

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        where = (hostname, port)
        if where not in self._made:
            self._made[where] = self._policy.creatorForNetloc(hostname, port)
        return self._made[where]


class Https:
    """Asks servers that speak version 2. Whatever else they say is `Odd`."""

    def __init__(self, reactor: Any, roots: Path | None, *, each: int = 8) -> None:
        self._pool = HTTPConnectionPool(reactor)
        self._pool.maxPersistentPerHost = each
        self._pool.cachedConnectionTimeout = KEPT
        self._agent = Agent(reactor, OncePerHost(trusted(roots)), CONNECT, pool=self._pool)
        self._formats: dict[str, bytes] = {}

    async def ask(self, url: str, names: list[str]) -> Found:
        """What refs of `names` there are."""
        base = url.rstrip("/")
        try:
            known = self._formats.get(url)
            if known is None:
                known = self._formats[url] = await self._learn(base)
            return await self._refs(base, names, known)
        except BaseException:
            self._formats.pop(url, None)
            raise

    async def close(self) -> None:
        await self._pool.closeCachedConnections()

    async def _learn(self, base: str) -> bytes:
        asked = f"{base}/info/refs?service=git-upload-pack"
        return format_of(await self._body(b"GET", asked, "advertisement", None))

    async def _refs(self, base: str, names: list[str], object_format: bytes) -> Found:
        body = question(names, object_format)
        return answer(await self._body(b"POST", f"{base}/git-upload-pack", "result", body))

    async def _body(self, method: bytes, url: str, kind: str, body: bytes | None) -> bytes:
        headers = {b"User-Agent": [_AGENT], b"Git-Protocol": [b"version=2"]}
        if body is not None:
            headers[b"Content-Type"] = [b"application/x-git-upload-pack-request"]
        sent = _Given(body) if body is not None else None
        response = await self._agent.request(method, url.encode(), Headers(headers), sent)
        types = response.headers.getRawHeaders(b"content-type", [])
        taken = _Taken(MOST)
        response.deliverBody(taken)
        data = await taken.done
        if response.code != 200 or types != [f"application/x-git-upload-pack-{kind}".encode()]:
            raise Odd(f"status {response.code}")
        return data


@implementer(IBodyProducer)
@define
class _Given:
    """A request's body that is there already."""

    body: bytes
    length: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.length = len(self.body)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        consumer.write(self.body)
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def stopProducing(self) -> None: ...


class _Taken(Protocol):
    """A body of at most so many bytes; cut off when it is longer or nobody waits for it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._data = bytearray()
        self.done: Deferred[bytes] = Deferred(lambda _: self._cut())

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        if len(self._data) > self._most and not self.done.called:
            self.done.errback(Odd(f"more than {self._most} bytes"))
            self._cut()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(bytes(self._data))
        else:
            self.done.errback(reason)

    def _cut(self) -> None:
        if self.transport is not None:
            self.transport.stopProducing()  # type: ignore[attr-defined]
