"""Tokens by public keys, which are fetched from a real server on the loopback."""

from __future__ import annotations

import base64
import hmac
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt as pyjwt
from attrs import define, evolve, field
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from twisted.trial.unittest import TestCase

from proxy.guard import tokens
from proxy.guard.keys import KeysUnreachable
from proxy.protection import Jwt, Protection
from tests.proxy.asking import KEY, NOW, SITE, Asking, bearer, cookies, guarding, header, passes
from tests.proxy.reactor import until

RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
EDWARDS = ed25519.Ed25519PrivateKey.generate()
ANOTHER = rsa.generate_private_key(65537, 2048)


def jwk(private: Any, name: str | None, **more: Any) -> dict[str, Any]:
    """The public half, as login services show it."""
    public = private.public_key()
    maker: Any = {
        rsa.RSAPrivateKey: RSAAlgorithm,
        ec.EllipticCurvePrivateKey: ECAlgorithm,
        ed25519.Ed25519PrivateKey: OKPAlgorithm,
    }[next(kind for kind in KINDS if isinstance(private, kind))]
    named = {} if name is None else {"kid": name}
    return {**maker.to_jwk(public, as_dict=True), **named, **more}


KINDS = (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey)


@define(eq=False)
class LoginService:
    """Shows `said` to whoever asks, and counts who does."""

    said: Any = field(factory=list)
    status: int = 200
    asked: int = 0
    held: threading.Event = field(factory=threading.Event)
    _server: Any = None

    def start(self) -> LoginService:
        service = self
        self.held.set()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.asked += 1
                service.held.wait(10)
                said = service.said
                body = said if isinstance(said, bytes) else json.dumps({"keys": said}).encode()
                self.send_response(service.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/keys"

    def stop(self) -> None:
        self.held.set()
        self._server.shutdown()
        self._server.server_close()


def unpadded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(private: Any, algorithm: str, name: str | None = None, **claims: Any) -> str:
    headers = {} if name is None else {"kid": name}
    said = {"sub": "ann", "iat": NOW, "exp": NOW + 600, **claims}
    return pyjwt.encode(said, private, algorithm, headers=headers)


class KeysCase(TestCase):
    def setUp(self) -> None:
        self.service = LoginService(
            [jwk(RSA, "r"), jwk(EC, "e"), jwk(EDWARDS, "d", use="sig")]
        ).start()
        self.addCleanup(self.service.stop)
        self.asking = self.by_keys()

    def by_keys(self, **settings: Any) -> Asking:
        jwt = Jwt(SITE, jwks_url=self.service.url, algorithms=("RS256", "ES256", "EdDSA"))
        return guarding(Protection("jwt", jwt=evolve(jwt, **settings)))

    async def status(self, text: str) -> int:
        return (await self.asking.ask(bearer(text))).status


class KeyTests(KeysCase):
    async def test_each_family(self) -> None:
        """RSA, elliptic curves and Ed25519, each by the key that the token names."""
        for private, algorithm, name in (
            (RSA, "RS256", "r"),
            (EC, "ES256", "e"),
            (EDWARDS, "EdDSA", "d"),
        ):
            answer = await self.asking.ask(bearer(signed(private, algorithm, name)))
            self.assertEqual((answer.status, passes(answer)["x-identity"]), (200, "ann"))
        self.assertEqual(self.service.asked, 1)

    async def test_forged(self) -> None:
        """Another's key, another's name, an algorithm that was not agreed on, a public key as a
        secret, none at all: nobody gets in."""
        pem = RSA.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        none = unpadded(b'{"alg":"none","kid":"r"}')
        head, body, _ = signed(RSA, "RS256", "r").split(".")
        claims = {"sub": "ann", "iat": NOW, "exp": NOW + 600}
        secret = "x" * 32
        by_secret = unpadded(b'{"alg":"HS256","kid":"r"}')
        start = f"{by_secret}.{body}"
        by_pem = f"{start}.{unpadded(hmac.digest(pem, start.encode(), 'sha256'))}"
        for text in (
            signed(ANOTHER, "RS256", "r"),
            signed(RSA, "RS256", "e"),
            signed(RSA, "RS384", "r"),
            signed(RSA, "PS256", "r"),
            signed(RSA, "RS256"),
            by_pem,
            f"{head}.{body}.",
            f"{none}.{body}.",
            pyjwt.encode(claims, secret, "HS256", headers={"kid": "r"}),
            pyjwt.encode(claims, KEY, "HS256", headers={"kid": "r"}),
            pyjwt.encode(claims, ANOTHER, "RS256", headers={"kid": "r", "jku": self.service.url}),
            pyjwt.encode(claims, ANOTHER, "RS256", headers={"kid": "r", "jwk": jwk(ANOTHER, "r")}),
            tokens.own(claims, KEY, "session /a"),
            tokens.identity("ann", KEY, NOW),
            "a" * 9000,
            "x.y.z",
        ):
            self.assertEqual(await self.status(text), 401, text[:60])

    async def test_secrets_are_no_keys(self) -> None:
        """A secret among public keys is known to everybody, and a key to hide things signs
        nothing."""
        secret = {"kty": "oct", "k": "eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg", "kid": "s"}
        self.service.said = [secret, jwk(RSA, "r", use="enc"), jwk(EC, "e")]
        claims = {"sub": "ann", "iat": NOW, "exp": NOW + 600}
        text = pyjwt.encode(claims, "x" * 32, "HS256", headers={"kid": "s"})
        self.assertEqual(await self.status(text), 401)
        self.assertEqual(await self.status(signed(RSA, "RS256", "r")), 401)
        self.assertEqual(await self.status(signed(EC, "ES256", "e")), 200)

    async def test_configured_algorithm(self) -> None:
        """What JWT_ALGORITHM names counts, also for a key that does not say what it is for."""
        self.asking = self.by_keys(algorithms=("PS256",))
        self.assertEqual(await self.status(signed(RSA, "PS256", "r")), 200)
        self.assertEqual(await self.status(signed(RSA, "RS256", "r")), 401)
        self.assertEqual(await self.status(signed(EC, "ES256", "e")), 401)

    async def test_the_only_key_needs_no_name(self) -> None:
        """A token without `kid` is looked at with the key if there is but one."""
        self.service.said = [jwk(RSA, None)]
        self.assertEqual(await self.status(signed(RSA, "RS256")), 200)
        self.assertEqual(await self.status(signed(ANOTHER, "RS256")), 401)


class FetchingTests(KeysCase):
    async def test_kept_for_a_while(self) -> None:
        """Keys are asked for once in five minutes, however many come; meanwhile all wait for one
        answer."""
        self.service.held.clear()
        waiting = [self.asking.ask(bearer(signed(RSA, "RS256", "r"))) for _ in range(5)]
        await until(lambda: self.service.asked == 1, "the keys to be asked for")
        self.service.held.set()
        self.assertEqual([(await one).status for one in waiting], [200] * 5)
        for later, asked in ((299, 1), (301, 2)):
            self.asking.now = NOW + later
            self.assertEqual(await self.status(signed(RSA, "RS256", "r")), 200)
            self.assertEqual(self.service.asked, asked)

    async def test_new_keys(self) -> None:
        """A name that is not known has the keys asked for anew, at most every 30 s: forged names
        do not."""
        self.assertEqual(await self.status(signed(RSA, "RS256", "r")), 200)
        self.service.said = [jwk(ANOTHER, "new")]
        for later, name, status, asked in (
            (29, "new", 401, 1),
            (31, "new", 200, 2),
            (32, "forged", 401, 2),
            (61, "forged", 401, 2),
            (62, "forged", 401, 3),
            (63, "new", 200, 3),
        ):
            self.asking.now = NOW + later
            self.assertEqual(await self.status(signed(ANOTHER, "RS256", name)), status, later)
            self.assertEqual(self.service.asked, asked, later)
        self.assertEqual(await self.status(signed(RSA, "RS256", "r")), 401)

    async def test_a_server_that_is_down(self) -> None:
        """Keys that are known count while nobody answers, and it is asked again every 30 s."""
        self.assertEqual(await self.status(signed(RSA, "RS256", "r")), 200)
        self.service.status = 500
        for later, asked in ((301, 2), (330, 2), (332, 3)):
            self.asking.now = NOW + later
            self.assertEqual(await self.status(signed(RSA, "RS256", "r")), 200)
            self.assertEqual(self.service.asked, asked, later)
        self.assertEqual(await self.status(signed(ANOTHER, "RS256", "r")), 401)

    async def test_a_server_that_never_was_up(self) -> None:
        """Without any key nobody can say, and it is not asked for each request."""
        for said in (b"{", b"[]", b"null", b'{"keys": []}', b'{"keys": [{"kty": "x"}]}'):
            self.service.said, self.service.asked, self.asking = said, 0, self.by_keys()
            for _ in range(3):
                with self.assertRaises(KeysUnreachable):
                    await self.asking.ask(bearer(signed(RSA, "RS256", "r")))
            self.assertEqual(self.service.asked, 1, said)
        self.service.said = [jwk(RSA, "r")]
        self.asking.now += 31
        self.assertEqual(await self.status(signed(RSA, "RS256", "r")), 200)

    async def test_elsewhere_is_not_followed(self) -> None:
        """A server that sends elsewhere has no keys."""
        self.service.status = 302
        with self.assertRaises(KeysUnreachable):
            await self.asking.ask(bearer(signed(RSA, "RS256", "r")))


class SessionTests(KeysCase):
    async def test_session(self) -> None:
        """The ship signs the cookie itself: good for all services of this login service, while that
        is down too, and never as a bearer's or for those of another."""
        text = signed(RSA, "RS256", "r", role="x")
        answer = await self.asking.ask({}, f"/a/x?b=1&jwt={text}")
        self.assertEqual((answer.status, header(answer, "Location")), (302, "/a/x?b=1"))
        session = cookies(answer)["jwt"].value
        self.assertNotEqual(session, text)
        self.service.stop()
        again = await self.asking.ask({"cookie": f"jwt={session}"})
        self.assertEqual((again.status, passes(again)["jwt-role"]), (200, "x"))
        self.assertEqual(await self.status(session), 401)
        self.asking.services["/b"] = self.asking.services["/a"]
        other = await self.asking.ask({"cookie": f"jwt={session}"}, service="/b")
        self.assertEqual(other.status, 200)
        asked = self.asking.services["/b"]
        assert asked.jwt is not None
        elsewhere = evolve(asked.jwt, jwks_url=f"{asked.jwt.jwks_url}?other")
        self.asking.services["/b"] = evolve(asked, jwt=elsewhere)
        other = await self.asking.ask({"cookie": f"jwt={session}"}, service="/b")
        self.assertEqual(other.status, 302)
        raw = await self.asking.ask({"cookie": f"jwt={text}"})
        self.assertEqual(raw.status, 302)
