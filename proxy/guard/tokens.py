"""Tokens: those of login services, and the ship's own. None may say by which algorithm."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import jwt
from attrs import frozen
from jwt.types import Options

from proxy.guard.names import presentable
from proxy.protection import Jwt

LEEWAY = 900  # seconds after its end in which a cookie is still good for the next one
SKEW = 60  # seconds that a login service's clock may be ahead
IDENTITY_SECONDS = 30 * 86400
OWN = "HS256"
SAYS_WHO = ("sub", "un", "email", "name")
LONGEST = 8192  # characters of a token
MOST_CLAIMS = 60  # that a service is told
_CLAIM = re.compile(r"[A-Za-z0-9_.-]{1,60}")
_PLAIN = re.compile(r"[\x20-\x7e]{0,2000}")
# Times are looked at by one clock; who it is for is between login service and app.
_OPTIONS: Options = {
    "verify_exp": False, "verify_iat": False, "verify_nbf": False, "verify_aud": False,
    "verify_sub": False, "verify_jti": False,
}  # fmt: skip

Key = Any
"""What PyJWT verifies with: a secret, or a public key."""


class BadToken(Exception):
    """A token that lets nobody in; the text says why, without the token."""


@frozen
class Token:
    """What a good token says. `late`: its time was over a short while ago."""

    claims: Mapping[str, Any]
    late: bool = False

    @property
    def user(self) -> str:
        """Who it is about: the first of `sub`, `un`, `email` and `name` that is a name."""
        names = (self.claims.get(claim) for claim in SAYS_WHO)
        return next((n for n in names if isinstance(n, str) and presentable(n)), "")

    def allowed(self, roles: tuple[str, ...]) -> bool:
        """Whether the claim `role`, a list or words between commas, has one of `roles`."""
        given = self.claims.get("role", "")
        words = given.split(",") if isinstance(given, str) else given
        if not isinstance(words, list):
            words = []
        own = {word.strip() for word in words if isinstance(word, str)}
        return not roles or "*" in roles or bool(own & set(roles))

    @property
    def passes(self) -> dict[str, str]:
        """A header `jwt-CLAIM` for each claim that a header can carry; what is no text as JSON."""
        told = {
            f"jwt-{name.lower().replace('_', '-')}": text
            for name, value in self.claims.items()
            if _CLAIM.fullmatch(name) and _PLAIN.fullmatch(text := _text(value))
        }
        return dict(list(told.items())[:MOST_CLAIMS])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def read(token: str, key: Key, settings: Jwt, now: float, leeway: int = 0) -> Token:
    """What `token` says, verified with `key`, at `now` (epoch seconds). Raises `BadToken`.

    One that ended less than `leeway` seconds ago is `late`.
    """
    return looked_at(_decode(token, key, settings.algorithms), settings, now, leeway)


def looked_at(claims: Mapping[str, Any], settings: Jwt, now: float, leeway: int = 0) -> Token:
    """The token of `claims` whose signature is good, if its times are, and if it comes from whom
    and is for whom `settings` say. Raises `BadToken`."""
    given = claims.get("aud", [])
    audiences = given if isinstance(given, list) else [given]
    if settings.audience and settings.audience not in audiences:
        raise BadToken("it is for somebody else")
    if settings.issuer and claims.get("iss") != settings.issuer:
        raise BadToken("it is from somebody else")
    ends, begun = _time(claims, "exp"), _time(claims, "iat")
    if ends + leeway <= now:
        raise BadToken("it has expired")
    if begun + settings.oldest < now:
        raise BadToken("it is too old")
    if max(begun, _time(claims, "nbf") if "nbf" in claims else 0) > now + SKEW:
        raise BadToken("it is of the future")
    return Token(claims, late=ends <= now)


def _time(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e11:
        raise BadToken(f"its {name} is no time")
    return value


def renewed(token: Token, settings: Jwt, now: float, lifetime: int) -> dict[str, Any]:
    """The claims of the next one. It ends later, but began when the first did."""
    end = min(int(now) + lifetime, int(token.claims["iat"]) + settings.oldest)
    return {**token.claims, "exp": end}


def _decode(token: str, key: Key, algorithms: tuple[str, ...]) -> dict[str, Any]:
    if len(token) > LONGEST:
        raise BadToken("it is too long")
    try:
        found: dict[str, Any] = jwt.decode(
            token, key, algorithms=list(algorithms), options=_OPTIONS
        )
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise BadToken(type(error).__name__) from None
    return found


def signed(claims: Mapping[str, Any], secret: str | bytes, algorithm: str = OWN) -> str:
    """A token of these claims."""
    return jwt.encode(dict(claims), secret, algorithm)


def own(claims: Mapping[str, Any], key: bytes, audience: str) -> str:
    """A token of the ship's own, good for one `audience`."""
    return signed({**claims, "aud": audience}, key)


def read_own(token: str, key: bytes, audience: str) -> dict[str, Any]:
    """The claims of a token of the ship's own, without its audience; `BadToken` for any other.

    Times are not looked at.
    """
    claims = _decode(token, key, (OWN,))
    if claims.pop("aud", None) != audience:
        raise BadToken("it is for something else")
    return claims


def identity(user: str, key: bytes, now: float) -> str:
    """The cookie by which pages, and beta groups, know who it is."""
    return own({"sub": user, "exp": int(now) + IDENTITY_SECONDS}, key, "identity")


def identified(token: str, key: bytes, now: float) -> str:
    """Who an identity cookie is of; "" when it is none of ours, or over."""
    try:
        claims = read_own(token, key, "identity")
        return str(claims.get("sub", "")) if _time(claims, "exp") > now else ""
    except BadToken:
        return ""
