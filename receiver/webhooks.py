"""Webhooks: a git host says that something was pushed, so the ship asks now.

Nothing that a hook says is believed but that somebody who knows the secret sent it: the repository
is asked as at every pulse.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs

from attrs import define
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.protocols.policies import WrappingFactory
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

PATH = "/starphleet/hooks/"
SECRET = "STARPHLEET_HOOK_SECRET"  # noqa: S105 - the name of a setting
LARGEST = 5 << 20  # bytes of a body
MOST = 16  # connections at a time
IDLE = 30.0  # seconds without a byte
_URLS = (
    "clone_url", "ssh_url", "git_url", "html_url", "git_http_url", "git_ssh_url", "web_url", "url",
)  # fmt: skip

_log = Logger()

Hurry = Callable[[Collection[str] | None], int]
"""Ask these repositories now (`None`: everything that is followed); how many that are."""


def _signed(secret: str, given: str, body: bytes) -> bool:
    signature = hmac.digest(secret.encode(), body, "sha256").hex()
    return hmac.compare_digest(given.encode(), signature.encode())


def _by_github(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    return _signed(secret, headers.get("x-hub-signature-256", "").removeprefix("sha256="), body)


def _by_gitea(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    return _signed(secret, headers.get("x-gitea-signature", ""), body)


def _by_gitlab(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    return hmac.compare_digest(headers.get("x-gitlab-token", "").encode(), secret.encode())


def _by_anybody(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    given = headers.get("authorization", "").removeprefix("Bearer ")
    return hmac.compare_digest(given.encode(), secret.encode())


SENDERS: Mapping[str, Callable[[str, Mapping[str, str], bytes], bool]] = {
    "github": _by_github,
    "gitea": _by_gitea,
    "gitlab": _by_gitlab,
    "poll": _by_anybody,
}
"""How each sender shows that it knows the secret: `knows(secret, headers, body)`."""


def repositories(body: bytes, content_type: str) -> frozenset[str] | None:
    """The URLs of the repository that a payload is about; `None` when it names none.

    `ValueError` when it is not JSON, alone or in the form field `payload`.
    """
    if content_type.startswith("application/x-www-form-urlencoded"):
        body = parse_qs(body, max_num_fields=10).get(b"payload", [b""])[0]
    if not body.strip():
        return None
    payload = json.loads(body)
    return frozenset(_urls(payload)) or None


def _urls(payload: Any) -> Iterator[str]:
    """Of the repository (GitLab calls it project), or of the payload itself."""
    if not isinstance(payload, dict):
        return
    for about in (payload.get("repository"), payload.get("project"), payload):
        if isinstance(about, dict):
            yield from (url for name in _URLS if isinstance(url := about.get(name), str) and url)


@define
class Webhooks:
    """`secret` gives what senders must know, "" when nobody may send; `hurry` asks."""

    secret: Callable[[], str]
    hurry: Hurry

    def answer(self, sender: str, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
        """Status and a line for one POST. `headers` have lower-case names."""
        knows = SENDERS.get(sender)
        if knows is None:
            return 404, f"there are {', '.join(SENDERS)} below {PATH}"
        secret = self.secret()
        if not secret:
            return 403, f"set {SECRET} in .starphleet"
        if not knows(secret, headers, body):
            _log.warn("a hook of {sender} was refused: it does not know the secret", sender=sender)
            return 401, f"this does not show that it knows {SECRET}"
        if "ping" in (headers.get("x-github-event"), headers.get("x-gitea-event")):
            return 200, "the ship hears you"
        try:
            urls = repositories(body, headers.get("content-type", ""))
        except (ValueError, RecursionError):
            return 400, "the body is not JSON"
        if urls is None and sender != "poll":
            return 400, "the body names no repository"
        if (count := self.hurry(urls)) == 0:
            return 200, "nothing here follows that repository"
        return 202, f"asked now: {count}"


class _Hook(Resource):
    """Everything below `PATH`, which nginx takes off."""

    isLeaf = True

    def __init__(self, webhooks: Webhooks) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._webhooks = webhooks

    def render(self, request: Any) -> bytes:
        if request.method != b"POST":
            return _said(request, 405, "hooks are sent by POST")
        if request.too_large:
            return _said(request, 413, f"the body has more than {LARGEST} bytes")
        headers = {
            name.decode("latin-1").lower(): values[-1].decode("latin-1")
            for name, values in request.requestHeaders.getAllRawHeaders()
        }
        sender = request.path.decode("latin-1").strip("/")
        return _said(request, *self._webhooks.answer(sender, headers, request.content.read()))


def _said(request: Request, status: int, text: str) -> bytes:
    request.setResponseCode(status)
    request.setHeader("Content-Type", "text/plain; charset=utf-8")
    return f"{text}\n".encode()


class _Bounded(Request):
    """A request that keeps no more of its body than it may."""

    too_large = False
    _taken = 0

    def handleContentChunk(self, data: bytes) -> None:
        self._taken += len(data)
        self.too_large = self._taken > LARGEST
        if not self.too_large:
            super().handleContentChunk(data)  # type: ignore[no-untyped-call]


class _Few(WrappingFactory):
    """Only so many connections at a time; the next one is turned away."""

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return super().buildProtocol(addr) if len(self.protocols) < MOST else None


def listen(reactor: Any, webhooks: Webhooks) -> Any:
    """A port of the loopback where nginx is to lead what is below `PATH`; it takes that off."""
    site = Site(_Hook(webhooks), _Bounded, timeout=IDLE, parsePOSTFormSubmission=False)
    few = _Few(site)  # type: ignore[no-untyped-call]
    return reactor.listenTCP(0, few, interface="127.0.0.1")
