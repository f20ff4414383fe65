"""Names and passwords, who is listed, who is led elsewhere, and how guessing is slowed."""

from __future__ import annotations

import base64
import threading
from typing import Any

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from passlib.hash import (
    apr_md5_crypt,
    bcrypt,
    des_crypt,
    ldap_sha1,
    md5_crypt,
    sha256_crypt,
    sha512_crypt,
)
from twisted.trial.unittest import SynchronousTestCase, TestCase

from proxy.guard.asked import Asked
from proxy.guard.reading import protection_of
from proxy.guard.slowing import FREE, WINDOW
from proxy.protection import LdapServer, Protection
from proxy.routes import ProxyError
from tests.proxy.asking import (
    ANN,
    BOB,
    CREW,
    KEY,
    Asking,
    basic,
    cookies,
    guarding,
    header,
    identity,
    passes,
    token,
)
from tests.proxy.reactor import until

RIGHT, WRONG = basic("ann", "ann's"), basic("ann", "wrong")


class PasswordTests(TestCase):
    async def test_who_gets_in(self) -> None:
        """Only a name with its own password is let in; all others are asked, in the same words
        whatever was wrong (A-20, A-22)."""
        asking = guarding(CREW)
        answer = await asking.ask(RIGHT)
        self.assertEqual((answer.status, passes(answer)), (200, {"x-identity": "ann"}))
        self.assertEqual(header(answer, "X-Identity"), "ann")
        said = set()
        for number, headers in enumerate(
            (
                {},
                WRONG,
                basic("ann", ""),
                basic("ann", "bob's"),
                basic("ann", "ann's "),
                basic("ANN", "ann's"),
                basic("", "ann's"),
                basic("nobody", "ann's"),
                basic("ann", "ann's\0"),
                basic("ann", "x" * 100_000),
                basic("ann\n", "ann's"),
                {"authorization": "Basic"},
                {"authorization": "Basic ann:ann's"},
                {"authorization": RIGHT["authorization"].replace("Basic ", "Basic !")},
                {"authorization": RIGHT["authorization"].replace("Basic", "Digest")},
                {"authorization": f"{RIGHT['authorization']}, {RIGHT['authorization']}"},
                {"authorization": f"Bearer {token()}"},
                {"cookie": f"jwt={token()}"},
                identity("ann"),
            )
        ):
            asking.now += WINDOW
            answer = await asking.ask(headers)
            self.assertEqual(answer.status, 401, number)
            self.assertIn('realm="Forbidden!"', header(answer, "WWW-Authenticate"))
            self.assertEqual((passes(answer), cookies(answer)), ({}, {}))
            said.add(answer.body)
        self.assertEqual(len(said), 1)

    async def test_hashes(self) -> None:
        """Every kind of hash that settings may have is understood, with letters of any kind."""
        for scheme in (apr_md5_crypt, bcrypt, ldap_sha1, md5_crypt, sha256_crypt, sha512_crypt):
            some: Any = scheme
            cheap = {"rounds": 1000 if scheme in (sha256_crypt, sha512_crypt) else 4}
            made = some.using(**cheap) if hasattr(some, "rounds") else some
            await self._knows(made.hash("p\u00e4ss: word"), "p\u00e4ss: word")
        await self._knows(des_crypt.hash("short"), "short")

    async def _knows(self, hashed: str, password: str) -> None:
        protection, _ = protection_of({"HTPASSWD": f"ann:{hashed}"}, {}, (), devmode=False)
        asking = guarding(protection)
        self.assertEqual((await asking.ask(basic("ann", password))).status, 200, hashed)
        self.assertEqual((await asking.ask(basic("ann", password + "x"))).status, 401, hashed)

    async def test_lists(self) -> None:
        """A right password of who is not listed is asked for again; case does not matter; on an
        empty list is nobody (A-60)."""
        asking = guarding(evolve(CREW, listed=("ann",)))
        self.assertEqual((await asking.ask(RIGHT)).status, 200)
        answer = await asking.ask(basic("bob", "bob's"))
        self.assertEqual((answer.status, cookies(answer)), (401, {}))
        asking.services["/a"] = Protection("htpasswd", {"Ann": ANN}, listed=("ann",))
        self.assertEqual((await asking.ask(basic("Ann", "ann's"))).status, 200)
        asking.services["/a"] = evolve(CREW, listed=())
        self.assertEqual((await asking.ask(RIGHT)).status, 401)

    async def test_a_changed_password_counts_at_once(self) -> None:
        """What was right is remembered for its hash, and not a moment longer."""
        asking = guarding(CREW)
        self.assertEqual((await asking.ask(RIGHT)).status, 200)
        asking.services["/a"] = evolve(CREW, users={"ann": BOB})
        self.assertEqual((await asking.ask(RIGHT)).status, 401)
        self.assertEqual((await asking.ask(basic("ann", "bob's"))).status, 200)
        asking.services["/a"] = evolve(CREW, users={"bob": BOB})
        self.assertEqual((await asking.ask(basic("ann", "bob's"))).status, 401)

    async def test_who_nobody_guards(self) -> None:
        """A service that is not in the list, or has no users and no directory, is nobody's."""
        for asking in (Asking(), guarding(Protection("htpasswd")), guarding(Protection("ldap"))):
            with self.assertRaises(ProxyError):
                await asking.ask(RIGHT)

    async def test_a_directory_is_asked_once(self) -> None:
        """Many who want the same meanwhile wait for one answer, each gets it; the next asks
        anew."""
        asked: list[tuple[str, str, str]] = []
        go = threading.Event()

        def verify(server: LdapServer, user: str, password: str) -> bool:
            asked.append((server.url, user, password))
            return go.wait(10) and password == "ann's"

        server = LdapServer("ldap://ours/", "asker", "x")
        asking = guarding(
            Protection("ldap", ldap="ours"), ldap_servers={"ours": server}, verify=verify
        )
        waiting = [asking.ask(who) for who in (RIGHT, RIGHT, WRONG, RIGHT)]
        await until(lambda: len(asked) == 2, "the directory to be asked")
        waiting[0].addErrback(lambda _: None)
        waiting[0].cancel()
        go.set()
        answers = [(await one).status for one in waiting[1:]]
        self.assertEqual((answers, len(asked)), ([200, 401, 200], 2))
        self.assertEqual((await asking.ask(RIGHT)).status, 200)
        self.assertEqual(len(asked), 3)

    async def test_a_directory_that_does_not_say(self) -> None:
        """A directory in trouble lets nobody in, and is no failure of who asked."""

        def verify(server: LdapServer, user: str, password: str) -> bool:
            raise ProxyError("no answer")

        servers = {"ours": LdapServer("ldap://ours/", "asker", "x")}
        asking = guarding(Protection("ldap", ldap="ours"), ldap_servers=servers, verify=verify)
        for _ in range(FREE + 1):
            with self.assertRaises(ProxyError):
                await asking.ask(RIGHT)
        asking.verify = lambda *_: True
        self.assertEqual((await asking.ask(RIGHT)).status, 200)


class IdentityTests(TestCase):
    async def test_cookie_of_who_it_is(self) -> None:
        """Who is let in gets a signed cookie that pages can read, once; a forged or another's is
        replaced (A-22)."""
        asking = guarding(CREW)
        for scheme, secure in (("http", ""), ("https", True)):
            mark = cookies(await asking.ask(RIGHT, scheme=scheme))["starphleet_user"]
            self.assertEqual((mark["secure"], mark["samesite"], mark["path"]), (secure, "Lax", "/"))
            self.assertEqual((mark["httponly"], mark["domain"]), ("", ""))
            has = {**RIGHT, "cookie": f"starphleet_user={mark.value}"}
            self.assertEqual(cookies(await asking.ask(has)), {})
        for forged in (
            {"cookie": "starphleet_user=ann"},
            identity("ann", b"j" * 32),
            identity("b"),
        ):
            self.assertIn("starphleet_user", cookies(await asking.ask({**RIGHT, **forged})))

    async def test_names_of_header_and_cookie(self) -> None:
        """They are called as the settings say, and a name with any letters is one line."""
        users = {"Zo\u00eb 5%": ANN}
        asking = guarding(Protection("htpasswd", users, header="x-user", cookie="who"))
        answer = await asking.ask(basic("Zo\u00eb 5%", "ann's"))
        self.assertEqual(passes(answer), {"x-user": "Zo%C3%AB 5%25"})
        self.assertEqual(list(cookies(answer)), ["who"])

    async def test_beta_groups(self) -> None:
        """Who is in the group is led to the other path: known by a password, or on an open
        service by a cookie of ours, and by no forged one (A-70)."""
        betas = (("crew", "/b/"), ("testers", "/c/"))
        groups = {"crew": ("ann",), "testers": ("ann", "bob")}
        asking = guarding(evolve(CREW, betas=betas), groups=groups)
        self.assertEqual(header(await asking.ask(RIGHT), "X-Serve"), "/b")
        self.assertEqual(header(await asking.ask(basic("bob", "bob's")), "X-Serve"), "/c")
        asking.services["/a"] = Protection(betas=betas)
        for headers, led in (
            ({}, ""),
            (identity("ann"), "/b"),
            (identity("ANN"), "/b"),
            (identity("bob"), "/c"),
            (identity("cy"), ""),
            (identity("ann", b"j" * 32), ""),
            ({"cookie": "starphleet_user=ann; beta_a=/b"}, ""),
            ({"cookie": f"starphleet_user={token(KEY)}"}, ""),
            (RIGHT, ""),
        ):
            answer = await asking.ask(headers)
            self.assertEqual((answer.status, header(answer, "X-Serve")), (200, led), headers)
            self.assertEqual(passes(answer), {})
        asking.groups.clear()
        self.assertEqual(header(await asking.ask(identity("ann")), "X-Serve"), "")

    async def test_forced(self) -> None:
        """On a workstation everybody is who it was told, in every mode (A-80)."""
        for protection in (Protection(), CREW, Protection("ldap", ldap="gone")):
            answer = await guarding(evolve(protection, forced="dev")).ask(WRONG)
            self.assertEqual((answer.status, passes(answer)), (200, {"x-identity": "dev"}))
            self.assertIn("starphleet_user", cookies(answer))


class BasicTests(SynchronousTestCase):
    def sent(self, authorization: str) -> tuple[str, str]:
        headers = {"authorization": authorization}
        return Asked("/", "GET", "http", "h", "/", headers=headers).basic

    @settings(max_examples=300, deadline=None)
    @given(st.text(max_size=20).filter(lambda name: ":" not in name), st.text(max_size=20))
    def test_what_was_said(self, user: str, password: str) -> None:
        """Name and password arrive as they were, a colon in the password and all."""
        encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
        for kind in ("Basic", "basic", "BASIC"):
            self.assertEqual(self.sent(f"{kind} {encoded}"), (user, password))

    @settings(max_examples=300, deadline=None)
    @given(
        st.text(max_size=30) | st.binary(max_size=30).map(lambda b: base64.b64encode(b).decode())
    )
    def test_anything(self, text: str) -> None:
        """What is not as it should be is nobody, and no failure."""
        for authorization in (text, f"Basic {text}", f"Basic{text}"):
            user, _ = self.sent(authorization)
            self.assertNotIn(":", user)
