"""The checker on its unix socket: one HTTP question for each request that wants to pass."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from proxy.guard.asked import Answer, Asked, refused
from proxy.guard.checker import Checker
from proxy.routes import ProxyError

IDLE = 300  # seconds that nginx may keep a connection; it gives them up before
COPIED = ("authorization", "cookie", "accept", "origin", "x-requested-with", "upgrade")

_log = Logger()


class Check(Resource):
    """Answers to whatever is asked."""

    isLeaf = True

    def __init__(self, checker: Checker) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._checker = checker

    def render_GET(self, request: Request) -> int:
        asked = read(request)
        answering: Deferred[Any] = Deferred.fromCoroutine(self._checker.check(asked))
        request.notifyFinish().addErrback(lambda _: answering.cancel())
        answering.addErrback(_failed, asked)
        answering.addCallback(_tell, request)
        answering.addErrback(lambda failure: failure.trap(CancelledError))
        return NOT_DONE_YET


def read(request: Request) -> Asked:
    """The question in a request of nginx's."""
    return Asked(
        service=_text(request, "x-service"),
        method=_text(request, "x-method"),
        scheme=_text(request, "x-scheme"),
        host=_text(request, "x-host"),
        uri=_text(request, "x-uri"),
        address=_text(request, "x-address"),
        prefix=_text(request, "x-prefix"),
        headers={n: _text(request, n) for n in COPIED if request.requestHeaders.hasHeader(n)},
    )


def _text(request: Request, name: str) -> str:
    values = request.requestHeaders.getRawHeaders(name.encode()) or [b""]
    return b", ".join(values).decode("utf-8", "surrogateescape")


def _failed(failure: Any, asked: Asked) -> Answer:
    """Whatever goes wrong, it is no yes."""
    if failure.check(CancelledError):
        failure.raiseException()
    if failure.check(ProxyError):
        _log.error("{service}: {why}", service=asked.service, why=failure.value)
    else:
        _log.failure("{service} could not be checked", failure, service=asked.service)
    text = f"It could not be found out who may use {asked.service}. Try again soon."
    return refused(asked, 503, "Not now", text, ("Retry-After", "5"))


def _tell(answer: Answer, request: Request) -> None:
    request.setResponseCode(answer.status)
    request.setHeader(b"Content-Length", str(len(answer.body)).encode())
    for name, value in answer.headers:
        request.responseHeaders.addRawHeader(
            name.encode(), value.encode("utf-8", "surrogateescape")
        )
    request.write(answer.body)
    request.finish()


class Wide(HTTPChannel):
    """Takes a request of as many headers as nginx takes, and what it says of it."""

    MAX_LENGTH = 256 * 1024
    totalHeadersSize = 256 * 1024


class Quiet(Site):
    """It keeps no list of requests: there are credentials in some."""

    protocol = Wide  # type: ignore[assignment]

    def log(self, request: Any) -> None:
        pass


def site(checker: Checker) -> Site:
    """What listens on the socket."""
    return Quiet(Check(checker), timeout=IDLE)  # type: ignore[no-untyped-call]
