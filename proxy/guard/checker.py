"""Decides whether a request may pass, and who is told what of that."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredSemaphore, succeed
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from proxy.guard import passes, tokens
from proxy.guard.asked import KEPT, REALM, Answer, Asked, cookie, let_in, refused
from proxy.guard.login import Logins, cleaned, log_in
from proxy.guard.names import casefolded, presentable
from proxy.guard.passwords import Passwords
from proxy.guard.private import Private, knock
from proxy.guard.slowing import Slowing
from proxy.guard.store import Guards
from proxy.protection import OWN, LdapServer, Protection
from proxy.routes import ProxyError

AT_ONCE = 8  # passwords that are looked at beside each other
PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
Verify = Callable[[LdapServer, str, str], bool]
"""Asks a directory. Blocks; raises `ProxyError` when that does not say."""


@define(eq=False)
class Checker:
    """`guards` gives what is to be kept now, `key` is the ship's own, `place` the directory with
    links and sessions."""

    guards: Callable[[], Guards]
    key: bytes = field(repr=False)
    verify: Verify
    clock: Callable[[], float] = time.time
    place: Path = Path()
    _passwords: Passwords = field(factory=Passwords)
    _slowing: Slowing = field(factory=Slowing)
    _hashing: DeferredSemaphore = field(factory=lambda: DeferredSemaphore(AT_ONCE))
    _asking_at: dict[str, DeferredSemaphore] = field(factory=dict)
    _asking: dict[tuple[str, str, str], Deferred[bool]] = field(factory=dict)
    _logins: Logins = field(init=False)
    _private: Private = field(init=False)
    _log: Logger = Logger()

    def __attrs_post_init__(self) -> None:
        self._logins = Logins(self.key)
        self._private = Private(passes.links(self.place), passes.sessions(self.place))

    async def check(self, asked: Asked) -> Answer:
        """The answer to one request. Raises `ProxyError` when nobody can say."""
        guards = self.guards()
        protection = guards.services.get(asked.service)
        if protection is None:
            raise ProxyError("nobody said who may use it")
        if protection.forced:
            return self._welcome(asked, guards, protection, protection.forced)
        if protection.mode == "public":
            return let_in("", {}, serve=_led(guards, protection, self._said(asked, protection)))
        if protection.mode == "private":
            return self._by_key(asked, guards, protection)
        if protection.mode == "jwt":
            return await self._by_token(asked, guards, protection)
        return await self._by_password(asked, guards, protection)

    def _welcome(
        self,
        asked: Asked,
        guards: Guards,
        protection: Protection,
        user: str,
        passes: Mapping[str, str] | None = None,
        cookies: tuple[str, ...] = (),
        keep: int = KEPT,
    ) -> Answer:
        """A yes to `user`, of whom service and pages are told."""
        told = dict(passes or {})
        if user:
            told[protection.header] = quote(user, safe=PRINTABLE)
            cookies += self._mark(asked, protection, user)
        serve = _led(guards, protection, user)
        return let_in(user, told, cookies=cookies, serve=serve, keep=keep)

    def _mark(self, asked: Asked, protection: Protection, user: str) -> tuple[str, ...]:
        """The identity cookie, for who does not have it. Pages read it: it lets nobody in."""
        now = self.clock()
        if asked.service == OWN or self._said(asked, protection) == user:
            return ()
        value, seconds = tokens.identity(user, self.key, now), tokens.IDENTITY_SECONDS
        return (cookie(protection.cookie, value, seconds, secure=asked.secure, script=True),)

    def _said(self, asked: Asked, protection: Protection) -> str:
        """Who an identity cookie says it is; "" when none of them is ours."""
        sent = asked.cookies(protection.cookie)
        users = (tokens.identified(one, self.key, self.clock()) for one in sent)
        return next((user for user in users if user), "")

    def _by_key(self, asked: Asked, guards: Guards, protection: Protection) -> Answer:
        """By the session that a link from the ship has begun."""
        now = self.clock()
        session = self._private.session(asked, guards.crew, now)
        led_on = self._private.by_link(asked, guards.crew, session, now)
        if led_on is not None:
            return led_on
        if session is None:
            return knock(asked, guards.crew)
        if not _listed(protection, session.owner):
            return _not_listed(asked, session.owner)
        keep = max(0, min(KEPT, int(session.until - now)))
        left = self._private.leave(asked)
        return left or self._welcome(asked, guards, protection, session.owner, keep=keep)

    async def _by_token(self, asked: Asked, guards: Guards, protection: Protection) -> Answer:
        jwt, now = protection.jwt, self.clock()
        assert jwt is not None
        token = await self._logins.token(asked, jwt, now)
        if token is None or not token.allowed(jwt.roles):
            return log_in(asked, jwt)
        user = token.user
        if not _listed(protection, user):
            return _not_listed(asked, user)
        cookies = self._logins.kept(asked, token, jwt, now)
        keep = max(0, min(KEPT, int(token.claims["exp"] - now)))
        return cleaned(asked, cookies) or self._welcome(
            asked, guards, protection, user, token.passes, cookies, keep
        )

    async def _by_password(self, asked: Asked, guards: Guards, protection: Protection) -> Answer:
        user, password = asked.basic
        if not presentable(user) or not password:
            return _challenge(asked)
        if not await self._known(asked, guards, protection, user, password):
            wait = self._wait(asked, user)
            return _later(asked, wait) if wait > 0 else _challenge(asked)
        if not _listed(protection, user):
            self._note(asked, user)  # else trying would tell which passwords are right
            return _challenge(asked)
        return self._welcome(asked, guards, protection, user)

    async def _known(
        self, asked: Asked, guards: Guards, protection: Protection, user: str, password: str
    ) -> bool:
        """Whether this is the password of `user`. Of who has to wait it is not looked at."""
        users = protection.users if protection.mode == "htpasswd" else {}
        if self._passwords.known(users, user, password):
            return True
        if not users:
            return await self._of_directory(asked, guards, protection.ldap, user, password)
        check, places = self._passwords.check, self._hashing
        return await self._looked_at(asked, user, places, check, users, user, password)

    def _wait(self, asked: Asked, user: str) -> float:
        return self._slowing.wait(asked.address, asked.service, user, self.clock())

    def _looked_at(
        self,
        asked: Asked,
        user: str,
        places: DeferredSemaphore,
        look: Callable[..., bool],
        *what: Any,
    ) -> Deferred[bool]:
        """What `look`, which blocks, says when it is its turn; no to who has to wait by then."""

        async def looked() -> bool:
            if self._wait(asked, user) > 0:
                return False
            right = await deferToThread(look, *what)
            if not right:
                self._note(asked, user)
            return right

        if self._wait(asked, user) > 0:
            return succeed(False)
        return places.run(lambda: Deferred.fromCoroutine(looked()))

    async def _of_directory(
        self, asked: Asked, guards: Guards, name: str, user: str, password: str
    ) -> bool:
        """Ask a directory, once for all that want the same meanwhile. One that is slow holds up
        nobody else."""
        server = guards.ldap_servers.get(name)
        if server is None:
            raise ProxyError(f"there is no directory {name}")
        same = (name, user, password)
        asking = self._asking.get(same)
        if asking is None:
            places = self._asking_at.setdefault(name, DeferredSemaphore(AT_ONCE))
            asking = self._looked_at(asked, user, places, self.verify, server, user, password)
            self._asking[same] = asking
            asking.addBoth(self._answered, same)
        waiting: Deferred[bool] = Deferred()
        asking.addBoth(_hand_on, waiting)
        return await waiting

    def _answered(self, result: Any, same: tuple[str, str, str]) -> Any:
        del self._asking[same]
        return result

    def _note(self, asked: Asked, user: str) -> None:
        """A login that failed: who, where and from where; never with what."""
        self._slowing.failed(asked.address, asked.service, user, self.clock())
        told = {"service": asked.service, "user": ascii(user)[:100], "address": asked.address}
        self._log.warn("{service}: the login of {user} from {address} failed", **told)


def _hand_on(result: Any, waiting: Deferred[bool]) -> Any:
    """Give one of those who wait what came of it. Nobody else looks at a failure."""
    if not waiting.called:
        waiting.callback(result)
    return result if isinstance(result, bool) else None


def _listed(protection: Protection, user: str) -> bool:
    return protection.listed is None or casefolded(user) in protection.listed


def _not_listed(asked: Asked, user: str) -> Answer:
    text = f"{user or 'Whoever you are'}, you are not among those who may use this."
    return refused(asked, 403, "Not for you", text)


def _led(guards: Guards, protection: Protection, user: str) -> str:
    """The service that `user` is led to instead; "" for none."""
    member = casefolded(user)
    for group, path in protection.betas if user else ():
        if member in guards.groups.get(group, ()):
            return path.rstrip("/") or "/"
    return ""


def _challenge(asked: Asked) -> Answer:
    """Ask for name and password, as browsers do by themselves."""
    text = f"{asked.service} asks for a name and a password."
    return refused(asked, 401, "Who are you?", text, ("WWW-Authenticate", REALM))


def _later(asked: Asked, wait: float) -> Answer:
    seconds = str(int(wait) + 1)
    text = f"That was wrong too often. Try again in {seconds} s."
    return refused(asked, 429, "Wait a moment", text, ("Retry-After", seconds))
