"""Who may use a service, as values: what is asked of its visitors, and what it is told of them."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from proxy.grammar import OWN as OWN
from proxy.ranks import Deed, Rank, may
from proxy.routes import ProxyError

MODES = ("public", "htpasswd", "ldap", "jwt", "private")


class NotProtected(ProxyError, ValueError):
    """What protects a service is named but not whole; the text names the setting."""


@frozen
class Jwt:
    """Tokens that a login service gives out. Times are in seconds.

    They are verified with `secret` (HMAC) or with the keys at `jwks_url`, one of them, and only by
    `algorithms`. Whoever has none is sent to `site`. `roles`: any will do when there are none.
    `lifetime` is that of a cookie, `oldest` how long ago a token may have been issued. `audience`
    and `issuer` are what a token has to say of itself, unless they are "".
    """

    site: str
    secret: str = field(default="", repr=False)
    jwks_url: str = ""
    algorithms: tuple[str, ...] = ("HS256",)
    cookie: str = "jwt"
    cookie_domain: str = ""
    roles: tuple[str, ...] = ()
    lifetime: int = 3600
    oldest: int = 48 * 3600
    audience: str = ""
    issuer: str = ""


@frozen
class Protection:
    """What a service's visitors are asked for. The default asks nothing.

    `users` maps names to hashes (`htpasswd`), `ldap` names a server of the headquarters. `listed`
    are the only ones let in, casefolded; `None` for all that are known. `betas` are (group, path):
    who is in the group gets what is served at the path. `header` and `cookie` are how the service
    and its pages learn who it is. `forced` is who everybody is taken for, without being asked.
    """

    mode: str = "public"
    users: Mapping[str, str] = field(factory=dict, repr=False)
    ldap: str = ""
    jwt: Jwt | None = None
    listed: tuple[str, ...] | None = None
    betas: tuple[tuple[str, str], ...] = ()
    header: str = "x-identity"
    cookie: str = "starphleet_user"
    forced: str = ""

    @property
    def asks(self) -> bool:
        """Whether a request has to be looked at before it may pass."""
        return self.mode != "public" or bool(self.betas) or bool(self.forced)


@frozen
class Member:
    """Somebody who has a key of the ship: their name and what they may do."""

    owner: str
    rank: Rank


@frozen
class Crew:
    """Everybody who has a key, by its fingerprint, and how they reach the ship: `ssh git@SHIP`."""

    members: Mapping[str, Member] = field(factory=dict)
    reached: str = "ssh git@ship"

    def rank(self, owner: str, key: str) -> Rank | None:
        """What `owner` is by this key, as it is now; `None` for nobody.

        The key is "" for who logged in on the host itself, where everything is open to them.
        """
        member = self.members.get(key) if key else Member(owner, Rank.ADMIRAL)
        return member.rank if member is not None and member.owner == owner else None

    def admits(self, owner: str, key: str, service: str) -> bool:
        """Whether `owner` may use a private `service` by this key, as it is now."""
        deed = Deed.PAGES if service == OWN else Deed.PRIVATE
        return may(self.rank(owner, key), deed)

    def misses(self, before: Crew) -> bool:
        """Whether somebody of `before` may do less now, or by another name."""
        return any(
            now is None or now.owner != was.owner or now.rank < was.rank
            for key, was in before.members.items()
            for now in (self.members.get(key),)
        )


@frozen
class LdapServer:
    """A directory that knows passwords, and as whom the ship asks it.

    `url` is `ldap[s]://HOST[:PORT]/BASE?ATTRIBUTE?SCOPE?FILTER`.
    """

    url: str
    user: str
    password: str = field(repr=False)
    starttls: bool = False
    authorities: str = field(default="", repr=False)


@frozen
class Sign:
    """A path of its own that leads elsewhere: to another `service`, or by a redirect to `url`."""

    path: str
    service: str = ""
    url: str = ""


@frozen
class Commons:
    """What all services of a ship share at its front door.

    `groups` maps names of beta groups to their members, casefolded.
    """

    groups: Mapping[str, tuple[str, ...]] = field(factory=dict)
    ldap_servers: Mapping[str, LdapServer] = field(factory=dict)
    signs: tuple[Sign, ...] = ()
