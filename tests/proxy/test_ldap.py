"""A directory is asked such that only who knows an entry's password is let in."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from ldap3.operation.search import compile_filter, parse_filter
from twisted.trial.unittest import SynchronousTestCase

from proxy.guard import ldap
from proxy.guard.ldap import LdapUnreachable, admitted, verify
from proxy.guard.ldap_url import Target, parse
from proxy.protection import LdapServer, NotProtected
from tests.ports import free_port
from tests.proxy.directory import ASKER, BASE, CREW, SECRET, Directory, await_that, certify

IN_CHAIN = "1.2.840.113556.1.4.1941"


class Shared:
    """The directory of this module, and one that has no TLS."""

    directory: Directory
    plain: Directory


def setUpModule() -> None:
    Shared.directory = Directory().start()
    Shared.plain = Directory(tls=False).start()


def tearDownModule() -> None:
    Shared.directory.stop()
    Shared.plain.stop()


class DirectoryCase(SynchronousTestCase):
    """Asks the directory of this module."""

    def setUp(self) -> None:
        self.directory = Shared.directory

    def asked(self, user: str, password: str, asked: str = "?uid") -> bool:
        return verify(self.directory.server(asked), user, password)

    def refused(self, user: str, password: str) -> None:
        self.assertFalse(self.asked(user, password))

    def unreachable(self, server: LdapServer) -> str:
        """Why ann cannot be asked for there: one line, and neither password is in it."""
        with self.assertRaises(LdapUnreachable) as raised:
            verify(server, "ann", "ann's")
        said = str(raised.exception)
        self.assertNotIn("\n", said)
        self.assertNotIn(server.password, said)
        self.assertNotIn("ann's", said)
        return said

    def untouched(self, ask: Callable[[], object]) -> None:
        """`ask()` makes no connection; what comes after it makes two."""
        before = accepted(self.directory)
        ask()
        self.assertTrue(self.asked("ann", "ann's"))
        await_that(lambda: accepted(self.directory) >= before + 2, "the log tells")
        self.assertEqual(accepted(self.directory), before + 2)


def accepted(directory: Directory) -> int:
    return len(re.findall(r"fd=\d+ ACCEPT", directory.log))


def binds(directory: Directory) -> int:
    return len(re.findall(r" BIND dn=", directory.log))


def sockets() -> int:
    """How many sockets this process has open."""
    found = 0
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  # some go while they are listed
        with contextlib.suppress(OSError):
            found += Path("/proc/self/fd", name).readlink().name.startswith("socket:")
    return found


class WhoTests(DirectoryCase):
    """Who is let in."""

    def test_right_and_wrong(self) -> None:
        """Who knows the password is let in, however the name is cased, and nobody else."""
        self.assertTrue(self.asked("ann", "ann's"))
        self.assertTrue(self.asked("ANN", "ann's"))
        self.assertFalse(self.asked("ann", "bob's"))
        self.assertFalse(self.asked("ann", "ANN's"))
        self.assertFalse(self.asked("nobody", "ann's"))
        self.assertFalse(self.asked("mute", "ann's"))

    def test_empty_password(self) -> None:
        """Nothing is asked with a password that a directory could take for none at all."""
        for password in ("", " ", "\t\n", "\0", "\0ann's", "ann's\0", "\udcff", "a" * 1001):
            self.untouched(partial(self.refused, "ann", password))

    def test_spelling(self) -> None:
        """A name with spaces around or invisible characters in it is no second name of somebody."""
        for user in ("", " ann", "ann ", "an\u00adn", "ann\0", "ann\n", "\udcff", "a" * 1001):
            self.untouched(partial(self.refused, user, "ann's"))

    def test_two_entries(self) -> None:
        """A name that more than one entry has is nobody's, be the password right for each."""
        self.assertFalse(self.asked("twin", "twin's"))
        self.assertFalse(self.asked("many", "many's"))
        url = f"ldap://localhost:{self.directory.port}/ou=others,{BASE}"
        self.assertTrue(verify(evolve(self.directory.server(), url=url), "twin", "twin's"))

    def test_injection(self) -> None:
        """No character of a name means anything in the filter."""
        for user in ("*", "an*", "*)(uid=*))(|(uid=*", "ann)(objectClass=*", r"\61nn", "(ann)"):
            self.assertFalse(self.asked(user, "ann's"), user)
        self.assertTrue(self.asked(r"*)(uid=\2a", "star's"))

    def test_hard_names(self) -> None:
        """Commas, quotes, a plus and letters of any script are fine in names and passwords."""
        self.assertTrue(self.asked("odd", "hard's"))
        self.assertTrue(self.asked("zoë", "pässwörd \u00aa"))
        self.assertFalse(self.asked("zoë", "pässwörd a"))

    def test_other_answers(self) -> None:
        """An account that is locked is let in as little; a directory that is busy is no answer."""
        with answering_logins(self.directory, 53) as url:
            self.assertFalse(verify(evolve(self.directory.server(), url=url), "ann", "no"))
        with (
            answering_logins(self.directory, 51) as url,
            self.assertRaises(LdapUnreachable) as raised,
        ):
            verify(evolve(self.directory.server(), url=url), "ann", "no")
        self.assertIn("a login is answered with busy", str(raised.exception))

    def test_root(self) -> None:
        """What is found but has no name cannot be logged in as."""
        server = evolve(
            self.directory.server(), url=f"ldap://localhost:{self.directory.port}/?objectClass?base"
        )
        self.assertFalse(verify(server, "top", "anything"))


class WhereTests(DirectoryCase):
    """Which entries are looked through."""

    def test_filter(self) -> None:
        """In the manner of Active Directory: another attribute, and only members of a group."""
        crew = f"?sAMAccountName?sub?(memberOf={CREW})"
        self.assertTrue(self.asked("ann.ad", "ann's", crew))
        self.assertFalse(self.asked("ann", "ann's", crew))
        self.assertTrue(self.asked("bob", "bob's", "?uid?sub?(!(memberOf=*))"))
        self.assertFalse(self.asked("bob", "bob's", f"?uid?sub?(memberOf={CREW})"))

    def test_matching_rule(self) -> None:
        """A rule by its number is asked as it is written: who has none of it is not let in."""
        self.assertTrue(self.asked("ann", "ann's", f"?uid?sub?(memberOf:2.5.13.1:={CREW})"))
        self.assertFalse(self.asked("bob", "bob's", f"?uid?sub?(memberOf:2.5.13.1:={CREW})"))
        self.assertFalse(self.asked("ann", "ann's", f"?uid?sub?(memberOf:{IN_CHAIN}:={CREW})"))

    def test_scope(self) -> None:
        """Only as deep as the scope says, by default to the ground."""
        self.assertFalse(self.asked("ann", "ann's", "?uid?one"))
        self.assertFalse(self.asked("ann", "ann's", "?uid?base"))
        self.assertTrue(self.asked("ann", "ann's", ""))
        port = self.directory.port
        for base, scope in (("ou=people,", "one"), ("uid=ann,ou=people,", "base")):
            url = f"ldap://localhost:{port}/{base}{BASE}??{scope}"
            self.assertTrue(verify(evolve(self.directory.server(), url=url), "ann", "ann's"))

    def test_encoded_base(self) -> None:
        """A base may be percent-encoded, or be written as it is."""
        port = self.directory.port
        for base in (f"ou=b%C3%BCro%2C{BASE}", f"ou=büro,{BASE}"):
            url = f"ldap://localhost:{port}/{base}"
            self.assertTrue(verify(evolve(self.directory.server(), url=url), "desk", "desk's"))

    def test_referral(self) -> None:
        """Nobody goes where a directory refers to, neither for a base nor for a part of it."""
        self.assertTrue(self.asked("ann", "ann's"))
        url = f"ldap://localhost:{self.directory.port}/ou=away,{BASE}"
        said = self.unreachable(evolve(self.directory.server(), url=url))
        self.assertIn("referral", said)
        self.directory.trap.setblocking(False)
        with self.assertRaises(BlockingIOError):
            self.directory.trap.accept()

    def test_no_such_base(self) -> None:
        """A base that is not there is told, not taken for an unknown name."""
        url = f"ldap://localhost:{self.directory.port}/dc=other"
        said = self.unreachable(evolve(self.directory.server(), url=url))
        self.assertIn("noSuchObject", said)


class TlsTests(DirectoryCase):
    """Passwords are told to nobody but the directory."""

    def test_secure(self) -> None:
        """LDAPS and StartTLS let in who is let in, and encrypt before anything is asked."""
        for server in (self.directory.server(secure=True), self.directory.server(starttls=True)):
            start = len(self.directory.log)
            self.assertTrue(verify(server, "ann", "ann's"))
            self.assertFalse(verify(server, "ann", "bob's"))
            await_that(lambda: self.directory.open() == 0, "the log tells")
            told = self.directory.log[start:]
            self.assertEqual(len(re.findall(r"TLS established tls_ssf=(?:256|128)", told)), 4)
            self.assertEqual(len(re.findall(r"mech=SIMPLE bind_ssf=0 ssf=0", told)), 0)

    def test_unknown_authority(self) -> None:
        """A certificate is refused that no authority that we trust signed."""
        other = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, other)
        certify(other)
        before = binds(self.directory)
        for server in (self.directory.server(secure=True), self.directory.server(starttls=True)):
            for authorities in ((other / "authority.pem").read_text(), ""):
                said = self.unreachable(evolve(server, authorities=authorities))
                self.assertIn("certificate verify failed", said)
        self.assertEqual(binds(self.directory), before)

    def test_other_host_name(self) -> None:
        """A certificate for another name than the one in the URL is refused."""
        before = binds(self.directory)
        for server in (self.directory.server(secure=True), self.directory.server(starttls=True)):
            url = server.url.replace("localhost", "127.0.0.1")
            self.assertIn("mismatch", self.unreachable(evolve(server, url=url)))
        self.assertEqual(binds(self.directory), before)

    def test_no_starttls(self) -> None:
        """When a directory does not offer StartTLS, nothing is said to it without."""
        server = evolve(Shared.plain.server(), starttls=True)
        self.assertTrue(verify(Shared.plain.server(), "ann", "ann's"))
        before = binds(Shared.plain)
        self.assertIn("startTLS failed", self.unreachable(server))
        await_that(lambda: Shared.plain.open() == 0, "the log tells")
        self.assertEqual(binds(Shared.plain), before)


class TroubleTests(DirectoryCase):
    """A directory that does not answer lets nobody in, and keeps nobody waiting."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(ldap, "ANSWERING", 1)

    def test_down(self) -> None:
        """A directory that is down, or has no address, is told at once with its address."""
        began = monotonic()
        port = free_port()
        said = self.unreachable(evolve(self.directory.server(), url=f"ldap://127.0.0.1:{port}"))
        self.assertIn(f"ldap://127.0.0.1:{port}: ", said)
        self.assertIn("refused", said)
        self.unreachable(evolve(self.directory.server(), url="ldap://directory.invalid"))
        self.assertLess(monotonic() - began, 5)

    def test_silent(self) -> None:
        """One that accepts and says nothing is given up in time, in the clear and by TLS."""
        with answering(b"", b"") as port:
            self.bounded(port)
            self.bounded(port, secure=True)
            self.bounded(port, starttls=True)

    def test_slow(self) -> None:
        """One that says a byte now and then is given up in time as well."""
        with answering(b"\x30\x84\x00\x00\xff\xff", b"\0") as port:
            self.assertIn("timed out", self.bounded(port))

    def test_talkative(self) -> None:
        """No more than a bounded number of bytes is taken from it."""
        self.patch(ldap, "ANSWERING", 8)
        with answering(b"\x30\x84\x7f\xff\xff\xff", b"\0" * 65536, pause=0) as port:
            self.assertIn("more than", self.bounded(port))

    def test_other_protocol(self) -> None:
        """What is no directory at all is told."""
        for said in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 50, b"\x30\x03\x02\x01\x01"):
            with answering(said, b"") as port:
                self.bounded(port)

    def test_wrong_account(self) -> None:
        """When the ship's own account is refused, the settings are named."""
        server = evolve(self.directory.server(), password="what it never was")
        said = self.unreachable(server)
        self.assertIn("LDAP_USER with LDAP_PASSWORD is refused (invalidCredentials)", said)

    def test_again(self) -> None:
        """A directory that was down is asked again as soon as it is back."""
        Shared.plain.hang_up()
        self.unreachable(Shared.plain.server())
        Shared.plain.listen()
        self.assertTrue(verify(Shared.plain.server(), "ann", "ann's"))

    def bounded(self, port: int, *, secure: bool = False, starttls: bool = False) -> str:
        """Why what listens on the port cannot be asked; in time."""
        scheme = "ldaps" if secure else "ldap"
        url, began = f"{scheme}://127.0.0.1:{port}/{BASE}", monotonic()
        said = self.unreachable(LdapServer(url, ASKER, SECRET, starttls))
        self.assertLess(monotonic() - began, 6)
        return said


@contextmanager
def answering(first: bytes, then: bytes, pause: float = 0.1) -> Iterator[int]:
    """A port where `first` is said to who connects, and `then` again and again until it goes."""
    over = Event()

    def talk(wire: socket.socket) -> None:
        with contextlib.suppress(OSError), wire:
            wire.sendall(first)
            while not over.wait(pause):
                wire.sendall(then)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while not over.is_set():
                Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        Thread(target=serve, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)


@contextmanager
def answering_logins(directory: Directory, code: int) -> Iterator[str]:
    """A URL where the directory answers a wrong password with another result code."""

    def pass_on(taken: socket.socket, given: socket.socket) -> None:
        with contextlib.suppress(OSError), taken:
            while data := taken.recv(4096):
                given.sendall(data.replace(b"\x61\x07\x0a\x01\x31", bytes((0x61, 7, 10, 1, code))))
            given.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                near = listener.accept()[0]
                far = socket.create_connection(("127.0.0.1", directory.port))
                for ends in ((near, far), (far, near)):
                    Thread(target=pass_on, args=ends, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        Thread(target=serve, daemon=True).start()
        try:
            yield f"ldap://127.0.0.1:{listener.getsockname()[1]}/{BASE}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)


class ConnectionTests(DirectoryCase):
    """Connections are closed when they have served."""

    def test_unbound(self) -> None:
        """The ship's own account only searches; each connection says goodbye and is closed."""
        start = len(self.directory.log)
        self.assertTrue(self.asked("ann", "ann's"))
        self.assertFalse(self.asked("ann", "bob's"))
        self.assertFalse(self.asked("nobody", "bob's"))
        await_that(lambda: self.directory.open() == 0, "the directory has no connections")
        told = self.directory.log[start:]
        asking = set(re.findall(rf'conn=(\d+) op=\d+ BIND dn="{ASKER}" method', told))
        self.assertEqual(len(asking), 3)
        self.assertEqual(set(re.findall(r"conn=(\d+) op=\d+ SRCH base", told)), asking)
        everyone = re.findall(r"conn=(\d+) fd=\d+ ACCEPT", told)
        self.assertEqual(len(everyone), 5)
        self.assertEqual(set(re.findall(r"conn=(\d+) op=\d+ UNBIND", told)), set(everyone))

    def test_many_at_once(self) -> None:
        """Thirty visitors in eight threads get each their own answer, and no connection stays."""
        before = sockets()
        server = self.directory.server(secure=True)
        asked = [(name, f"{name if right else 'no'}'s", right) for name, right in self.visitors()]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda one: verify(server, one[0], one[1]), asked))
        self.assertEqual(answers, [right for _, _, right in asked])
        self.assertEqual(sockets(), before)
        await_that(lambda: self.directory.open() == 0, "the directory has no connections")

    def visitors(self) -> list[tuple[str, bool]]:
        return [(("ann", "bob")[n % 2], n % 3 > 0) for n in range(30)]

    def test_failures_leave_nothing(self) -> None:
        """What went wrong leaves no connection behind, before any garbage is collected."""
        self.patch(ldap, "ANSWERING", 1)
        secure = self.directory.server(secure=True)
        starting = self.directory.server(starttls=True)
        wrong = [
            evolve(secure, authorities=""),
            evolve(starting, authorities=""),
            evolve(Shared.plain.server(), starttls=True),
            evolve(secure, password="wrong"),
            evolve(secure, url=f"ldap://127.0.0.1:{free_port()}"),
        ]
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            before = sockets()
            for one in [*wrong, evolve(secure, url=f"ldap://127.0.0.1:{silent.getsockname()[1]}")]:
                self.unreachable(one)
            self.assertEqual(sockets(), before)
        await_that(lambda: self.directory.open() == 0, "the directory has no connections")


def nested() -> st.SearchStrategy[str]:
    """Filters such as they are written, more or less."""
    plain = st.sampled_from(("(a=b)", "(a=*)", "(a:1.2:=b)", "(a=b*c)", "(a>=2)", "(=)", "()"))

    def several(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        parts = st.lists(inner, max_size=3).map("".join)
        return st.builds("({}{})".format, st.sampled_from("&|!"), parts)

    return st.recursive(plain, several, max_leaves=8)


def compiled(text: str) -> tuple[list[str], bytes]:
    """What a server is sent for a filter: the kinds of what must all be, and the last's value."""
    made: Any = compile_filter(parse_filter(text, None, False, False, None, False).elements[0])
    parts = [(one.getName(), one.getComponent()) for one in made.getComponent()]
    return [name for name, _ in parts], bytes(parts[-1][1]["assertionValue"])


class SettingsTests(SynchronousTestCase):
    """A server's settings are refused before anything is served by them."""

    def test_defaults(self) -> None:
        """All but the host has a default."""
        self.assertEqual(
            parse("LDAP://Directory.Example"),
            Target(False, "Directory.Example", 389, "", "uid", "SUBTREE", "(objectClass=*)"),
        )
        self.assertEqual(parse("ldaps://[::1]/").name, "ldaps://[::1]:636")
        self.assertEqual(parse("ldaps://a:99/dc=b?cn?ONE?x=y").filter, "(x=y)")

    def test_parts(self) -> None:
        """Each part is what stands between the question marks, decoded."""
        url = f"ldap://ad:3268/DC=a%20b,DC=c?sAMAccountName?base?(memberOf:{IN_CHAIN}:=CN=x%3F)"
        self.assertEqual(
            parse(url),
            Target(
                False,
                "ad",
                3268,
                "DC=a b,DC=c",
                "sAMAccountName",
                "BASE",
                f"(memberOf:{IN_CHAIN}:=CN=x?)",
            ),
        )

    def test_refused(self) -> None:
        """What is no such URL is refused with one line that names the setting."""
        for url in (
            "", "http://a", "ldap://", "ldap:///dc=a", "ldap://a b", "ldap://a\n", "ldap://u@a",
            "ldap://a:0", "ldap://a:65536", "ldap://a:x", "ldapi://a", "ldap://a/\n", "ldap://a/b",
            "ldap://a/%ff=b", "ldap://a/?uid,cn", "ldap://a/?u)(d", "ldap://a/??deep",
            "ldap://a/????x", "ldap://a/???(a=b", "ldap://a/???(a=b)(c=d)",
            "ldap://a/???(a=b))(|(c=d)", "ldap://a/???(&)", "ldap://a/???((a=b))", "ldap://a/???()",
        ):  # fmt: skip
            with self.assertRaises(NotProtected, msg=url) as raised:
                parse(url)
            self.assertRegex(str(raised.exception), r"\ALDAP_URL[^\n]*\Z")

    def test_account(self) -> None:
        """Without an account of its own the ship asks nothing, and says what is missing."""
        admitted(LdapServer("ldaps://a", "u", "p"))
        for empty in ("", " ", "\0"):
            for user, password, named in ((empty, "p", "LDAP_USER"), ("u", empty, "LDAP_PASSWORD")):
                server = LdapServer("ldaps://a", user, password)
                with self.assertRaises(NotProtected) as raised:
                    admitted(server)
                self.assertIn(named, str(raised.exception))
                with self.assertRaises(LdapUnreachable):
                    verify(server, "ann", "ann's")

    def test_authorities(self) -> None:
        """What is no certificate is refused as such."""
        for text in ("no", "é", "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n"):
            with self.assertRaises(NotProtected) as raised:
                admitted(LdapServer("ldaps://a", "u", "p", authorities=text))
            self.assertIn("LDAP_CA", str(raised.exception))

    @settings(max_examples=200, deadline=None)
    @given(st.text(min_size=1).filter(lambda text: text.isprintable()))
    def test_any_name(self, user: str) -> None:
        """Whatever a name is, the filter asks for the filter of the URL and exactly that name."""
        made = compiled(parse("ldap://a/dc=b?uid?sub?(|(a=b)(c=d))").sought(user))
        self.assertEqual(made, (["or", "equalityMatch"], user.encode()))

    @settings(max_examples=200, deadline=None)
    @given(st.text(alphabet="()&|!=*\\:~<> a2", max_size=20).map("(a=b)".__add__) | nested())
    def test_any_filter(self, text: str) -> None:
        """Whatever a filter is: it is refused, or all that is found has the name besides."""
        try:
            target = parse(f"ldap://a/???{text}")
        except NotProtected:
            return
        kinds, value = compiled(target.sought("ann"))
        self.assertEqual((len(kinds), kinds[-1], value), (2, "equalityMatch", b"ann"))
