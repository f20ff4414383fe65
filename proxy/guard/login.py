"""Logging in by a token: where it may stand, what becomes of it, and where people get one."""

from __future__ import annotations

import re
from contextlib import suppress
from urllib.parse import quote

from attrs import define, evolve, field
from twisted.logger import Logger

from proxy.guard import tokens
from proxy.guard.asked import Answer, Asked, cookie, elsewhere, refused
from proxy.guard.keys import Keys
from proxy.guard.tokens import BadToken, Token
from proxy.protection import Jwt

LONGEST_COOKIE = 4000  # bytes; browsers drop what is longer
_ELSEWHERE = re.compile(r"\A[/\\\s]*")
"""What browsers would take for the beginning of another host, or a single slash."""


@define(eq=False)
class Logins:
    """`key` is the ship's own: it signs the cookies for services whose login service's secret the
    ship does not have."""

    key: bytes = field(repr=False)
    _keys: Keys = field(factory=Keys)
    _log: Logger = Logger()

    async def token(self, asked: Asked, jwt: Jwt, now: float) -> Token | None:
        """The good token of a request: sent as such, else in the URL, else in a cookie."""
        sent = asked.bearer or query_token(asked.uri)
        if sent:
            try:
                return await self._read(sent, jwt, now, 0)
            except BadToken as why:
                told = {"service": asked.service, "address": asked.address, "why": str(why)}
                self._log.warn("{service}: a token from {address} is not good: {why}", **told)
        for kept in asked.cookies(jwt.cookie) if not asked.bearer else ():
            with suppress(BadToken):
                return await self._of_cookie(kept, jwt, now)
        return None

    async def _read(self, token: str, jwt: Jwt, now: float, leeway: int) -> Token:
        if jwt.secret:
            return tokens.read(token, jwt.secret, jwt, now, leeway)
        key = await self._keys.find(jwt.jwks_url, token, now)
        if key is None:
            raise BadToken("there is no such key")
        return tokens.read(token, key, jwt, now, leeway)

    async def _of_cookie(self, kept: str, jwt: Jwt, now: float) -> Token:
        if jwt.secret:
            return await self._read(kept, jwt, now, tokens.LEEWAY)
        claims = tokens.read_own(kept, self.key, _session(jwt))
        return tokens.looked_at(claims, evolve(jwt, audience=""), now, tokens.LEEWAY)

    def kept(self, asked: Asked, token: Token, jwt: Jwt, now: float) -> tuple[str, ...]:
        """The cookie that a client needs from now on; none for a program, or while the one it has
        lasts long enough."""
        if asked.bearer:
            return ()
        if query_token(asked.uri):
            return (self._cookie(asked, token, jwt, now, jwt.lifetime),)
        if token.claims["exp"] - now > jwt.lifetime / 2:
            return ()
        lifetime = min(tokens.LEEWAY, jwt.lifetime) if token.late else jwt.lifetime
        return (self._cookie(asked, token, jwt, now, lifetime),)

    def _cookie(self, asked: Asked, token: Token, jwt: Jwt, now: float, lifetime: int) -> str:
        claims = tokens.renewed(token, jwt, now, lifetime)
        if jwt.secret:
            value = tokens.signed(claims, jwt.secret, jwt.algorithms[0])
        else:
            value = tokens.own(claims, self.key, _session(jwt))
        seconds = max(0, claims["exp"] + tokens.LEEWAY - int(now))
        domain = jwt.cookie_domain
        return cookie(jwt.cookie, value, seconds, secure=asked.secure, domain=domain)


def _session(jwt: Jwt) -> str:
    """What a session of the ship's own is good for: all services of one login service."""
    return f"session {jwt.jwks_url}"


def query_token(uri: str) -> str:
    """The value of the first argument `jwt`."""
    return query_value(uri, "jwt")


def without_token(uri: str) -> str:
    """`uri` without its token; see `without`."""
    return without(uri, "jwt")


def query_value(uri: str, name: str) -> str:
    """The value of the first argument of that name, as it was sent."""
    parts = (part.partition("=") for part in uri.partition("?")[2].split("&"))
    return next((value for key, equals, value in parts if equals and key == name), "")


def without(uri: str, name: str) -> str:
    """`uri` without an argument and all else byte for byte; always a path on the same host."""
    path, _, query = uri.partition("?")
    path = _ELSEWHERE.sub("/", path)
    kept = "&".join(part for part in query.split("&") if not part.startswith(f"{name}="))
    return f"{path}?{kept}" if kept else path


def log_in(asked: Asked, jwt: Jwt) -> Answer:
    """A browser is sent where it gets a token; a program is told that it has none."""
    if not asked.by_page:
        text = f"{asked.service} asks for a token."
        return refused(asked, 401, "Who are you?", text, ("WWW-Authenticate", "Bearer"))
    target = f"{asked.scheme}://{asked.host}{without_token(asked.uri)}"
    target = quote(target, safe="", errors="surrogateescape")
    joint = "&" if "?" in jwt.site else "?"
    return elsewhere(f"{jwt.site}{joint}target={target}")


def cleaned(asked: Asked, cookies: tuple[str, ...]) -> Answer | None:
    """The same place once more with the token in a cookie: it leaves the address bar. `None` when
    there is none in the URL, or nobody who could be sent on."""
    seen = query_token(asked.uri) and not asked.bearer
    if not seen or asked.method not in ("GET", "HEAD") or asked.headers.get("upgrade"):
        return None
    if any(len(one) > LONGEST_COOKIE for one in cookies):
        text = "The token is larger than what a browser keeps: it has too many claims."
        return refused(asked, 400, "Too large", text)
    return elsewhere(without_token(asked.uri), *(("Set-Cookie", one) for one in cookies))
