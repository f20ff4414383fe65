"""Behind somebody else's proxies: who is believed for whom and how they ask, and who is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from proxy.guard.slowing import FREE
from proxy.instance import Instance
from proxy.nginx import Proxy
from proxy.protection import Commons, Protection, Sign
from proxy.proxies import networks
from proxy.routes import InvalidRoute, Route
from tests.ports import free_port
from tests.proxy.app import App
from tests.proxy.asking import CREW, basic
from tests.proxy.client import Answer, Client, fetch_now
from tests.proxy.reactor import run
from tests.proxy.test_https import DEFAULT
from tests.proxy.world import ProxyCase, public, route

BALANCER, ELSEWHERE = "127.0.0.1", "127.0.0.2"
CLIENT, OTHER = "203.0.113.7", "203.0.113.8"
Pairs = tuple[tuple[str, str], ...]


def said_for(client: str, scheme: str = "", port: str = "") -> Pairs:
    """What a balancer says of one request."""
    pairs = (
        ("X-Forwarded-For", client),
        ("X-Forwarded-Proto", scheme),
        ("X-Forwarded-Port", port),
    )
    return tuple((name, value) for name, value in pairs if value)


class NetworkTests(SynchronousTestCase):
    def test_words(self) -> None:
        """Addresses and networks of both kinds are taken, each once; a wrong one is named."""
        text = "10.0.0.1, 10.0.0.0/8\t2001:DB8:0::/32,,::1 10.0.0.1/32"
        found = ("10.0.0.1/32", "10.0.0.0/8", "2001:db8::/32", "::1/128")
        self.assertEqual(networks(text), found)
        self.assertEqual(networks(" "), ())
        for wrong in (
            "10.0.0.1/8",
            "10.0.0.0/33",
            "x",
            "10.1",
            "10.0.0.0/255.0.0.0",
            "1;",
            "::1%lo",
        ):
            with self.assertRaises(InvalidRoute) as caught:
                networks(f"10.0.0.1 {wrong}")
            self.assertIn(f"'{wrong}' is not an address", str(caught.exception))
        for everybody in ("0.0.0.0/0", "::/0"):
            with self.assertRaisesRegex(InvalidRoute, "everybody"):
                networks(everybody)

    def test_a_proxy_is_refused(self) -> None:
        """No other text comes into nginx's configuration."""
        for wrong in ("1.2.3.4; evil on", "unix:", ""):
            with self.assertRaises(InvalidRoute):
                Instance(Path("/x"), 1, proxies=(wrong,))


class BehindCase(ProxyCase):
    def proxy(self, **options: Any) -> Proxy:
        return super().proxy(**{"proxies": networks(BALANCER), **options})

    async def get(
        self,
        target: str = "/~hello/",
        pairs: Pairs = (),
        *,
        by: str = BALANCER,
        **how: Any,
    ) -> Answer:
        return await deferToThread(fetch_now, self.port, target, headers=pairs, source=by, **how)

    async def seen(self, *pairs: tuple[str, str], **how: Any) -> dict[str, str]:
        """The headers that the app got."""
        answer = await self.get(pairs=pairs, **how)
        return {name.lower(): value for name, value in answer.json["headers"]}


class BelievedTests(BehindCase):
    async def test_of_a_proxy(self) -> None:
        """A service is told who asked, how and by which port, as the balancer says it."""
        await self.started(self.app("hello"))
        seen = await self.seen(*said_for(f"9.9.9.9, {CLIENT}", "https"))
        for name, value in {
            "x-real-ip": CLIENT,
            "x-forwarded-for": f"9.9.9.9, {CLIENT}, {BALANCER}",
            "x-forwarded-proto": "https",
            "x-forwarded-port": "443",
            "x-http": "on",
        }.items():
            self.assertEqual((name, seen.get(name)), (name, value))
        for scheme, port, told in (
            ("https", "8443", ("https", "8443")),
            ("HTTP", "", ("http", "80")),
            ("wss", "", ("https", "443")),
            ("", "81", ("http", "81")),
            ("gopher", "x", ("http", str(self.port))),
            ("", "", ("http", str(self.port))),
        ):
            seen = await self.seen(*said_for(CLIENT, scheme, port))
            self.assertEqual((seen["x-forwarded-proto"], seen["x-forwarded-port"]), told)
            self.assertEqual("x-http" in seen, told[0] == "https")

    async def test_of_nobody_else(self) -> None:
        """What others say of themselves is replaced, and changes nothing; of a ship that knows no
        proxies, whoever says it."""
        app = self.app("hello")
        proxy = await self.started(app)
        for by in (ELSEWHERE, BALANCER):
            seen = await self.seen(*said_for(CLIENT, "https", "8443"), by=by)
            for name, value in {
                "x-real-ip": by,
                "x-forwarded-for": f"{CLIENT}, {by}",
                "x-forwarded-proto": "http",
                "x-forwarded-port": str(self.port),
            }.items():
                self.assertEqual((name, seen.get(name)), (name, value))
            self.assertNotIn("x-http", seen)
            self.assertEqual((await self.seen(by=by))["x-forwarded-for"], by)
            await proxy.leave()
            proxy = await self.started(app, proxies=())

    async def test_chains(self) -> None:
        """The client is the last one that is no proxy of ours; where they say nothing that is an
        address, the one who said it."""
        await self.started(self.app("hello"), proxies=networks(f"{BALANCER} 10.0.0.0/8 fd00::/8"))
        for chain, client in (
            (f"{OTHER}, {CLIENT}, 10.1.2.3, fd00::1", CLIENT),
            (f"{CLIENT}:4711", CLIENT),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]:4711, 10.1.2.3", "2001:db8::7"),
            ("10.7.7.7, 10.1.2.3", "10.7.7.7"),
            (f"{CLIENT}, unknown", BALANCER),
            (f"{CLIENT}, unknown, 10.1.2.3", "10.1.2.3"),
            ("", BALANCER),
        ):
            seen = await self.seen(("X-Forwarded-For", chain))
            self.assertEqual((chain, seen["x-real-ip"]), (chain, client))
        twice = (("X-Forwarded-For", OTHER), ("X-Forwarded-For", CLIENT))
        self.assertEqual((await self.seen(*twice))["x-real-ip"], CLIENT)

    async def test_ipv6(self) -> None:
        """A balancer may come by IPv6, and is told apart from others there."""
        app = self.app("hello")
        proxy = await self.started(app, bind="::1", proxies=networks("::1"))
        said = said_for("2001:db8::7", "https")
        seen = await self.seen(*said, by="::1")
        self.assertEqual((seen["x-real-ip"], seen["x-forwarded-proto"]), ("2001:db8::7", "https"))
        await proxy.stop()
        await self.started(app, bind="::1", proxies=networks("fd00::/8"))
        seen = await self.seen(*said, by="::1")
        self.assertEqual((seen["x-real-ip"], seen["x-forwarded-proto"]), ("::1", "http"))

    async def test_websocket(self) -> None:
        """A websocket opens and passes both ways, whoever the client is."""
        await self.started(self.app("hello"))
        client = await self.client()
        lines = [f"{name}: {value}" for name, value in said_for(CLIENT, "wss")]
        upgrade = ("Upgrade: websocket", "Connection: Upgrade")
        await client.ask("/~hello/socket", *upgrade, *lines)
        await client.receives(b"101 Switching")
        client.send("ping")
        await client.receives(b"ping")

    async def test_one_connection_for_many(self) -> None:
        """A balancer asks for one client after the other by one connection: each is who it is."""
        await self.started(self.app("hello"))
        client: Client = await self.client()
        for who in (CLIENT, OTHER):
            await client.ask("/~hello/", f"X-Forwarded-For: {who}")
            await client.receives(f'["X-Real-IP", "{who}"]'.encode())
        await client.ask("/~hello/")
        await client.receives(f'["X-Real-IP", "{BALANCER}"]'.encode())


class GuardedTests(BehindCase):
    timeout = 90.0

    async def guarded(self) -> App:
        self.prefix.chmod(0o711)
        app = self.app("hello")
        self.assertEqual(await self.proxy().start({route("hello"): (app.backend, CREW)}), {})
        return app

    async def login(self, password: str, client: str, user: str = "ann", **how: Any) -> Answer:
        said = basic(user, password)["authorization"]
        scheme = how.pop("scheme", "")
        pairs = (*said_for(client, scheme), ("Authorization", said))
        return await self.get(pairs=pairs, **how)

    async def test_slowing_counts_the_client(self) -> None:
        """Who guesses behind the balancer has to wait, and nobody else behind it; who guesses from
        elsewhere waits, whoever they claim to be each time."""
        await self.guarded()
        for status in (*[401] * (FREE - 1), 429, 429):
            self.assertEqual((await self.login("wrong", CLIENT)).status, status)
        self.assertEqual((await self.login("ann's", OTHER)).status, 200)
        log = (self.prefix / "logs" / "guard.log").read_text()
        self.assertEqual(log.count(f"from {CLIENT} failed"), FREE)
        self.assertNotIn(f"from {BALANCER} ", log)
        statuses = [
            (await self.login("x", f"198.51.100.{n}", f"user{n}", by=ELSEWHERE)).status
            for n in range(FREE)
        ]
        self.assertEqual(statuses[-1], 429)

    async def test_cookies(self) -> None:
        """A cookie is for https alone where the client asked the balancer by https; nobody else
        can claim that, and what one was told is not told the other."""
        await self.guarded()
        for _ in range(2):
            for by, scheme, secure in (
                (BALANCER, "https", True),
                (BALANCER, "http", False),
                (ELSEWHERE, "https", False),
            ):
                answer = await self.login("ann's", CLIENT, scheme=scheme, by=by)
                cookie = answer.headers["Set-Cookie"]
                self.assertEqual((answer.status, "Secure" in cookie), (200, secure), (by, scheme))

    async def test_pages_of_other_origins(self) -> None:
        """The ship's own pages know their own origin: that of the balancer."""
        await self.guarded()
        page, origin = "/starphleet/dashboard", ("Origin", "https://ship")
        for by, status in ((BALANCER, 401), (ELSEWHERE, 403)):
            pairs = (*said_for(CLIENT, "https"), origin)
            answer = await self.get(page, pairs, by=by, host="ship")
            self.assertEqual((by, answer.status), (by, status))


class RedirectTests(BehindCase):
    async def leading(self, **options: Any) -> Proxy:
        """A ship with all kinds of ways that leads http to https."""
        self.prefix.chmod(0o711)
        proxy = self.proxy(https_redirect=True, hsts=3600, own_host="starphleet.example", **options)
        app = self.app("hello")
        self.published = free_port()
        old = (("old.example", "https://new.example"),)
        table = {
            Route("hello", ("a.example",), "/~hello/", port=self.published, redirects=old): app,
            Route("slow", ("slow.example",), "", locations="proxy_read_timeout 5s;"): app,
        }
        commons = Commons(signs=(Sign("/away/", url="https://there.example/"),))
        certificates = {"": DEFAULT} if options.get("https_port") else {}
        started = {led: (to.backend, Protection()) for led, to in table.items()}
        self.assertEqual(await proxy.start(started, commons, certificates), {})
        return proxy

    async def test_tls_ends_at_the_proxy(self) -> None:
        """What came to the balancer by https is served, on every way, and told of HSTS; what came
        by http, or not by it at all, is led to https. Nobody is led in a circle."""
        await self.leading()
        ways = (
            ("ship", "/~hello/x%2Fy//?q=%20", 200, "enterprise.example"),
            ("a.example", "/x", 200, "a.example"),
            ("slow.example", "/x", 200, "slow.example"),
            ("old.example", "/x", 301, "old.example"),
            ("starphleet.example", "/", 302, "starphleet.example"),
            ("ship", "/away/", 301, "enterprise.example"),
            ("ship", "/nothing", 404, "enterprise.example"),
        )
        for host, target, status, named in ways:
            answer = await self.get(target, said_for(CLIENT, "https"), host=host)
            self.assertEqual((host, target, answer.status), (host, target, status))
            self.assertEqual(answer.headers["Strict-Transport-Security"], "max-age=3600")
            for by, scheme in ((BALANCER, "http"), (BALANCER, ""), (ELSEWHERE, "https")):
                answer = await self.get(target, said_for(CLIENT, scheme), host=host, by=by)
                self.assertEqual(answer.status, 308)
                self.assertEqual(answer.headers["Location"], f"https://{named}{target}")
                self.assertIsNone(answer.headers["Strict-Transport-Security"])

    async def test_what_stays_plain(self) -> None:
        """The balancer's own question, an authority's, and published ports are answered by http."""
        proxy = await self.leading()
        (proxy.instance.challenges / "token").write_text("token.thumb")
        self.assertEqual((await self.get("/starphleet/nginx/status")).text, "Ok\n")
        for host in ("ship", "a.example"):
            answer = await self.get("/.well-known/acme-challenge/token", host=host)
            self.assertEqual(answer.text, "token.thumb")
        self.assertEqual((await self.fetch("/", at=self.published)).status, 200)
        for target in ("/starphleet/nginx/status/x", "/starphleet/nginx/statuses"):
            self.assertEqual((await self.get(target)).status, 308)
        answer = await self.get("/starphleet/nginx/status", host="a.example")
        self.assertEqual(answer.status, 308)

    async def test_with_tls_of_its_own(self) -> None:
        """https of the ship is served as before, and who did not come by the balancer is led to its
        port; who came by http's own port there is led to https's own."""
        tls = free_port()
        await self.leading(https_port=tls)
        for host, by, leads in (
            ("a.example", BALANCER, "a.example"),
            (f"a.example:{self.port}", BALANCER, f"a.example:{tls}"),
            ("a.example", ELSEWHERE, f"a.example:{tls}"),
        ):
            answer = await self.get("/x", said_for(CLIENT, "http"), host=host, by=by)
            self.assertEqual(answer.headers["Location"], f"https://{leads}/x")
        argv = ["/usr/bin/curl", "-sk", "-D-", "--max-time", "20"]
        url = f"https://127.0.0.1:{tls}/~hello/"
        for more, told in (
            ((), "200"),
            (("-H", "X-Forwarded-Proto: https"), "200"),
            (("-H", "X-Forwarded-Proto: http"), "308"),
            (("-H", "X-Forwarded-Proto: http", "--interface", ELSEWHERE), "200"),
        ):
            _, said = await run([*argv, *more, url], 30.0)
            self.assertIn(f"HTTP/2 {told}", said, more)

    async def test_without_a_redirect(self) -> None:
        """Without one both are served, and only what came by https is told of HSTS."""
        proxy, app = self.proxy(hsts=3600), self.app("hello")
        self.assertEqual(await proxy.start(public({route("hello"): app.backend})), {})
        for scheme, told in (("https", "max-age=3600"), ("http", None), ("", None)):
            answer = await self.get(pairs=said_for(CLIENT, scheme))
            self.assertEqual(answer.status, 200)
            self.assertEqual(answer.headers["Strict-Transport-Security"], told)
