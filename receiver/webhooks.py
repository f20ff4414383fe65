"""Webhooks: a git host says that something was pushed, so the ship asks now.

Nothing that a hook says is believed but that somebody who knows the secret sent it: the repository
is asked as at every pulse.
"""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
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
LARGEST = 25 << 20  # bytes of a body: the most that GitHub sends
MOST = 16  # connections at a time
IDLE = 30.0  # seconds without a byte
TOLD = 60.0  # seconds between two lines of the log about hooks that are refused
_URLS = (
    "clone_url", "ssh_url", "git_url", "html_url", "git_http_url", "git_ssh_url", "web_url", "url",
)  # fmt: skip

_log = Logger()

Hurry = Callable[[Collection[str] | None], int]
"""Ask these repositories now (`None`: everything that is followed); how many that are."""


def _signed(secret: str, given: str, body: bytes) -> bool:
    signature = hmac.digest(_known(secret), body, "sha256").hex()
    return hmac.compare_digest(_raw(given), signature.encode())


def _by_github(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    return _signed(secret, headers.get("x-hub-signature-256", "").removeprefix("sha256="), body)


def _by_gitea(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    return _signed(secret, headers.get("x-gitea-signature", ""), body)


def _by_gitlab(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    return hmac.compare_digest(_raw(headers.get("x-gitlab-token", "")), _known(secret))


def _by_anybody(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    kind, _, given = headers.get("authorization", "").partition(" ")
    return kind.lower() == "bearer" and hmac.compare_digest(_raw(given), _known(secret))


def _raw(header: str) -> bytes:
    """A header's value, byte for byte."""
    return header.encode("latin-1", "replace")


def _known(secret: str) -> bytes:
    return secret.encode("utf-8", "surrogateescape")


SENDERS: Mapping[str, Callable[[str, Mapping[str, str], bytes], bool]] = {
    "github": _by_github,
    "gitea": _by_gitea,
    "gitlab": _by_gitlab,
    "poll": _by_anybody,
}
"""How each sender shows that it knows the secret: `knows(secret, headers, body)`."""


def repositories(body: bytes, content_type: str) -> frozenset[str] | None:
    """The URLs of the repository that a payload is about; `None` when the body is empty.

    `ValueError` when it is not JSON, alone or in the form field `payload`.
    """
    text = body.decode()
    if content_type.startswith("application/x-www-form-urlencoded"):
        text = parse_qs(text, max_num_fields=10).get("payload", [text])[0]
    return frozenset(_urls(json.loads(text))) if text.strip() else None


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
    clock: Callable[[], float] = time.monotonic
    _quiet_until: float = 0.0
    _refused: int = 0

    def answer(self, sender: str, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
        """Status and a line for one POST. `headers` have lower-case names."""
        knows = SENDERS.get(sender)
        if knows is None:
            return 404, f"there are {', '.join(SENDERS)} below {PATH}"
        secret = self.secret()
        if not secret:
            return 403, f"set {SECRET} in .starphleet"
        if not knows(secret, headers, body):
            self._tell(sender)
            return 401, f"this does not show that it knows {SECRET}"
        if "ping" in (headers.get("x-github-event"), headers.get("x-gitea-event")):
            return 200, "the ship hears you"
        try:
            urls = repositories(body, headers.get("content-type", ""))
        except (ValueError, RecursionError):
            return 400, "the body is not JSON"
        if not urls and not (urls is None and sender == "poll"):
            return 400, "the body names no repository"
        if (count := self.hurry(urls)) == 0:
            return 200, "nothing here follows that repository"
        return 202, f"asked now: {count}"

    def _tell(self, sender: str) -> None:
        """Log that hooks are refused, once in a while: anybody may send them."""
        self._refused += 1
        if self.clock() >= self._quiet_until:
            count, self._refused = self._refused, 0
            self._quiet_until = self.clock() + TOLD
            _log.warn(
                "refused: {count} hooks, the last of {sender}: they do not know {secret}",
                count=count,
                sender=sender,
                secret=SECRET,
            )


class _Hook(Resource):
    """Everything below `PATH`, which nginx takes off."""

    isLeaf = True

    def __init__(self, webhooks: Webhooks) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._webhooks = webhooks

    def render(self, request: Any) -> bytes:
        if request.method != b"POST":
            request.setHeader("Allow", "POST")
            told = _said(request, 405, "hooks are sent by POST")
            return b"" if request.method == b"HEAD" else told
        if request.too_large:
            return _said(request, 413, f"the body has more than {LARGEST} bytes")
        headers = {
            name.decode("latin-1").lower(): values[-1].decode("latin-1")
            for name, values in request.requestHeaders.getAllRawHeaders()
        }
        sender = request.path.decode("latin-1").strip("/") or "poll"
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

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return super().buildProtocol(addr) if len(self.protocols) < MOST else None


def listen(reactor: Any, path: Path, webhooks: Webhooks) -> Any:
    """A socket at `path`, to which nginx leads what is below `PATH`; it takes that off.

    A socket, for a port of a ship that is down could be anybody's. nginx's workers may be another
    user than the ship, so that anybody who reaches the path may connect.
    """
    site = Site(_Hook(webhooks), _Bounded, timeout=IDLE, parsePOSTFormSubmission=False)
    few = _Few(site)  # type: ignore[no-untyped-call]
    return reactor.listenUNIX(str(path), few, mode=0o666)
