"""The ship's own pages: a site on a unix socket, to which nginx leads what it has let in.

Who asks is what nginx says: the socket can be opened by it and the ship alone. So this is the one
place that tells who may see what.
"""

from __future__ import annotations

import hmac
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.protocols.policies import WrappingFactory
from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from hooks.errors import Refused
from proxy.instance import worker_user

PATH = "/starphleet/"
OWNER = "X-Starphleet-Owner"
MOST = 700  # connections at a time
IDLE = 60.0  # seconds that a client may take to ask
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "font-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; "
        "base-uri 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_log = Logger()

Answer = Callable[[Request], Awaitable[bytes]]
"""Makes the body of one page; may set headers first."""


def owner(request: Request) -> str:
    """Whose key it was that let the browser in; "" for who showed a token, or nothing."""
    said = request.requestHeaders.getRawHeaders(OWNER, [])
    return said[0].strip() if len(said) == 1 else ""


def said_on(request: Request, status: int, title: str, text: str) -> bytes:
    """What a page says that is none, as nginx says it: for a person's browser, or in two lines."""
    request.setResponseCode(status)
    if b"text/html" not in (request.getHeader(b"accept") or b""):
        request.setHeader("Content-Type", "text/plain; charset=utf-8")
        return f"{status} {title}\n{text}\n".encode()
    request.setHeader("Content-Type", "text/html; charset=utf-8")
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width'>"
        f"<title>{status} {escape(title)}</title><h1>{escape(title)}</h1><p>{escape(text)}</p>"
        f"<p><small>{status}</small></p></html>\n"
    ).encode()


class Said(Resource):
    """Says one thing, whatever is asked for below it."""

    isLeaf = True

    def __init__(self, status: int, title: str, text: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._said = status, title, text

    def render(self, request: Request) -> bytes:
        return said_on(request, *self._said)


class Nothing(Resource):
    """There is no such page."""

    isLeaf = True

    def __init__(self, ship: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._ship = ship

    def render(self, request: Request) -> bytes:
        path = request.path.decode("latin-1")[:200]
        text = f"There is no service at {ascii(path)[1:-1]} on the ship {self._ship}."
        return said_on(request, 404, "No such service", text)


class Page(Resource):
    """A page whose body is made while others are served. Nobody waits for one who has left."""

    isLeaf = True

    def __init__(self, answer: Answer) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._answer = answer

    def render(self, request: Request) -> int:
        answering: Deferred[None] = Deferred.fromCoroutine(self._render(request))
        keep(request, answering)
        return NOT_DONE_YET

    async def _render(self, request: Request) -> None:
        if request.postpath:
            body = said_on(request, 404, "No such page", "There is nothing below this page.")
        else:
            body = await self._answer(request)
        request.setHeader("Content-Length", str(len(body)))
        request.write(body)  # of HEAD it keeps the length alone
        request.finish()


def keep(request: Any, answering: Deferred[None]) -> None:
    """Hold what answers `request` until it is done; it is cancelled when the client leaves."""
    gone: list[bool] = []

    def left(_: Failure) -> None:
        gone.append(True)
        answering.cancel()

    def failed(failure: Failure) -> None:
        if gone or failure.check(CancelledError):
            return
        if request.startedWriting:
            _log.failure("{path} broke off", failure, path=request.path)
            request.loseConnection()
            return
        error = failure.check(Refused)
        if not error:
            _log.failure("{path} failed", failure, path=request.path)
        text = failure.getErrorMessage() if error else "The ship's log says why."
        request.write(said_on(request, 400 if error else 500, "Not this way", text))
        request.finish()

    request.notifyFinish().addErrback(left)
    answering.addErrback(failed)


@frozen
class Access:
    """Who may see what. `tokens` let somebody who shows one as a bearer see one path and no more.

    Everything else is for whom nginx has let in, and then says who it is.
    """

    ship: str
    tokens: Mapping[str, str]

    def refusal(self, request: Request) -> IResource | None:
        """What is said instead of a page; `None` to whom may see it."""
        if request.method not in (b"GET", b"HEAD"):
            request.setHeader("Allow", "GET, HEAD")
            return Said(405, "Not this way", "There is only something to read here.")
        authorization = request.getHeader(b"authorization") or b""
        path = request.path.decode("latin-1")
        if owner(request) or shows(authorization, self.tokens.get(path, "")):
            return None
        request.setHeader("WWW-Authenticate", "Bearer")
        return Said(
            401,
            "Not for everybody",
            f"This is for admirals of {self.ship}: ssh git@SHIP open dashboard prints a link "
            "that logs a browser in.",
        )


def shows(authorization: bytes, token: str) -> bool:
    """Whether a header shows that its sender knows `token`; nobody knows an empty one."""
    kind, _, given = authorization.partition(b" ")
    known = token.encode()
    return bool(known) and kind.lower() == b"bearer" and hmac.compare_digest(given.strip(), known)


class _Request(Request):
    """One that has no body: there is nothing here to send one to."""

    def gotLength(self, length: int | None) -> None:
        super().gotLength(0)  # type: ignore[no-untyped-call]

    def handleContentChunk(self, data: bytes) -> None:
        """What comes all the same is not kept."""


class _Site(Site):
    noisy = False

    def __init__(self, root: IResource, access: Access) -> None:
        super().__init__(root, _Request, timeout=IDLE, parsePOSTFormSubmission=False)  # type: ignore[no-untyped-call]
        self._access = access

    def getResourceFor(self, request: Any) -> Any:
        for name, value in HEADERS.items():
            request.setHeader(name, value)
        refusal = self._access.refusal(request)
        return super().getResourceFor(request) if refusal is None else refusal  # type: ignore[no-untyped-call]


class Pages(WrappingFactory):
    """The site as something to listen with. `pages` are the resources below `PATH`, by name.

    Only so many connections at a time; the next one is turned away.
    """

    noisy = False

    def __init__(self, access: Access, pages: Mapping[str, IResource]) -> None:
        below = _Branch(access.ship)
        for name, page in pages.items():
            below.putChild(name.encode(), page)
        root = _Branch(access.ship)
        root.putChild(PATH.strip("/").encode(), below)
        super().__init__(_Site(root, access))  # type: ignore[no-untyped-call]

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return super().buildProtocol(addr) if len(self.protocols) < MOST else None

    def close(self) -> None:
        """Break off whatever is open."""
        for protocol in list(self.protocols):
            protocol.transport.abortConnection()


class _Branch(Resource):
    """Leads to pages by name, and is none."""

    def __init__(self, ship: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._nothing = Nothing(ship)

    def getChild(self, path: bytes, request: Any) -> IResource:
        return self._nothing

    def render(self, request: Any) -> bytes:
        return self._nothing.render(request)


def listen(doors: Any, path: Path, pages: Pages) -> Any:
    """A socket at `path` for the ship and nginx's workers alone, who are believed.

    Its directory lets nobody through until the socket is theirs.
    """
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.parent.chmod(0o700)
    listening = doors.listenUNIX(str(path), pages, backlog=MOST, mode=0o600)
    worker = worker_user(os.geteuid())
    if worker is not None:
        shutil.chown(path, worker.name)
        path.parent.chmod(0o711)
    return listening
