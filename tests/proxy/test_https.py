"""TLS: which certificate a client is shown, where http leads, and what an authority may see."""

from __future__ import annotations

import json
import socket
import ssl
import stat
import time
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from proxy.certificates import Certificate, self_made
from proxy.nginx import Proxy
from proxy.protection import Protection
from proxy.routes import InvalidRoute, Route
from tests.ports import free_port
from tests.proxy.client import Client
from tests.proxy.reactor import run, until
from tests.proxy.sentry import Sentry, unkept
from tests.proxy.world import ProxyCase, public, route

NOW = time.time()
DEFAULT = self_made(("ship.example",), NOW)
A, STAR = self_made(("a.example",), NOW), self_made(("*.star.example",), NOW)


def shown_now(port: int, name: str | None, **limits: Any) -> str:
    """The certificate (PEM) that nginx shows to a client that asks for `name`."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for key, value in limits.items():
        setattr(context, key, value)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=name) as wrapped,
    ):
        return ssl.DER_cert_to_PEM_cert(wrapped.getpeercert(binary_form=True) or b"")


class TlsCase(ProxyCase):
    def setUp(self) -> None:
        super().setUp()
        self.prefix.chmod(0o711)
        self.tls = free_port()

    def proxy(self, **options: Any) -> Proxy:
        return unkept(super().proxy(**options))

    def shown(self, name: str | None, **limits: Any) -> Deferred[str]:
        return deferToThread(shown_now, self.tls, name, **limits)

    async def curl(self, *more: str) -> str:
        _, said = await run(["/usr/bin/curl", "-sk", "--max-time", "20", *more], 30.0)
        return said

    async def secured(
        self, certificates: Mapping[str, Certificate] | None = None, **options: Any
    ) -> Proxy:
        proxy = self.proxy(https_port=self.tls, **options)
        self.table = {
            route("hello"): self.app("hello").backend,
            Route("a", ("a.example", "x.star.example"), ""): self.app("a").backend,
        }
        given = certificates or {"": DEFAULT}
        self.assertEqual(await proxy.start(public(self.table), certificates=given), {})
        return proxy


class CertificateTests(TlsCase):
    async def test_each_name_has_its_own(self) -> None:
        """A client is shown the pair of the name that it asks for, a wildcard's or the default."""
        await self.secured({"": DEFAULT, "a.example": A, "*.star.example": STAR})
        for name, pair in (
            ("a.example", A),
            ("A.EXAMPLE", A),
            ("x.star.example", STAR),
            ("x.y.star.example", DEFAULT),
            ("star.example", DEFAULT),
            ("other.example", DEFAULT),
            (None, DEFAULT),
        ):
            for limits in ({}, {"maximum_version": ssl.TLSVersion.TLSv1_2}):
                shown = await self.shown(name, **limits)
                self.assertEqual((name, shown.strip()), (name, pair.chain.decode().strip()))

    async def test_replaced_by_a_reload(self) -> None:
        """A new pair is shown from the return of `refit` on, by the same master; the same pair
        again reloads nothing."""
        proxy = await self.secured({"": DEFAULT, "a.example": A})
        master, client = await self.master(), await Client(self.port).connect()
        self.addCleanup(client.close)
        for pairs in ({"": A, "a.example": DEFAULT}, {"": DEFAULT, "b.example": A}, {"": DEFAULT}):
            self.assertEqual(await proxy.refit(certificates=pairs), {})
            for name in ("a.example", "b.example", "c.example"):
                pair = pairs.get(name, pairs[""])
                self.assertEqual((await self.shown(name)).strip(), pair.chain.decode().strip())
        generation = self.generation()
        self.assertEqual(await proxy.refit(certificates={"": DEFAULT}), {})
        self.assertEqual(self.generation(), generation)
        self.assertEqual(await self.master(), master)
        self.assertEqual(
            await self.proxy(https_port=self.tls).start(
                public(self.table), certificates={"": DEFAULT}
            ),
            {},
        )
        self.assertEqual(self.generation(), generation)

    async def test_keys_are_the_ships_own(self) -> None:
        """Nobody but the ship's user can read a key, and its directory cannot be listed."""
        await self.secured({"": DEFAULT, "a.example": A})
        keys = list((self.prefix / "current").resolve().glob("tls/*.key"))
        self.assertEqual(len(keys), 2)
        for path in (*keys, *keys[0].parents):
            if path == self.prefix:
                break
            self.assertEqual(stat.S_IMODE(path.stat().st_mode) & 0o077, 0, path)

    async def test_a_bad_pair_is_not_taken(self) -> None:
        """When nginx does not take the pairs, the last ones are shown, and the refusal says so."""
        proxy = await self.secured()
        wrong = Certificate(DEFAULT.chain, A.key)
        refused = await proxy.refit(certificates={"": wrong})
        self.assertIn("key values mismatch", str(refused["certificates"]))
        self.assertEqual((await self.shown("x")).strip(), DEFAULT.chain.decode().strip())

    async def test_without_a_default_pair(self) -> None:
        """Without a default pair the ship serves http alone, and says so."""
        proxy = self.proxy(https_port=self.tls, https_redirect=True)
        refused = await proxy.start(public({route("hello"): self.app("hello").backend}))
        self.assertEqual(list(refused), ["certificates"])
        self.assertEqual((await self.fetch("/~hello/")).status, 200)
        self.assertEqual(await proxy.refit(certificates={"": DEFAULT}), {})
        self.assertEqual((await self.fetch("/~hello/")).status, 308)
        with self.assertRaises(InvalidRoute):
            self.proxy(https_port=self.port)

    async def test_old_versions_are_refused(self) -> None:
        """TLS 1.1 is not spoken, 1.2 and 1.3 are, and no ticket is given out."""
        await self.secured()
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            await self.shown("x", minimum_version=version, maximum_version=version)
        said = await self.openssl("-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
        self.assertNotIn("BEGIN CERTIFICATE", said)
        said = await self.openssl("-tls1_2")
        self.assertIn("BEGIN CERTIFICATE", said)
        self.assertNotIn("TLS session ticket", said)

    async def openssl(self, *more: str) -> str:
        script = 'echo | openssl s_client -connect "$0" "$@"'
        _, said = await run(["/bin/sh", "-c", script, f"127.0.0.1:{self.tls}", *more], 20.0)
        return said


class SecureTests(TlsCase):
    async def test_http2(self) -> None:
        """HTTP/2 is spoken, to path and host, and the app learns that it was TLS."""
        await self.secured()
        said = await self.curl("--http2", "-D-", f"https://127.0.0.1:{self.tls}/~hello/x%2Fy")
        self.assertIn("HTTP/2 200", said)
        for text in ('"target": "/x%2Fy"', '["X-Forwarded-Proto", "https"]', '["X-Http", "on"]'):
            self.assertIn(text, said)
        self.assertIn(f'["Host", "127.0.0.1:{self.tls}"]', said)
        cookies = ("-H", "Cookie: a=1; starphleet_session=x", "-H", "Cookie: b=2")
        said = await self.curl("--http2", *cookies, f"https://127.0.0.1:{self.tls}/~hello/")
        self.assertIn('["cookie", "a=1; b=2"]', said)
        resolve = ("--resolve", f"a.example:{self.tls}:127.0.0.1")
        said = await self.curl("--http2", *resolve, f"https://a.example:{self.tls}/")
        self.assertIn('"app": "a"', said)

    async def test_http2_while_reloading(self) -> None:
        """A politely ended HTTP/2 connection carries no header of HTTP/1."""
        proxy = await self.secured()
        await proxy._running()[0].control.close_connections()
        said = await self.curl("--http2", "-D-", f"https://127.0.0.1:{self.tls}/~hello/")
        self.assertIn("HTTP/2 200", said)
        self.assertNotIn("connection:", said.lower().partition("\r\n\r\n")[0])

    async def test_waiting_through_a_reload(self) -> None:
        """What waits for a service that starts goes on through a reload: a body over HTTP/2, a
        websocket; and who left meanwhile is not missed."""
        proxy = await self.secured()
        await proxy.traffic.hold("hello", "hello", True)
        file = self.prefix / "body"
        file.write_bytes(b"x" * 300_000)
        url = f"https://127.0.0.1:{self.tls}/~hello/x"
        sent = Deferred.fromCoroutine(self.curl("--http2", "-T", str(file), url))
        websocket, gone = await self.client(), await self.client()
        await websocket.ask("/~hello/socket", "Upgrade: websocket", "Connection: Upgrade")
        await gone.ask("/~hello/x")
        for _ in range(2):
            self.assertEqual(await proxy.hup(), {})
            self.assertEqual((await self.fetch("/", host="a.example")).json["app"], "a")
        gone.close()
        self.assertEqual((sent.called, websocket.received), (False, b""))
        await proxy.traffic.hold("hello", "hello", False)
        self.assertEqual(json.loads(await sent)["body"], 300_000)
        await websocket.receives(b"101 Switching")
        websocket.send("still here")
        await websocket.receives(b"still here")
        websocket.close()
        self.assertEqual(await proxy.traffic.drain("hello", 5), 0)

    async def test_guard_over_http2(self) -> None:
        """A guarded service asks over HTTP/2 as well, upload and all; the guard learns of TLS."""
        proxy = await self.secured()
        sentry = Sentry("guard").post(self.prefix)
        self.addCleanup(self.close, sentry)
        app, protection = self.app("guarded"), Protection(mode="htpasswd")
        await proxy.publish(route("guarded"), app.backend, protection)
        body = self.prefix / "body"
        body.write_bytes(b"x" * 5_000_000)
        send = ("--http2", "-D-", "-T", str(body), f"https://127.0.0.1:{self.tls}/~guarded/")
        self.assertIn("HTTP/2 401", await self.curl(*send))
        said = await self.curl(*send, "-H", "Authorization: Basic ann")
        self.assertIn('"body": 5000000', said)
        self.assertEqual(sentry.asked[-1].all("x-scheme"), ["https"])

    async def test_plain_and_secure_serve_the_same(self) -> None:
        """Without a redirect both serve, and only https is told of HSTS, over the app's own."""
        await self.secured(hsts=3600)
        plain = await self.fetch("/~hello/")
        self.assertEqual((plain.status, plain.headers["Strict-Transport-Security"]), (200, None))
        said = await self.curl("-D-", f"https://127.0.0.1:{self.tls}/~hello/hsts")
        self.assertEqual(said.lower().count("strict-transport-security"), 1)
        self.assertIn("max-age=3600", said)


class RedirectTests(TlsCase):
    async def test_http_leads_to_https(self) -> None:
        """With a redirect http leads each host of the ship's to https, byte for byte, and any other
        host to the ship itself; a published port stays plain."""
        proxy = await self.secured(https_redirect=True, certificates={"": DEFAULT, "c.example": A})
        for host, leads in (
            ("a.example", "a.example"),
            ("A.example:80", "a.example"),
            ("c.example", "c.example"),
            ("evil.example", "enterprise.example"),
            ("127.0.0.1", "enterprise.example"),
        ):
            answer = await self.fetch("/~hello/x%2Fy//?q=%20", host=host)
            location = f"https://{leads}:{self.tls}/~hello/x%2Fy//?q=%20"
            self.assertEqual((answer.status, answer.headers["Location"]), (308, location))
        self.assertEqual((await self.fetch("/starphleet/nginx/status")).text, "Ok\n")
        app, port = self.app("plain"), free_port()
        await proxy.publish(Route("plain", (), "/plain/", port=port), app.backend)
        self.assertEqual((await self.fetch("/", at=port)).status, 200)
        said = await self.curl(f"https://127.0.0.1:{self.tls}/plain/")
        self.assertIn('"app": "plain"', said)

    async def test_challenges(self) -> None:
        """A token's file answers on every plain server before redirect, guard and root; nothing
        else of the directory or above it does."""
        proxy = await self.secured(https_redirect=True)
        port, root = free_port(), self.app("root")
        await proxy.publish(
            Route("/", (), "/", port=port), root.backend, Protection(mode="htpasswd")
        )
        token = proxy.instance.challenges / "aZ-_09"
        token.write_text("token.thumb")
        (proxy.instance.challenges / "other.txt").write_text("no")
        for at in (self.port, port):
            for host in ("ship", "a.example"):
                base = "/.well-known/acme-challenge/"
                answer = await self.fetch(base + token.name, host=host, at=at)
                self.assertEqual((answer.status, answer.text), (200, "token.thumb"))
                for name in ("", "none", "other.txt", "../backends", "%2e%2e/backends", "x/../y.z"):
                    answer = await self.fetch(base + name, host=host, at=at)
                    self.assertIn(answer.status, (404, 308, 503), name)
                    self.assertNotIn("127.0.0.1", answer.text)
        token.unlink()

        async def gone() -> bool:
            return (await self.fetch("/.well-known/acme-challenge/aZ-_09")).status == 404

        await until(gone, "the token to be gone")
