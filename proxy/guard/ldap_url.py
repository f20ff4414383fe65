"""Where an `LDAP_URL` leads: a directory, and which of its entries."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import unquote

from attrs import frozen
from ldap3 import BASE, LEVEL, SUBTREE
from ldap3.core.exceptions import LDAPException
from ldap3.operation.search import parse_filter

from proxy.protection import NotProtected

URL = re.compile(
    r"(?P<scheme>ldaps?)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:(?P<port>[0-9]{1,5}))?"
    r"(/(?P<rest>[^\x00-\x1f\x7f]*))?",
    re.IGNORECASE | re.ASCII,
)
ATTRIBUTE = re.compile(r"[A-Za-z][A-Za-z0-9-]*|[0-9]+(\.[0-9]+)+")
Scope = Literal["BASE", "LEVEL", "SUBTREE"]
SCOPES: dict[str, Scope] = {"": SUBTREE, "base": BASE, "one": LEVEL, "sub": SUBTREE}


@frozen
class Target:
    """Where an `LDAP_URL` leads: a host, and which of its entries are looked through.

    `attribute` of an entry is the visitor's name, and the entry is of the `filter`.
    """

    secure: bool
    host: str
    port: int
    base: str
    attribute: str
    scope: Scope
    filter: str

    @property
    def name(self) -> str:
        """For a person: the directory, without what is asked of it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ldap{'s' if self.secure else ''}://{host}:{self.port}"

    def sought(self, user: str) -> str:
        """The filter of the entries whose name is `user`: none of its characters means anything."""
        value = "".join(f"\\{byte:02x}" for byte in user.encode())
        return f"(&{self.filter}({self.attribute}={value}))"


def parse(url: str) -> Target:
    """The target of `ldap[s]://HOST[:PORT][/BASE[?ATTRIBUTE[?SCOPE[?FILTER]]]]`.

    `NotProtected` when it is none. The parts after the host may be percent-encoded.
    """
    found = URL.fullmatch(url)
    if found is None:
        raise NotProtected("LDAP_URL must be ldap[s]://HOST[:PORT]/BASE?ATTRIBUTE?SCOPE?FILTER")
    secure = found["scheme"].lower() == "ldaps"
    port = int(found["port"] or (636 if secure else 389))
    if not 0 < port < 65536:
        raise NotProtected(f"LDAP_URL: there is no port {port}")
    base, attribute, scope, chosen = _parts(found["rest"] or "")
    if base and "=" not in base:
        raise NotProtected(f"LDAP_URL: the base {base[:80]!r} is no name of an entry")
    if not ATTRIBUTE.fullmatch(attribute):
        raise NotProtected(f"LDAP_URL: {attribute[:80]!r} is not one attribute")
    if scope.lower() not in SCOPES:
        raise NotProtected(f"LDAP_URL: the scope {scope[:80]!r} is not base, one or sub")
    host = found["host"].strip("[]")
    return Target(secure, host, port, base, attribute, SCOPES[scope.lower()], _filter(chosen))


def _parts(rest: str) -> tuple[str, str, str, str]:
    parts = rest.split("?")
    if len(parts) > 4:
        raise NotProtected("LDAP_URL: nothing may follow the filter; write a ? in it as %3F")
    try:
        base, attribute, scope, chosen = (
            unquote(part, errors="strict") for part in [*parts, "", "", ""][:4]
        )
    except UnicodeDecodeError:
        raise NotProtected("LDAP_URL: what is percent-encoded must be UTF-8") from None
    return base, attribute or "uid", scope, chosen or "(objectClass=*)"


def _filter(text: str) -> str:
    """`text`, if it is one filter, whose parentheses are all its own."""
    whole = text if text.startswith("(") else f"({text})"
    depth = 0
    for place, character in enumerate(whole, 1):
        depth += (character == "(") - (character == ")")
        if depth < 1 and place < len(whole):
            break
    try:
        if depth or whole[-1] != ")" or place < len(whole):
            raise ValueError("its parentheses do not match")
        parse_filter(whole, None, False, False, None, False)  # type: ignore[no-untyped-call]
    except (LDAPException, ValueError) as error:
        raise NotProtected(f"LDAP_URL: the filter {text[:80]!r}: {error}") from None
    return whole
