"""From settings to who may use a service: what is taken, and what is refused in which words."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from proxy.guard.asked import Asked, cookie
from proxy.guard.login import log_in
from proxy.guard.names import presentable
from proxy.guard.reading import OPEN, protection_of
from proxy.protection import Jwt, NotProtected, Protection

BCRYPT = "$2b$04$TvJodhOctFq8BcW5kMReeuNactYarhl3cNjt5pk0/C5XIFNWqqiIe"
APR1 = "$apr1$abcdefgh$" + "a" * 22
CRYPT = "ab" + "c" * 11
SHA = "{SHA}" + "a" * 27 + "="
LONG = "a secret of the login service, long enough"
WEAK = "sixteen bytes !!"
SITE = "https://login.example.com/in"
JWT = {"SECURITY_MODE": "jwt", "JWT_SECRET": LONG, "JWT_AUTH_SITE": SITE}
KEYS = {"SECURITY_MODE": "jwt", "JWT_JWKS_URL": "https://k.example.com/x", "JWT_AUTH_SITE": SITE}
CONTROLS = "".join(map(chr, [*range(32), 127]))


def read(
    environment: Mapping[str, str],
    files: Mapping[str, bytes] | None = None,
    *,
    devmode: bool = False,
) -> Protection:
    return protection_of(environment, files or {}, (), devmode=devmode)[0]


def tokens_of(environment: Mapping[str, str]) -> Jwt:
    found = read(environment).jwt
    assert found is not None
    return found


def with_(base: Mapping[str, str], **more: str) -> dict[str, str]:
    return {**base, **more}


REFUSED: tuple[tuple[dict[str, str], dict[str, bytes], str], ...] = (
    ({"SECURITY_MODE": "basic"}, {}, "SECURITY_MODE: 'basic' is none of public, htpasswd"),
    ({"SECURITY_MODE": "Public"}, {}, "SECURITY_MODE"),
    ({"SECURITY_MODE": "htpasswd"}, {}, "HTPASSWD"),
    ({"SECURITY_MODE": "htpasswd", "HTPASSWD": "# nobody\n"}, {}, "HTPASSWD"),
    ({"SECURITY_MODE": "ldap"}, {}, "LDAP_SERVER"),
    ({"SECURITY_MODE": "jwt"}, {}, "JWT_SECRET"),
    ({"HTPASSWD": f"ann:{BCRYPT}\nbob:5ecret"}, {}, "HTPASSWD: line 2"),
    ({"HTPASSWD": "ann:{PLAIN}5ecret"}, {}, "HTPASSWD: line 1"),
    ({"HTPASSWD": f"ann:{BCRYPT[:-1]}"}, {}, "HTPASSWD: line 1"),
    ({"HTPASSWD": "ann:$2b$31$" + BCRYPT[7:]}, {}, "HTPASSWD: line 1"),
    ({"HTPASSWD": "ann:$6$rounds=9999999$salt$" + "5ecret" * 20}, {}, "HTPASSWD: line 1"),
    ({"HTPASSWD": "ann:$5$rounds=00009$salt$" + "a" * 43}, {}, "HTPASSWD: line 1"),
    ({"HTPASSWD": f":{BCRYPT}"}, {}, "HTPASSWD: line 1"),
    ({"HTPASSWD": f"ann :{BCRYPT}"}, {}, "HTPASSWD: line 1"),
    ({"HTPASSWD": f"a\tnn:{BCRYPT}"}, {}, "HTPASSWD: line 1"),
    ({"HTPASSWD": f"{'a' * 201}:{BCRYPT}"}, {}, "HTPASSWD: line 1"),
    ({}, {".htpasswd": b"ann:5ecret"}, ".htpasswd: line 1"),
    ({}, {".htpasswd": b""}, "HTPASSWD"),
    ({}, {"crew.acl": b"ann"}, "crew.acl: SECURITY_MODE=public"),
    (with_(JWT, JWT_SECRET=""), {}, "JWT_SECRET"),
    (with_(JWT, JWT_SECRET="5ecret"), {}, "JWT_SECRET: it has to have 16 bytes"),
    (with_(JWT, JWT_SECRET="-----BEGIN PUBLIC KEY-----\n5ecret"), {}, "JWT_SECRET"),
    (with_(JWT, JWT_SECRET="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 5ecret"), {}, "JWT_SECRET"),
    (with_(JWT, JWT_JWKS_URL="https://5ecret.example.com/"), {}, "JWT_SECRET"),
    (with_(KEYS, JWT_JWKS_URL="file:///etc/5ecret"), {}, "JWT_JWKS_URL"),
    (with_(KEYS, JWT_JWKS_URL="https://user:5ecret@k.example.com/"), {}, "JWT_JWKS_URL"),
    (with_(KEYS, JWT_JWKS_URL="https://k.example.com/a b"), {}, "JWT_JWKS_URL"),
    (with_(KEYS, JWT_JWKS_URL="https://k.example.com/\x01"), {}, "JWT_JWKS_URL"),
    (with_(JWT, JWT_AUTH_SITE=""), {}, "JWT_AUTH_SITE"),
    (with_(JWT, JWT_AUTH_SITE="//evil.example.com"), {}, "JWT_AUTH_SITE"),
    (with_(JWT, JWT_AUTH_SITE="javascript:alert(1)"), {}, "JWT_AUTH_SITE"),
    (with_(JWT, JWT_AUTH_SITE="https://a b/"), {}, "JWT_AUTH_SITE"),
    (with_(JWT, JWT_AUTH_SITE="https://a/\r\nX: y"), {}, "JWT_AUTH_SITE"),
    (with_(JWT, JWT_AUTH_SITE="https://a["), {}, "JWT_AUTH_SITE"),
    (with_(JWT, JWT_AUTH_SITE="/login\\x"), {}, "JWT_AUTH_SITE"),
    (with_(JWT, JWT_ALGORITHM="none"), {}, "JWT_ALGORITHM: 'none'"),
    (with_(JWT, JWT_ALGORITHM="HS256,RS256"), {}, "JWT_ALGORITHM: 'RS256'"),
    (with_(KEYS, JWT_ALGORITHM="HS256"), {}, "JWT_ALGORITHM: 'HS256'"),
    (with_(JWT, JWT_COOKIE_DOMAIN="a.example.com; Secure"), {}, "JWT_COOKIE_DOMAIN"),
    (with_(JWT, JWT_COOKIE_NAME="a;b"), {}, "JWT_COOKIE_NAME"),
    (with_(JWT, JWT_COOKIE_NAME="Max-Age"), {}, "JWT_COOKIE_NAME"),
    (with_(JWT, JWT_COOKIE_NAME="starphleet_user"), {}, "USER_IDENTITY_COOKIE"),
    (with_(JWT, JWT_EXPIRATION="1h"), {}, "JWT_EXPIRATION"),
    (with_(JWT, JWT_EXPIRATION="0"), {}, "JWT_EXPIRATION"),
    (with_(JWT, JWT_MAX_TOKEN_AGE_IN_SECONDS="-1"), {}, "JWT_MAX_TOKEN_AGE_IN_SECONDS"),
    ({"USER_IDENTITY_HEADER": "X-Id: 1\r\nX"}, {}, "USER_IDENTITY_HEADER"),
    ({"USER_IDENTITY_HEADER": "Host"}, {}, "USER_IDENTITY_HEADER"),
    ({"USER_IDENTITY_HEADER": "Cookie"}, {}, "USER_IDENTITY_HEADER"),
    ({"USER_IDENTITY_HEADER": "X-Forwarded-For"}, {}, "USER_IDENTITY_HEADER"),
    ({"USER_IDENTITY_HEADER": "User-Agent"}, {}, "USER_IDENTITY_HEADER"),
    ({"USER_IDENTITY_HEADER": "accept"}, {}, "USER_IDENTITY_HEADER"),
    ({"USER_IDENTITY_HEADER": "jwt-sub"}, {}, "USER_IDENTITY_HEADER"),
    ({"USER_IDENTITY_HEADER": "x_identity"}, {}, "USER_IDENTITY_HEADER"),
    ({"USER_IDENTITY_COOKIE": "a=b"}, {}, "USER_IDENTITY_COOKIE"),
    ({"USER_IDENTITY_COOKIE": "path"}, {}, "USER_IDENTITY_COOKIE"),
    ({"DEVMODE_FORCE_AUTH": "ann\nbob"}, {}, "DEVMODE_FORCE_AUTH"),
)


class SettingTests(SynchronousTestCase):
    def test_what_is_not_whole_is_refused(self) -> None:
        """Each setting that is wrong or missing is named, in one line that tells no secret."""
        for environment, files, says in REFUSED:
            with self.assertRaises(NotProtected, msg=environment) as caught:
                read(environment, files)
            text = str(caught.exception)
            self.assertTrue(text.startswith(says), (text, says))
            self.assertNotIn("5ecret", text)
            self.assertNotIn("$", text)
            self.assertTrue(text.isprintable(), text)

    def test_modes(self) -> None:
        """A mode that is named counts; else passwords make it htpasswd, and their lack public."""
        for environment, files, mode in (
            ({}, {}, "public"),
            ({"HTPASSWD": f"ann:{APR1}"}, {}, "htpasswd"),
            ({}, {".htpasswd": f"ann:{SHA}".encode()}, "htpasswd"),
            ({"SECURITY_MODE": "public"}, {".htpasswd": b"not looked at"}, "public"),
            ({"SECURITY_MODE": "ldap", "LDAP_SERVER": "ours", "HTPASSWD": "x"}, {}, "ldap"),
            (JWT, {".htpasswd": f"ann:{CRYPT}".encode()}, "jwt"),
        ):
            self.assertEqual(read(environment, files).mode, mode)

    def test_warnings(self) -> None:
        """An open service is warned of unless its orders say so, and so is a weak secret."""
        self.assertEqual(protection_of({}, {}, (), devmode=False)[1], (OPEN,))
        named = protection_of({"SECURITY_MODE": "public"}, {}, (), devmode=False)
        self.assertEqual(named[1], ())
        self.assertEqual(protection_of(JWT, {}, (), devmode=False)[1], ())
        doubts = protection_of(with_(JWT, JWT_SECRET=WEAK), {}, (), devmode=False)[1]
        self.assertEqual(doubts, ("JWT_SECRET: it is shorter than 32 bytes",))

    def test_users_of_variable_and_file(self) -> None:
        """Both count; whom both have, the variable's hash counts for. Comments and more fields
        are passed over."""
        found = read(
            {"HTPASSWD": f"\n# crew\n  ann:{BCRYPT}:more\ncy:{CRYPT}\n"},
            {".htpasswd": f"ann:{APR1}\r\nbob:{SHA}\r\n".encode()},
        )
        self.assertEqual(found.users, {"ann": BCRYPT, "bob": SHA, "cy": CRYPT})

    def test_lists(self) -> None:
        """Everybody in any list, in one case and once; an empty list is nobody, none is all."""
        users = {"HTPASSWD": f"ann:{APR1}"}
        files = {"b.acl": b"Ann\n\n# boss\n ZO\xc3\x8b \n", "a.acl": b"ANN\nbob\r\nZOE\xcc\x88\n"}
        self.assertEqual(read(users, files).listed, ("ann", "bob", "zo\u00eb"))
        self.assertEqual(read(users, {"a.acl": b"# nobody\n"}).listed, ())
        self.assertIsNone(read(users, {"acl": b"ann", "notes.txt": b"bob"}).listed)
        self.assertEqual(read(JWT, {"a.acl": b"ann"}).listed, ("ann",))

    def test_defaults_of_tokens(self) -> None:
        """What is not said of tokens is as in the guide; algorithms are of the key's family."""
        self.assertEqual(tokens_of(JWT), Jwt(SITE, LONG))
        self.assertEqual(tokens_of(KEYS).algorithms, ("RS256", "ES256", "EdDSA"))
        said = tokens_of(
            with_(
                JWT,
                JWT_ALGORITHM="HS512",
                JWT_COOKIE_NAME="session",
                JWT_COOKIE_DOMAIN=".Example.COM",
                JWT_ROLES=" admin, ops ,,",
                JWT_EXPIRATION="60",
                JWT_MAX_TOKEN_AGE_IN_SECONDS="600",
            )
        )
        self.assertEqual(
            (said.algorithms, said.cookie, said.cookie_domain, said.roles, said.lifetime),
            (("HS512",), "session", "example.com", ("admin", "ops"), 60),
        )
        self.assertEqual(said.oldest, 600)
        self.assertEqual(tokens_of(with_(JWT, JWT_EXPIRATION_IN_SECONDS="5")).lifetime, 5)
        self.assertEqual(tokens_of(with_(JWT, JWT_AUTH_SITE="/login/")).site, "/login/")

    def test_forced_on_a_workstation_alone(self) -> None:
        """DEVMODE_FORCE_AUTH lets everybody in where people develop, and is but warned of else."""
        environment = {"DEVMODE_FORCE_AUTH": "ann", "SECURITY_MODE": "public"}
        found, warnings = protection_of(environment, {}, (), devmode=True)
        self.assertEqual((found.forced, found.asks, warnings), ("ann", True, ()))
        found, warnings = protection_of(environment, {}, (), devmode=False)
        self.assertEqual((found.forced, found.asks), ("", False))
        self.assertIn("DEVMODE_FORCE_AUTH", warnings[0])

    def test_no_secret_is_shown(self) -> None:
        """Neither a secret nor a hash is in what a protection prints of itself."""
        for environment in (JWT, {"HTPASSWD": f"ann:{BCRYPT}"}):
            shown = repr(read(environment))
            self.assertNotIn(LONG, shown)
            self.assertNotIn(BCRYPT, shown)


class GrammarTests(SynchronousTestCase):
    """Whatever text comes: it is refused, or nothing that is made of it breaks a line."""

    @settings(max_examples=300, deadline=None)
    @given(st.text(max_size=30) | st.sampled_from(["ann", "a b", "é", "a\u2028b", "\ufeffann"]))
    def test_users(self, name: str) -> None:
        """A name of a password file can stand in a header and be asked for by Basic."""
        try:
            users = read({"HTPASSWD": f"{name}:{BCRYPT}", "SECURITY_MODE": "htpasswd"}).users
        except NotProtected as error:
            self.assertTrue(str(error).isprintable())
            return
        for user in users:
            self.assertTrue(presentable(user))
            sent = base64.b64encode(f"{user}:x".encode()).decode()
            asked = Asked("/", "GET", "http", "h", "/", headers={"authorization": f"Basic {sent}"})
            self.assertEqual(asked.basic, (user, "x"))

    @settings(max_examples=300, deadline=None)
    @given(st.text(max_size=12) | st.text("azAZ-_09;=, \r\n\t:", max_size=12))
    def test_headers_and_cookies(self, name: str) -> None:
        """The name of a header or a cookie is one word."""
        for setting in ("USER_IDENTITY_HEADER", "USER_IDENTITY_COOKIE", "JWT_COOKIE_NAME"):
            try:
                found = read(with_(JWT, **{setting: name}))
            except NotProtected as error:
                self.assertTrue(str(error).isprintable())
                continue
            assert found.jwt is not None
            self.assertRegex(found.header, r"\A[a-z][a-z0-9-]*\Z")
            for word in (found.cookie, found.jwt.cookie):
                self.assertTrue(word.isascii() and not set(word) & set(CONTROLS + ' ;=,:"()'))
                self.assertTrue(cookie(word, "v", 1, secure=True).startswith(f"{word}=v; "))

    @settings(max_examples=300, deadline=None)
    @given(st.sampled_from(["", "/", "https://a.b", "https://a.b/?x"]), st.text(max_size=20))
    def test_sites(self, start: str, rest: str) -> None:
        """Where people are sent is an URL or a path on this host, in one line of ASCII."""
        try:
            jwt = tokens_of(with_(JWT, JWT_AUTH_SITE=start + rest))
        except NotProtected as error:
            self.assertTrue(str(error).isprintable())
            return
        place = dict(log_in(Asked("/", "GET", "http", "h", "/\r\nX: y"), jwt).headers)["Location"]
        self.assertTrue(place.isascii() and place.isprintable() and " " not in place)
        own = place.startswith("/") and place[1:2] not in ("/", "\\")
        self.assertTrue(own or place.startswith("http"), place)

    @settings(max_examples=200, deadline=None)
    @given(st.binary(max_size=60))
    def test_lists_of_anything(self, data: bytes) -> None:
        """Whatever is in a list, it never lets in more than who it names."""
        listed = read({"HTPASSWD": f"ann:{APR1}"}, {"a.acl": data}).listed
        assert listed is not None
        self.assertNotIn("", listed)
        self.assertEqual(len(listed), len(set(listed)))
