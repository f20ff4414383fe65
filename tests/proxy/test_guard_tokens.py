"""Tokens: which let somebody in, what the service learns of them, and what forgers try."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

import jwt as pyjwt
from attrs import evolve
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from proxy.guard import tokens
from proxy.guard.asked import Answer
from proxy.guard.tokens import BadToken
from proxy.protection import Jwt, Protection
from tests.proxy.asking import (
    BY_TOKEN,
    FORGED,
    KEY,
    NOW,
    SECRET,
    SITE,
    Asking,
    bearer,
    cookies,
    guarding,
    header,
    identity,
    passes,
    token,
)

HOURS = 3600


def raw(head: dict[str, Any] | str, body: dict[str, Any] | str, signature: bytes = b"") -> str:
    """Three parts, whatever is in them."""

    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    texts = [one if isinstance(one, str) else json.dumps(one) for one in (head, body)]
    return ".".join([*(part(text.encode()) for text in texts), part(signature)])


class TokenCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.asking = guarding(BY_TOKEN)

    def ask(self, headers: dict[str, str] | None = None, uri: str = "/a/x", **how: Any) -> Answer:
        return self.successResultOf(self.asking.ask(headers, uri, **how))

    def with_(self, **settings: Any) -> Asking:
        assert BY_TOKEN.jwt is not None
        self.asking = guarding(evolve(BY_TOKEN, jwt=evolve(BY_TOKEN.jwt, **settings)))
        return self.asking


class ForgedTests(TokenCase):
    def bad(self, text: str) -> None:
        """It lets nobody in: not as a bearer's, not from a URL, not as a cookie."""
        self.assertEqual(self.ask(bearer(text)).status, 401, text[:100])
        for headers, uri in (({"cookie": f"jwt={text}"}, "/a/x"), ({}, f"/a/x?jwt={text}")):
            answer = self.ask(headers, uri)
            self.assertEqual((answer.status, cookies(answer)), (302, {}), text[:100])
            self.assertTrue(header(answer, "Location").startswith(SITE))

    def test_a_good_one(self) -> None:
        """What the forged ones lack: the same claims, well signed, are let in."""
        self.assertEqual(self.ask(bearer(token())).status, 200)
        self.assertEqual(self.ask({"cookie": f"jwt={token()}"}).status, 200)

    def test_signatures(self) -> None:
        """Another secret, none, a cut one, another's signature, or `alg` none in any case."""
        good, claims = token(), {"sub": "ann", "iat": NOW, "exp": NOW + 600}
        head, _, signature = good.split(".")
        other = token(sub="root").split(".")[1]
        for text in (
            token(FORGED),
            token("x" * 32),
            good[:-4],
            good.rpartition(".")[0],
            f"{good.rpartition('.')[0]}.",
            f"{head}.{other}.{signature}",
            raw({"alg": "HS256", "typ": "JWT"}, claims),
            *(raw({"alg": alg}, claims) for alg in ("none", "None", "NONE", "nOnE", "", "HS-256")),
            raw({"typ": "JWT"}, claims),
            raw({"alg": None}, claims),
            raw({"alg": ["HS256"]}, claims),
            "",
            "...",
            "a.b.c",
            "x" * 100,
        ):
            if text:
                self.bad(text)

    def test_algorithm_is_the_configurations(self) -> None:
        """The right secret by another algorithm of the same family is not what was agreed on."""
        self.bad(token(algorithm="HS384"))
        self.bad(token(algorithm="HS512"))
        self.with_(algorithms=("HS512",))
        self.bad(token())
        self.assertEqual(self.ask(bearer(token(algorithm="HS512"))).status, 200)

    def test_another_family(self) -> None:
        """A key pair of the forger's own proves nothing where there is a secret."""
        self.bad(token(rsa.generate_private_key(65537, 2048), "RS256"))

    def test_headers_that_name_a_key(self) -> None:
        """`jwk`, `jku`, `x5u`, `x5c` and `kid` of a token are not looked at for a key."""
        own = base64.urlsafe_b64encode(FORGED.encode()).rstrip(b"=").decode()
        claims = {"sub": "ann", "iat": NOW, "exp": NOW + 600}
        for more in (
            {"jwk": {"kty": "oct", "k": own}},
            {"jku": "http://127.0.0.1:1/keys"},
            {"x5u": "http://127.0.0.1:1/keys"},
            {"x5c": [own]},
            {"kid": "/dev/null"},
            {"kid": "../../../dev/null"},
            {"kid": "x' UNION SELECT 'y"},
            {"crit": ["exp"], "exp": NOW + 600},
        ):
            self.bad(pyjwt.encode(claims, FORGED, "HS256", headers=more))
            self.bad(pyjwt.encode(claims, "x" * 32, "HS256", headers=more))
        self.bad(pyjwt.encode(claims, SECRET, "HS256", headers={"crit": ["own"], "own": 1}))

    def test_nonsense(self) -> None:
        """What is too long, too deep, or no JSON object is no token, and no failure either."""
        deep = '{"a":' + "[" * 2000 + "]" * 2000 + "}"
        for text in (
            token(more="x" * 9000),
            raw(deep, {"sub": "ann"}),
            pyjwt.api_jws.encode(deep.encode(), SECRET, "HS256"),
            pyjwt.api_jws.encode(b"[1]", SECRET, "HS256"),
            pyjwt.api_jws.encode(b'"ann"', SECRET, "HS256"),
            pyjwt.api_jws.encode(b"\xff{}", SECRET, "HS256"),
            pyjwt.api_jws.encode(b'{"exp":' + b"9" * 5000 + b"}", SECRET, "HS256"),
            raw({"alg": "HS256", "kid": 1}, {}),
            raw({"alg": "HS256", "b64": False}, {}),
            "é.é.é",
            "\x00.\x00.\x00",
        ):
            self.bad(text)

    @settings(max_examples=200, deadline=None)
    @given(st.text(max_size=40) | st.binary(max_size=40).map(lambda b: raw("{}", "{}", b)))
    def test_anything(self, text: str) -> None:
        """Whatever somebody sends as a token is refused, in words or by a redirect."""
        with self.assertRaises(BadToken):
            tokens.read(text, SECRET, Jwt(SITE, SECRET), NOW)

    def test_none_for_another_purpose(self) -> None:
        """An identity cookie is no session and no token, nor the other way round."""
        mark = tokens.identity("ann", KEY, NOW)
        self.bad(mark)
        session = tokens.own({"sub": "ann", "iat": NOW, "exp": NOW + 60}, KEY, "session /a")
        self.bad(session)
        self.assertEqual(tokens.identified(mark, KEY, NOW), "ann")
        for forged in (session, token(KEY), token(KEY, aud=["identity"]), token(FORGED), ""):
            self.assertEqual(tokens.identified(forged, KEY, NOW), "")
        self.assertEqual(tokens.identified(mark, b"j" * 32, NOW), "")
        self.assertEqual(tokens.identified(mark, KEY, NOW + tokens.IDENTITY_SECONDS), "")

    def test_the_good_one_of_several_cookies(self) -> None:
        """One for the host and one for its domain may be there: the first good one counts, of the
        first few."""
        for sent in (f"jwt={token()}; jwt={token()}", f"jwt=x; a=b;jwt={token()}"):
            self.assertEqual(self.ask({"cookie": sent}).status, 200)
        many = "; ".join(["jwt=x"] * 4)
        self.assertEqual(self.ask({"cookie": f"{many}; jwt={token()}"}).status, 302)
        self.assertEqual(self.ask({"cookie": f"xjwt=1; jwt={token()}; jwt2=2"}).status, 200)

    def test_a_public_key_is_no_secret(self) -> None:
        """HMAC with the text of a public key is the oldest trick; it stays one where the operator
        took the key for a secret."""
        public = rsa.generate_private_key(65537, 2048).public_key()
        pem = public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ).decode()
        self.with_(secret=pem)
        claims = {"sub": "ann", "iat": NOW, "exp": NOW + 600}
        head = raw({"alg": "HS256"}, claims).rpartition(".")[0]
        signature = hmac.digest(pem.encode(), head.encode(), "sha256")
        self.bad(raw({"alg": "HS256"}, claims, signature))


TIMES: tuple[
    tuple[dict[str, Any], bool, bool], ...
] = (  # claims, whether a bearer of them is let in, whether a cookie is
    ({}, True, True),
    ({"exp": NOW}, False, True),
    ({"exp": NOW - 899}, False, True),
    ({"exp": NOW - 900}, False, False),
    ({"exp": None}, False, False),
    ({"exp": str(NOW + 600)}, False, False),
    ({"exp": True}, False, False),
    ({"exp": 1e300}, False, False),
    ({"exp": 10**400}, False, False),
    ({"exp": float("inf")}, False, False),
    ({"exp": float("nan")}, False, False),
    ({"exp": -1}, False, False),
    ({"exp": [NOW + 600]}, False, False),
    ({"exp": NOW + 0.5}, True, True),
    ({"iat": None}, False, False),
    ({"iat": True}, False, False),
    ({"iat": "now"}, False, False),
    ({"iat": float("nan")}, False, False),
    ({"iat": NOW + 60}, True, True),
    ({"iat": NOW + 61}, False, False),
    ({"iat": NOW - 48 * HOURS}, True, True),
    ({"iat": NOW - 48 * HOURS - 1}, False, False),
    ({"nbf": NOW + 60}, True, True),
    ({"nbf": NOW + 61}, False, False),
    ({"nbf": "soon"}, False, False),
    ({"nbf": True}, False, False),
    ({"nbf": None}, True, True),
    ({"aud": "elsewhere", "iss": "x", "jti": 7}, True, True),
)


class TimeTests(TokenCase):
    def test_times(self) -> None:
        """A token has a beginning and an end, both are times; a cookie is good 15 minutes more,
        and nothing for longer than 48 hours after it was issued."""
        for claims, sent, kept in TIMES:
            text = token(**claims)
            self.assertEqual(self.ask(bearer(text)).status, 200 if sent else 401, claims)
            answer = self.ask({"cookie": f"jwt={text}"})
            self.assertEqual(answer.status, 200 if kept else 302, claims)
            self.assertEqual(self.ask({}, f"/a/x?jwt={text}").status, 302)
            self.assertEqual("jwt" in cookies(self.ask({}, f"/a/x?jwt={text}")), sent, claims)

    def test_a_yes_is_kept_no_longer_than_the_token(self) -> None:
        """nginx remembers a yes for 5 s at most, and not beyond the token's end."""
        for left, keep in ((600, "5"), (3, "3"), (0.5, "0")):
            answer = self.ask(bearer(token(exp=NOW + left)))
            self.assertEqual(header(answer, "X-Keep"), keep)
        self.assertEqual(header(self.ask({"cookie": f"jwt={token(exp=NOW - 5)}"}), "X-Keep"), "0")


ROLES: tuple[tuple[tuple[str, ...], Any, bool], ...] = (  # wanted, the claim, whether it is let in
    ((), None, True),
    ((), "x", True),
    (("admin",), None, False),
    (("admin",), "", False),
    (("admin",), "admin", True),
    (("admin",), " ops , admin ", True),
    (("admin",), "administrator", False),
    (("admin",), "Admin", False),
    (("admin", "ops"), "ops", True),
    (("*",), None, True),
    (("admin",), "*", False),
    (("admin",), ["ops", "admin"], True),
    (("admin",), ["ops"], False),
    (("admin",), [["admin"]], False),
    (("admin",), {"admin": True}, False),
    (("admin",), True, False),
    (("admin",), 7, False),
    (("admin",), [None, 7, "admin"], True),
)


class RoleTests(TokenCase):
    def test_roles(self) -> None:
        """One role of those that are wanted is enough; without one it is as if there were no
        token (row A-43)."""
        for wanted, claim, good in ROLES:
            self.with_(roles=wanted)
            answer = self.ask(bearer(token(role=claim)))
            self.assertEqual(answer.status, 200 if good else 401, (wanted, claim))
            self.assertEqual(
                self.ask({"cookie": f"jwt={token(role=claim)}"}).status, 200 if good else 302
            )

    def test_who_it_is(self) -> None:
        """The first of `sub`, `un`, `email` and `name` that can be a name is the identity."""
        for claims, who in (
            ({}, "ann"),
            ({"sub": None, "un": "bob"}, "bob"),
            ({"sub": 7, "email": "c@example.com"}, "c@example.com"),
            ({"sub": " ann", "name": "Zo\u00eb 100%"}, "Zo%C3%AB 100%25"),
            ({"sub": "a\r\nX-Role: root"}, ""),
            ({"sub": "\ud800"}, ""),
            ({"sub": ""}, ""),
            ({"sub": None}, ""),
        ):
            self.assertEqual(passes(self.ask(bearer(token(**claims)))).get("x-identity", ""), who)

    def test_claims_for_the_service(self) -> None:
        """Each claim becomes `jwt-NAME`; what could not stand in a header is left out (A-44)."""
        claims: dict[str, Any] = {
            "role": "a,b",
            "Un_usual": "x",
            "n": 7,
            "o": {"k": ["\u00eb"]},
            "yes": True,
            "line": "a\r\nX-Role: root",
            "a b": "x",
            "x:y": "z",
            "umlaut": "\u00eb",
        }
        self.assertEqual(
            passes(self.ask(bearer(token(**claims)))),
            {
                "jwt-sub": "ann",
                "jwt-iat": str(NOW),
                "jwt-exp": str(NOW + 600),
                "jwt-role": "a,b",
                "jwt-un-usual": "x",
                "jwt-n": "7",
                "jwt-o": '{"k":["\\u00eb"]}',
                "jwt-yes": "true",
                "x-identity": "ann",
            },
        )

    @settings(max_examples=200, deadline=None)
    @given(
        st.dictionaries(
            st.text(max_size=10), st.text(max_size=20) | st.integers() | st.none(), max_size=5
        )
    )
    def test_claims_of_any_kind(self, claims: dict[str, Any]) -> None:
        """No claim breaks a header line, and none can be taken for the identity."""
        for name in ("sub", "iat", "exp", "nbf", "iss"):
            claims.pop(name, None)
        answer = self.ask(bearer(token(**claims)))
        self.assertEqual(answer.status, 200)
        for name, value in answer.headers:
            self.assertTrue(value.isprintable() and value.isascii(), (name, value))
        self.assertEqual(passes(answer)["x-identity"], "ann")

    def test_lists_count_for_tokens(self) -> None:
        """Who has a good token and is not listed is told so, by name, and not sent to log in
        again; case does not matter (A-60)."""
        listed = Protection(mode="jwt", jwt=Jwt(SITE, SECRET), listed=("ann",))
        self.asking = guarding(listed)
        self.assertEqual(self.ask(bearer(token(sub="ANN"))).status, 200)
        for claims in ({"sub": "bob"}, {"sub": None}, {"sub": "annn"}):
            answer = self.ask(bearer(token(**claims)), f"/a/x?jwt={token()}")
            self.assertEqual((answer.status, cookies(answer)), (403, {}))
        self.asking = guarding(evolve(listed, listed=()))
        self.assertEqual(self.ask(bearer(token())).status, 403)

    def test_identity_cookie_lets_nobody_in(self) -> None:
        """A good identity cookie alone is nobody."""
        self.assertEqual(self.ask(identity("ann")).status, 302)


class LargeTests(TokenCase):
    def test_a_token_that_no_cookie_holds(self) -> None:
        """Larger than what browsers keep: that is said, and nobody is sent round in circles."""
        answer = self.ask({}, f"/a/x?jwt={token(more='x' * 4000)}")
        self.assertEqual(answer.status, 400)
        self.assertIn(b"larger", answer.body)

    def test_many_claims(self) -> None:
        """As many as fit into a request are told; the token is as good as others."""
        claims: dict[str, Any] = {f"claim{n}": n for n in range(150)}
        answer = self.ask(bearer(token(**claims)))
        self.assertEqual(answer.status, 200)
        self.assertLess(len(answer.headers), 80)

    def test_whom_it_is_for_and_from(self) -> None:
        """Where the settings say so, a token has to be for this audience and from this issuer."""
        self.with_(audience="shop", issuer="https://in")
        for claims, status in (
            ({}, 401), ({"aud": "shop"}, 401), ({"aud": "other", "iss": "https://in"}, 401),
            ({"aud": "shop", "iss": "https://in"}, 200),
            ({"aud": ["a", "shop"], "iss": "https://in"}, 200),
        ):  # fmt: skip
            self.assertEqual(self.ask(bearer(token(**claims))).status, status, str(claims))
