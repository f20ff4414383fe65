"""What a client and an app see of each other through the proxy."""

from __future__ import annotations

import gzip

import psutil

from proxy.routes import Backend, Route
from tests.ports import free_port
from tests.proxy.app import App
from tests.proxy.reactor import until
from tests.proxy.world import ProxyCase, public, route

ODD_PATHS = (
    "/",
    "/a%2Fb",
    "/a%20b+c",
    "//double//slash/",
    "/x?q=a%26b&c=+%2B%20?",
    "/%E2%9C%93?",
    "/%7e~;p=1,2/@:!$&'()*",
    "/a/../b",
    "/?",
)


class PathTests(ProxyCase):
    async def test_raw_path_is_kept(self) -> None:
        """The app gets path and query byte for byte, at its host and below its path."""
        await self.started(self.app("hello"))
        for rest in ODD_PATHS:
            answer = await self.fetch("/~hello" + rest)
            self.assertEqual((answer.status, answer.json["target"]), (200, rest))
            answer = await self.fetch(rest, host="hello.localhost:8080")
            self.assertEqual((answer.status, answer.json["target"]), (200, rest))

    async def test_prefix_in_another_spelling(self) -> None:
        """A prefix that the client encoded leads to the same service, cut off all the same."""
        await self.started(self.app("hello"))
        for target, seen in (
            ("/%7Ehello/a%20b?x=%20", "/a%20b?x=%20"),
            ("/up/../~hello/c%25d", "/c%25d"),
            ("http://ship/~hello/e", "/e"),
            ("/~hell%6F/f%0d%0aX-Smuggled:%201", "/f%0D%0AX-Smuggled:%201"),
        ):
            answer = await self.fetch(target)
            self.assertEqual((target, answer.status, answer.json["target"]), (target, 200, seen))

    async def test_dots_do_not_lead_to_another_service(self) -> None:
        """Dot segments are resolved before a service is chosen."""
        await self.started(self.app("hello"), self.app("other"))
        answer = await self.fetch("/~hello/../~other/x")
        self.assertEqual((answer.json["app"], answer.json["target"]), ("other", "/x"))

    async def test_missing_slash_redirects(self) -> None:
        """The path without its last slash is redirected to the one with it, query and all."""
        await self.started(self.app("hello"))
        answer = await self.fetch("/~hello?q=%2F")
        self.assertEqual((answer.status, answer.headers["Location"]), (301, "/~hello/?q=%2F"))

    async def test_longest_path_wins(self) -> None:
        """Of nested paths, "/" included, the longest leads."""
        root, inner, deep = self.app("root"), self.app("inner"), self.app("deep")
        proxy = self.proxy()
        paths = {"/": root, "/a/": inner, "/a/b/": deep}
        table = {route(a.name).__class__(a.name, (), p): a.backend for p, a in paths.items()}
        self.assertEqual(await proxy.start(public(table)), {})
        for target, name, seen in (
            ("/x?y", "root", "/x?y"),
            ("/a/x", "inner", "/x"),
            ("/a/b/x", "deep", "/x"),
            ("/ab", "root", "/ab"),
        ):
            answer = await self.fetch(target)
            self.assertEqual((answer.json["app"], answer.json["target"]), (name, seen))

    async def test_services_named_by_their_path(self) -> None:
        """A service may be called as its path is, slashes and all: it comes, switches and goes."""
        one, two = self.app("one"), self.app("two")
        proxy = await self.started()
        for name in ("/", "/a/b"):
            there = Route(name, (), f"{name.rstrip('/')}/")
            for app in (one, two):
                await proxy.publish(there, app.backend)
                answer = await self.fetch(f"{there.path}x")
                self.assertEqual((answer.json["app"], answer.json["target"]), (app.name, "/x"))
                self.assertEqual(answer.headers["X-Starphleet-Service"], name)
            await proxy.withdraw(name)
            self.assertEqual((await self.fetch(f"{there.path}x")).status, 404)

    async def test_the_ships_own_path(self) -> None:
        """Below /starphleet/ the ship alone answers, whatever has the root: hooks reach its socket,
        whole and not too large, and nothing while it is down."""
        root = self.app("root")
        self.prefix.chmod(0o711)  # workers have to get there
        proxy = await self.started()
        self.assertEqual((await self.fetch("/starphleet/x")).status, 404)
        await proxy.publish(Route("/", (), "/"), root.backend)
        for target in ("/starphleet", "/starphleet/", "/starphleet/x", "/starphleet/hooks"):
            self.assertIn((await self.fetch(target)).status, (301, 404), target)
        self.assertEqual((await self.fetch("/starphleets/x")).json["app"], "root")
        self.assertEqual((await self.fetch("/starphleet/hooks/x")).status, 502)
        own = App("own").listen_at(proxy.instance.hooks)
        self.addCleanup(self.close, own)
        answer = await self.fetch("/starphleet/hooks/x?y", method="POST", body=b"whole")
        self.assertEqual((answer.json["app"], answer.json["target"]), ("own", "/x?y"))
        length = [("Content-Length", str((25 << 20) + 1))]
        large = await self.fetch("/starphleet/hooks/x", method="POST", headers=length)
        self.assertEqual(large.status, 413)


class HeaderTests(ProxyCase):
    async def test_forwarded_headers(self) -> None:
        """The app learns who asked, how and where; the client learns who answered."""
        await self.started(self.app("hello"))
        answer = await self.fetch(
            "/~hello/",
            host="ship:8080",
            headers=[("X-Forwarded-For", "9.9.9.9"), ("X-Forwarded-Proto", "gopher")],
        )
        headers = {name.lower(): value for name, value in answer.json["headers"]}
        for name, value in {
            "host": "ship:8080",
            "x-real-ip": "127.0.0.1",
            "x-forwarded-for": "9.9.9.9, 127.0.0.1",
            "x-forwarded-proto": "http",
            "x-forwarded-host": "ship:8080",
            "x-forwarded-prefix": "/~hello",
        }.items():
            self.assertEqual((name, headers.get(name)), (name, value))
        self.assertEqual(answer.headers["X-Starphleet-Service"], "hello")
        self.assertEqual(answer.headers["X-Starphleet-Container"], "hello")
        self.assertEqual(answer.headers["Server"], "nginx")

    async def test_forged_headers_are_stripped(self) -> None:
        """No identity, prefix or proxy that a client claims reaches an app, however it is spelt."""
        await self.started(self.app("hello"))
        forged = ["X-Identity", "x-IDENTITY", "JWT-Role", "jwt-email", "X_Identity", "Jwt_Role"]
        headers = [(name, "root") for name in [*forged, "X-Forwarded-Prefix", "Proxy"]]
        for target, host in (("/", "hello.localhost"), ("/~hello/", "ship")):
            answer = await self.fetch(target, host=host, headers=[*headers, ("X-Mine", "kept")])
            seen = {name.lower(): value for name, value in answer.json["headers"]}
            self.assertNotIn("root", seen.values())
            self.assertEqual(seen["x-mine"], "kept")

    async def test_app_cannot_redirect_inside(self) -> None:
        """X-Accel-Redirect of an app does not lead into another service, nor can it fake a name."""
        await self.started(self.app("hello"), self.app("other"))
        answer = await self.fetch("/~hello/escape")
        self.assertEqual((answer.status, answer.text), (200, "stayed"))
        self.assertEqual(answer.headers.get_all("X-Starphleet-Container"), ["hello"])
        self.assertNotIn("X-Accel-Redirect", answer.headers)

    async def test_gzip(self) -> None:
        """Text is compressed for clients that take it; images are not."""
        await self.started(self.app("hello"))
        accept = [("Accept-Encoding", "gzip")]
        text = await self.fetch("/~hello/text", headers=accept)
        self.assertEqual(text.headers["Content-Encoding"], "gzip")
        self.assertEqual(gzip.decompress(text.body), b"all work and no play " * 500)
        image = await self.fetch("/~hello/image", headers=accept)
        self.assertNotIn("Content-Encoding", image.headers)

    async def test_long_headers_are_bounded(self) -> None:
        """A header beyond 32 kB is refused by nginx itself, and one of 30 kB passes."""
        await self.started(self.app("hello"))
        fits = await self.fetch("/~hello/", headers=[("X-Long", "x" * 30_000)])
        self.assertEqual(fits.status, 200)
        refused = await self.fetch("/~hello/", headers=[("X-Long", "x" * 40_000)])
        self.assertEqual(refused.status, 400)


class StreamTests(ProxyCase):
    async def test_websocket(self) -> None:
        """A websocket passes both ways and is counted as open until it ends."""
        proxy = await self.started(self.app("hello"))
        client = await self.client()
        await client.ask("/~hello/socket", "Upgrade: WebSocket", "Connection: keep-alive, Upgrade")
        await client.receives(b"101 Switching")
        client.send("ping over the wire")
        await client.receives(b"ping over the wire")
        self.assertEqual(await proxy.traffic.open_requests("hello"), 1)
        client.close()
        self.assertEqual(await proxy.traffic.drain("hello", 5), 0)

    async def test_only_websockets_upgrade(self) -> None:
        """Another protocol than websocket (h2c, say) is not handed on."""
        await self.started(self.app("hello"))
        headers = [("Upgrade", "h2c"), ("Connection", "Upgrade, HTTP2-Settings")]
        answer = await self.fetch("/~hello/", headers=headers)
        seen = {name.lower() for name, _ in answer.json["headers"]}
        self.assertNotIn("upgrade", seen)

    async def test_events_pass_one_by_one(self) -> None:
        """A server-sent event is with the client before the next one is written, uncompressed."""
        app = self.app("hello")
        await self.started(app)
        client = await self.client()
        await client.ask("/~hello/events", "Accept-Encoding: gzip")
        await until(lambda: app.held, "the stream to open")
        for event in (b"data: first\n\n", b"data: second\n\n"):
            app.held[0].send(event)
            await client.receives(event)

    async def test_upload_is_streamed(self) -> None:
        """100 MB of body pass; nginx grows by less than 16 MB and writes nothing to disk."""
        app = self.app("hello")
        proxy = await self.started(app)
        workers = psutil.Process(await self.master()).children()
        before = max(worker.memory_info().rss for worker in workers)
        answer = await self.fetch("/~hello/sink", method="POST", body=b"x" * 100_000_000)
        self.assertEqual(answer.json["body"], 100_000_000)
        self.assertLess(max(w.memory_info().rss for w in workers) - before, 16_000_000)
        self.assertEqual(sum(w.io_counters().write_bytes for w in workers) // 1_000_000, 0)
        self.assertEqual(await proxy.traffic.drain("hello", 5), 0)


class KeptConnectionTests(ProxyCase):
    async def test_connections_to_the_app_are_kept(self) -> None:
        """Requests that follow each other share connections to the app."""
        app = self.app("hello")
        await self.started(app)
        client = await self.client()
        for count in range(1, 21):
            await client.ask("/~hello/")
            await until(lambda n=count: client.received.count(b'"target"') == n, "answer")
        self.assertLessEqual(len(app.wires) + app.lost, 2)

    async def test_app_closes_kept_connection(self) -> None:
        """An app that drops a kept connection under a GET costs nothing: it is asked again."""
        app = self.app("hello")
        await self.started(app)
        for _ in range(10):
            answer = await self.fetch("/~hello/once")
            self.assertEqual((answer.status, answer.text), (200, "first of its connection"))
        self.assertGreater(app.lost, 0)

    async def test_post_never_rides_a_kept_connection(self) -> None:
        """A POST cannot be sent twice, so it gets a connection that the app has not tired of."""
        await self.started(self.app("hello"))
        for _ in range(10):
            await self.fetch("/~hello/once")
            for method, body in (("POST", b"x"), ("POST", b""), ("PATCH", b""), ("PUT", b"x")):
                answer = await self.fetch("/~hello/once", method=method, body=body)
                self.assertEqual((answer.status, answer.text), (200, "first of its connection"))


class PageTests(ProxyCase):
    async def test_unknown_names_say_so(self) -> None:
        """An unknown host or path gets a 404 with the ship's name; markup in it is harmless."""
        await self.started(self.app("hello"))
        answer = await self.fetch("/nowhere")
        self.assertEqual(answer.status, 404)
        self.assertIn("no service at ship/nowhere on the ship enterprise.example", answer.text)
        self.assertTrue(answer.headers["Content-Type"].startswith("text/plain"))
        page = await self.fetch("/%3Cscript%3E", headers=[("Accept", "text/html,*/*")])
        self.assertEqual(page.status, 404)
        self.assertTrue(page.headers["Content-Type"].startswith("text/html"))
        self.assertNotIn("<script>", page.text)
        self.assertIn("enterprise.example", page.text)

    async def test_refused_connection_is_a_restart(self) -> None:
        """When nothing listens in the container, a 502 says that the service is being restarted."""
        proxy = self.proxy()
        await proxy.start(public({route("hello"): Backend("hello.1", "127.0.0.1", free_port())}))
        answer = await self.fetch("/~hello/", headers=[("Accept", "text/html")])
        self.assertEqual(answer.status, 502)
        self.assertIn("hello is being restarted", answer.text)
        self.assertEqual(answer.headers["X-Starphleet-Container"], "hello.1")
        self.assertEqual(await proxy.traffic.drain("hello.1", 5), 0)

    async def test_broken_answer(self) -> None:
        """When the app hangs up without a whole answer, a 502 says that, and it is asked once."""
        app = self.app("hello")
        await self.started(app)
        answer = await self.fetch("/~hello/break", method="POST", body=b"")
        self.assertEqual(answer.status, 502)
        self.assertIn("hello broke off", answer.text)

    async def test_silence_times_out(self) -> None:
        """An app that says nothing for the configured time is a 504 that names it."""
        app = self.app("hello")
        proxy = await self.started(app, silence=1)
        answer = await self.fetch("/~hello/hold")
        self.assertEqual(answer.status, 504)
        self.assertIn("hello did not answer in time", answer.text)
        self.assertEqual(await proxy.traffic.drain("hello", 5), 0)

    async def test_own_errors_pass(self) -> None:
        """An error page of the app's own is left as it is."""
        await self.started(self.app("hello"))
        answer = await self.fetch("/~hello/fail")
        self.assertEqual((answer.status, answer.text), (503, "my own words"))
