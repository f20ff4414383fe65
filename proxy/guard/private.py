"""The mode `private`: who has a key of the ship gets a link by SSH, and the link a cookie."""

from __future__ import annotations

from attrs import frozen
from twisted.logger import Logger

from proxy.guard.asked import Answer, Asked, cookie, elsewhere, refused
from proxy.guard.login import query_value, without
from proxy.guard.passes import Pass, Passes
from proxy.protection import OWN, Crew

LINK = "starphleet_link"  # an argument of URLs
COOKIE = "starphleet_session"
LEAVE = "/starphleet/leave"
_log = Logger()


@frozen
class Private:
    """`links` let somebody in once, `sessions` are what cookies are about. Raises `OSError`."""

    links: Passes
    sessions: Passes

    def session(self, asked: Asked, crew: Crew, now: float) -> Pass | None:
        """That of a request, if whose it is still may come in."""
        for token in asked.cookies(_cookie_name(asked)):
            found = self.sessions.find(token, asked.service, now)
            if found and crew.admits(found.owner, found.key, asked.service):
                return found
        return None

    def by_link(self, asked: Asked, crew: Crew, session: Pass | None, now: float) -> Answer | None:
        """What becomes of a link that somebody came by; `None` where there is none to be taken.

        Who is in already stays who they are: a link that somebody else slipped in changes nothing.
        """
        token = query_value(asked.uri, LINK)
        if not token or asked.method != "GET" or asked.headers.get("upgrade"):
            return None
        target = without(asked.uri, LINK)
        taken = self.links.take(token, asked.service, now)
        if taken is None or not crew.admits(taken.owner, taken.key, asked.service):
            return elsewhere(target) if session else _over(asked, crew)
        if session is not None and session.owner != taken.owner:
            return elsewhere(target)
        told = {"service": asked.service, "owner": taken.owner, "address": asked.address}
        _log.info("{service}: {owner} came in by a link from {address}", **told)
        made = self.sessions.make(taken.service, taken.owner, taken.key, now)
        return elsewhere(target, ("Set-Cookie", _cookie(asked, made, self.sessions.seconds)))

    def leave(self, asked: Asked) -> Answer | None:
        """Whoever wants to leave the ship's pages is out; `None` for who does not."""
        if asked.service != OWN or asked.method != "POST" or asked.uri.partition("?")[0] != LEAVE:
            return None
        for token in asked.cookies(_cookie_name(asked)):
            self.sessions.end(token)
        return elsewhere("/starphleet/dashboard", ("Set-Cookie", _cookie(asked, "", 0)))


def knock(asked: Asked, crew: Crew) -> Answer:
    """Who is not in is told how to get there."""
    title, text = "Who are you?", f"This is for who has a key of the ship. {_way_in(asked, crew)}"
    return refused(asked, 401, title, text, ("WWW-Authenticate", "Starphleet"))


def _over(asked: Asked, crew: Crew) -> Answer:
    text = f"It was used already, or not within two minutes. {_way_in(asked, crew)}"
    return refused(asked, 401, "This link is over", text, ("WWW-Authenticate", "Starphleet"))


def _way_in(asked: Asked, crew: Crew) -> str:
    name = "dashboard" if asked.service == OWN else asked.service
    return f"In a terminal: {crew.reached} open {name} - and open the link that it prints."


def _cookie_name(asked: Asked) -> str:
    """With the prefix by which browsers know that nobody else has set it."""
    if not asked.secure:
        return COOKIE
    return f"__Secure-{COOKIE}" if asked.prefix else f"__Host-{COOKIE}"


def _cookie(asked: Asked, value: str, seconds: int) -> str:
    """For this way to the service alone."""
    path = f"{asked.prefix}/"
    return cookie(_cookie_name(asked), value, seconds, secure=asked.secure, path=path)
