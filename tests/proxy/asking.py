"""A checker by itself, with a clock that the test sets, and who asks it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from http.cookies import SimpleCookie
from typing import Any

import jwt
from attrs import define, field
from twisted.internet.defer import Deferred

from proxy.guard import tokens
from proxy.guard.asked import Answer, Asked
from proxy.guard.checker import Checker
from proxy.guard.store import Guards
from proxy.protection import Jwt, LdapServer, Protection

KEY = b"k" * 32
SECRET = "a secret of the login service, long enough"
FORGED = "another secret of the same kind and length"
SITE = "https://login.example.com/in"
NOW = 1_800_000_000
ANN = "$2b$04$TvJodhOctFq8BcW5kMReeuNactYarhl3cNjt5pk0/C5XIFNWqqiIe"  # of "ann's"
BOB = "$2b$04$fGr/DERGMxhqhqX0Gkwtfu8P/ck0/QZvz8Aa5w0PW7NCUduODGrFi"  # of "bob's"
CREW = Protection(mode="htpasswd", users={"ann": ANN, "bob": BOB})
BY_TOKEN = Protection(mode="jwt", jwt=Jwt(SITE, SECRET))


def nobody(server: LdapServer, user: str, password: str) -> bool:
    """A directory that must not be asked."""
    raise AssertionError("nobody asks a directory")


def basic(user: str, password: str) -> dict[str, str]:
    return {"authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


def token(secret: Any = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    """A token of ann's, begun now and good for ten minutes; `None` leaves a claim out."""
    said = {"sub": "ann", "iat": NOW, "exp": NOW + 600, **claims}
    kept = {name: value for name, value in said.items() if value is not None}
    return jwt.encode(kept, secret, algorithm)


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


def identity(user: str, key: bytes = KEY, now: float = NOW) -> dict[str, str]:
    return {"cookie": f"starphleet_user={tokens.identity(user, key, now)}"}


def header(answer: Answer, name: str) -> str:
    """The one header of that name; "" for none."""
    found = [value for key, value in answer.headers if key == name]
    assert len(found) < 2, found
    return found[0] if found else ""


def passes(answer: Answer) -> dict[str, str]:
    """What the service is told."""
    said = [value.partition(": ") for key, value in answer.headers if key == "X-Pass"]
    return {name: value for name, _, value in said}


def cookies(answer: Answer) -> dict[str, Any]:
    """What the client is to keep, by name."""
    jar: SimpleCookie = SimpleCookie()
    for key, value in answer.headers:
        if key == "Set-Cookie":
            jar.load(value)
    return dict(jar)


@define(eq=False)
class Asking:
    """`checker` keeps what `guards` says; `now` is its time."""

    services: dict[str, Protection] = field(factory=dict)
    groups: dict[str, tuple[str, ...]] = field(factory=dict)
    ldap_servers: dict[str, LdapServer] = field(factory=dict)
    verify: Any = nobody
    now: float = NOW
    checker: Checker = field(init=False)

    def __attrs_post_init__(self) -> None:
        def guards() -> Guards:
            return Guards(self.services, self.groups, self.ldap_servers)

        def verify(server: LdapServer, user: str, password: str) -> bool:
            return bool(self.verify(server, user, password))

        self.checker = Checker(guards, KEY, verify, lambda: self.now)

    def ask(
        self,
        headers: Mapping[str, str] | None = None,
        uri: str = "/a/x",
        *,
        service: str = "/a",
        method: str = "GET",
        scheme: str = "http",
        address: str = "10.0.0.1",
    ) -> Deferred[Answer]:
        asked = Asked(service, method, scheme, "ship:8080", uri, address, headers or {})
        return Deferred.fromCoroutine(self.checker.check(asked))


def guarding(protection: Protection, **more: Any) -> Asking:
    """A checker of the service `/a`."""
    return Asking({"/a": protection}, **more)
