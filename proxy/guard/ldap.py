"""Whether a directory knows a name and its password. What asks it blocks: it is for threads.

The ship's own account looks the name up; then a connection of its own binds as what was found.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from time import monotonic
from typing import Any

from attrs import define
from ldap3 import DEREF_NEVER, NONE, Connection, Server, Tls
from ldap3.core import results
from ldap3.core.exceptions import LDAPException

from proxy.guard.ldap_url import Target, parse
from proxy.protection import LdapServer, NotProtected
from proxy.routes import ProxyError

CONNECTING = 5  # seconds, for each address of the host
ANSWERING = 10  # seconds for all that is said over one connection
LARGEST = 1 << 20  # bytes that the directory may say over one connection
LONGEST = 1000  # characters of a name or a password

NOT_THEY = {
    results.RESULT_INVALID_CREDENTIALS,
    results.RESULT_INAPPROPRIATE_AUTHENTICATION,
    results.RESULT_NO_SUCH_OBJECT,
    results.RESULT_INSUFFICIENT_ACCESS_RIGHTS,
    results.RESULT_UNWILLING_TO_PERFORM,  # an account that is locked
    results.RESULT_CONSTRAINT_VIOLATION,  # too many failures
}
"""What a directory says to a bind that it refuses because of who binds."""


class LdapUnreachable(ProxyError):
    """A directory could not be asked; the text is one line: its address, and why."""


def admitted(server: LdapServer) -> Target:
    """Where `server` is, if all of its settings could be used; else `NotProtected`."""
    target = parse(server.url)
    for setting, value in (("LDAP_USER", server.user), ("LDAP_PASSWORD", server.password)):
        # Without one of them the directory would let in nobody in particular.
        if not value.replace("\0", "").strip() or not _encodable(value):
            raise NotProtected(f"{setting} is empty or no text")
    _context(server, target)
    return target


def verify(server: LdapServer, user: str, password: str) -> bool:
    """Whether exactly one entry has the name, and the password is that entry's.

    Blocks for some ten seconds at most for each of two connections. `LdapUnreachable` when
    the directory does not say.
    """
    if not _askable(user, password):
        return False
    try:
        target = admitted(server)
        context = _context(server, target)
    except NotProtected as error:
        raise LdapUnreachable(str(error)) from None
    with _told(target):
        with _connected(target, context, server.user, server.password) as asking:
            _as_the_ship(asking)
            found = _found(asking, target, user)
        if not found:
            return False
        with _connected(target, context, found, password) as trying:
            return _as_the_visitor(trying)


def _askable(user: str, password: str) -> bool:
    """Whether a name and a password are such that an answer to them would mean something.

    A directory takes a bind without a password for one by nobody, and lets it in. It does not
    see spaces around a name or invisible characters in it, but an application does.
    """
    return (
        0 < len(user) <= LONGEST
        and len(password) <= LONGEST
        and user.isprintable()
        and user == " ".join(user.split())
        and bool(password.strip())
        and "\0" not in password
        and _encodable(password)
    )


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _context(server: LdapServer, target: Target) -> ssl.SSLContext | None:
    """How a certificate is checked; none when there is no TLS."""
    if not (target.secure or server.starttls):
        return None
    try:
        return _trusting(server.authorities)
    except (ssl.SSLError, ValueError, TypeError):
        raise NotProtected("LDAP_CA must be certificates in PEM") from None


@lru_cache(maxsize=8)  # the system's authorities take a tenth of a second to read
def _trusting(authorities: str) -> ssl.SSLContext:
    """Who is trusted to sign a certificate: `authorities` (PEM), or those of the system."""
    return ssl.create_default_context(cadata=authorities or None)


@define
class _Bounded:
    """A connected socket that gives up at `until` (monotonic), or after too many bytes."""

    raw: socket.socket
    until: float
    left: int = LARGEST

    def recv(self, size: int) -> bytes:
        self._hurry()
        if not self.left:
            raise OSError(f"it says more than {LARGEST} bytes")
        data = self.raw.recv(min(size, self.left))
        self.left -= len(data)
        return data

    def sendall(self, data: bytes) -> None:
        self._hurry()
        self.raw.sendall(data)

    def shutdown(self, how: int) -> None:
        self.raw.shutdown(how)

    def close(self) -> None:
        self.raw.close()

    def _hurry(self) -> None:
        left = self.until - monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self.raw.settimeout(left)


class _Checked(Tls):
    """TLS with a context of the standard library, which checks the host name in the handshake."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(validate=ssl.CERT_REQUIRED)
        self.context = context

    def wrap_socket(self, connection: Any, do_handshake: bool = False) -> None:
        given = connection.socket
        raw = given.raw if isinstance(given, _Bounded) else given
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # saves 40 ms at the handshake
        connection.socket = self.context.wrap_socket(raw, server_hostname=connection.server.host)


@contextmanager
def _told(target: Target) -> Iterator[None]:
    """Names the directory in whatever goes wrong: what it answers may be no LDAP at all."""
    try:
        yield
    except Exception as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise LdapUnreachable(f"{target.name}: {said}") from error


@contextmanager
def _connected(
    target: Target, context: ssl.SSLContext | None, who: str, password: str
) -> Iterator[Connection]:
    """A connection that binds as `who` when it is told to, and is closed when it is left."""
    tls = _Checked(context) if context else None
    host = Server(
        target.host, target.port, target.secure, get_info=NONE, tls=tls, connect_timeout=CONNECTING
    )
    connection: Any = Connection(
        host,
        who,
        password.encode(),  # type: ignore[arg-type]  # a text would be changed (SASLprep)
        authentication="SIMPLE",
        auto_referrals=False,
        check_names=False,
        auto_escape=False,
        auto_encode=False,
        receive_timeout=ANSWERING,
    )
    try:
        _open(connection, starttls=context is not None and not target.secure)
        yield connection
        with suppress(LDAPException):  # who has answered need not hear a goodbye
            connection.unbind()
    finally:
        if connection.socket is not None:
            connection.socket.close()


def _open(connection: Any, *, starttls: bool) -> None:
    connection.open(read_server_info=False)
    until = monotonic() + ANSWERING
    connection.socket = _Bounded(connection.socket, until)
    if starttls:
        if not connection.start_tls(read_server_info=False):
            raise OSError("StartTLS is refused")
        connection.socket = _Bounded(connection.socket, until)


def _as_the_ship(connection: Any) -> None:
    if not connection.bind(read_server_info=False):
        said = connection.result["description"]
        raise OSError(f"LDAP_USER with LDAP_PASSWORD is refused ({said})")


def _as_the_visitor(connection: Any) -> bool:
    if connection.bind(read_server_info=False):
        return True
    if connection.result["result"] in NOT_THEY:
        return False
    raise OSError(f"a login is answered with {connection.result['description']}")


def _found(connection: Any, target: Target, user: str) -> str:
    """The one entry that has the name; empty when there is none, or more than one."""
    connection.search(
        target.base,
        target.sought(user),
        target.scope,
        dereference_aliases=DEREF_NEVER,
        size_limit=2,
        time_limit=ANSWERING,
    )
    result = connection.result
    if result["result"] == results.RESULT_SIZE_LIMIT_EXCEEDED:
        return ""
    if result["result"] != results.RESULT_SUCCESS:
        raise OSError(f"a search is answered with {result['description']}")
    entries = [one["dn"] for one in connection.response if one["type"] == "searchResEntry"]
    return entries[0] if len(entries) == 1 else ""
