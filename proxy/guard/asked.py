"""What nginx asks, and what it is told."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import quote

from attrs import field, frozen

from proxy.guard.pages import page

KEPT = 5  # seconds that nginx may remember a yes
MOST_COOKIES = 4  # of one name that are looked at
REALM = 'Basic realm="Forbidden!", charset="UTF-8"'


@frozen
class Asked:
    """One request that wants to pass: on which way it came, and what the client sent.

    `address` is the client's, `headers` are by name in lower case, `prefix` is what stands before
    the path that the service sees.
    """

    service: str
    method: str
    scheme: str
    host: str
    uri: str = field(repr=False)
    address: str = ""
    headers: Mapping[str, str] = field(factory=dict, repr=False)
    prefix: str = ""

    @property
    def authorization(self) -> str:
        return self.headers.get("authorization", "")

    @property
    def secure(self) -> bool:
        return self.scheme == "https"

    @property
    def basic(self) -> tuple[str, str]:
        """Name and password; both "" when they are not sent, or not as they should be."""
        kind, _, encoded = self.authorization.partition(" ")
        if kind.lower() != "basic":
            return "", ""
        try:
            text = base64.b64decode(encoded.strip(), validate=True).decode()
        except (binascii.Error, ValueError):
            return "", ""
        user, _, password = text.partition(":")
        return user, password

    @property
    def bearer(self) -> str:
        kind, _, token = self.authorization.partition(" ")
        return token.strip() if kind.lower() == "bearer" else ""

    def cookies(self, name: str) -> list[str]:
        """The first few cookies of that name: one for the host and one for its domain may be."""
        parts = (part.strip().partition("=") for part in self.headers.get("cookie", "").split(";"))
        found = [value.strip('"') for key, equals, value in parts if equals and key == name]
        return found[:MOST_COOKIES]

    @property
    def by_page(self) -> bool:
        """Whether a browser wants a page, and can be sent elsewhere before."""
        accept = self.headers.get("accept", "*/*")
        programs = ("authorization", "upgrade", "x-requested-with")
        return (
            self.method in ("GET", "HEAD")
            and not any(self.headers.get(name) for name in programs)
            and ("text/html" in accept or "*/*" in accept)
        )


@frozen
class Answer:
    """What nginx is told: 200 lets the request in, anything else is for the client."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


def let_in(
    user: str,
    passes: Mapping[str, str],
    *,
    cookies: tuple[str, ...] = (),
    serve: str = "",
    keep: int = KEPT,
) -> Answer:
    """A yes. `passes` are headers for the service, `cookies` for the client, `serve` is a service
    to go to instead, `keep` how many seconds it is good for."""
    headers = [("X-Keep", str(keep))]
    headers += [("X-Identity", quote(user))] if user else []
    headers += [("X-Pass", f"{name}: {value}") for name, value in passes.items()]
    headers += [("Set-Cookie", cookie) for cookie in cookies]
    headers += [("X-Serve", serve)] if serve else []
    return Answer(200, tuple(headers))


def refused(asked: Asked, status: int, title: str, text: str, *more: tuple[str, str]) -> Answer:
    """A no, with a page for a person or two lines for a program."""
    kind, body = page(asked.headers.get("accept", ""), status, title, text)
    return Answer(status, (("Content-Type", kind), ("Cache-Control", "no-store"), *more), body)


def elsewhere(place: str, *more: tuple[str, str]) -> Answer:
    """A redirect that nobody is to remember."""
    return Answer(302, (("Location", place), ("Cache-Control", "no-store"), *more))


def cookie(
    name: str,
    value: str,
    seconds: int,
    *,
    secure: bool,
    domain: str = "",
    script: bool = False,
    path: str = "/",
) -> str:
    """A Set-Cookie for a host, or a `domain`, below `path`; with `script` pages can read it."""
    jar: SimpleCookie = SimpleCookie()
    jar[name] = value
    morsel: Any = jar[name]
    morsel.update({"path": path, "max-age": seconds, "samesite": "Lax", "domain": domain})
    morsel.update({"secure": secure, "httponly": not script})
    return str(morsel.OutputString())
