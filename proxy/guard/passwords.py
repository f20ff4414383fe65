"""Whether a password is the one that a hash was made of. Comparing takes its time: it is for
threads, and what was right is remembered."""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Mapping

from passlib.context import CryptContext

SCHEMES = (
    "bcrypt", "apr_md5_crypt", "md5_crypt", "sha256_crypt", "sha512_crypt", "ldap_sha1",
    "des_crypt",
)  # fmt: skip
LONGEST = 1000  # bytes of a password
REMEMBERED = 10_000  # passwords that were right

_context = CryptContext(schemes=list(SCHEMES))


class Passwords:
    """Compares passwords with hashes by name. Of those that were right it keeps a digest."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, None] = OrderedDict()

    def known(self, users: Mapping[str, str], user: str, password: str) -> bool:
        """Whether this was right before, for the hash that counts now. Takes no time."""
        kept = users.get(user)
        return kept is not None and self._digest(kept, password) in self._right

    def check(self, users: Mapping[str, str], user: str, password: str) -> bool:
        """Whether `password` is the one of `user`. Blocks, unless somebody has just asked."""
        if self.known(users, user, password):
            return True
        kept = users.get(user)
        # A name that nobody has takes as long, so that names cannot be told by the time.
        right = _verify(password, kept if kept is not None else next(iter(users.values())))
        if kept is not None and right:
            self.remember(users, user, password)
        return kept is not None and right

    def remember(self, users: Mapping[str, str], user: str, password: str) -> None:
        """This was right."""
        self._right[self._digest(users[user], password)] = None
        if len(self._right) > REMEMBERED:
            self._right.popitem(last=False)

    def _digest(self, kept: str, password: str) -> bytes:
        said = kept.encode() + b"\0" + password.encode("utf-8", "surrogateescape")
        return hmac.digest(self._key, said, "sha256")


def _verify(password: str, kept: str) -> bool:
    if not password or "\0" in password or len(password.encode("utf-8", "replace")) > LONGEST:
        return False
    # bcrypt looks at no more, nor does nginx.
    looked_at = password.encode()[:72] if kept.startswith("$2") else password.encode()
    try:
        return bool(_context.verify(looked_at, kept))
    except (ValueError, TypeError):
        return False
