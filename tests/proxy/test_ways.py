"""Every other way to a service: ports, redirects, signs, cached paths; and headers and origins."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.protection import Commons, Sign
from proxy.routes import InvalidRoute, ProxyError, Route, RouteTaken
from tests.ports import free_port
from tests.proxy.app import App
from tests.proxy.client import Answer
from tests.proxy.reactor import until
from tests.proxy.world import ProxyCase, public, route

Headers = list[tuple[str, str]]


def seen(answer: Answer) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.json["headers"]}


class PortTests(ProxyCase):
    async def test_published_port(self) -> None:
        """A published port is the root of its service, whatever the host, until it is no more."""
        app = self.app("hello")
        proxy = await self.started()
        port = free_port()
        await proxy.publish(Route("hello", (), "/a/", port=port), app.backend)
        for target in ("/", "/a/x", "/starphleet/hooks", "//b%2F?c"):
            answer = await self.fetch(target, at=port)
            self.assertEqual(answer.json["target"], target)
            self.assertNotIn("x-forwarded-prefix", seen(answer))
        self.assertEqual((await self.fetch("/a/x")).json["target"], "/x")
        await proxy.publish(Route("hello", (), "/a/"), app.backend)
        with self.assertRaises(ConnectionRefusedError):
            await self.fetch("/", at=port)

    async def test_port_of_another_program(self) -> None:
        """A port that somebody has fails its own route alone, at a publish and at a start."""
        app, taken = self.app("hello"), self.app("taken").port
        proxy = await self.started(app)
        with self.assertRaisesRegex(ProxyError, f"port {taken} cannot be had: Address already in"):
            await proxy.publish(Route("new", (), "/new/", port=taken), app.backend)
        self.assertEqual((await self.fetch("/new/")).status, 404)
        self.assertEqual((await self.fetch("/~hello/")).status, 200)
        port = free_port()
        table = public(
            {
                route("hello"): app.backend,
                Route("new", (), "/new/", port=taken): app.backend,
                Route("fine", (), "/fine/", port=port): app.backend,
            }
        )
        for _ in range(2):
            self.assertEqual(list(await self.proxy().start(table)), ["new"])
            self.assertEqual((await self.fetch("/", at=port)).status, 200)
            self.assertEqual((await self.fetch("/~hello/")).status, 200)

    async def test_ports_of_the_ship(self) -> None:
        """The ship's own port, and a port that another service has, are refused by name."""
        app = self.app("hello")
        proxy = await self.started(app)
        port = free_port()
        await proxy.publish(Route("one", (), "/one/", port=port), app.backend)
        for wanted, owner in ((self.port, "the ship itself"), (port, "one")):
            with self.assertRaisesRegex(RouteTaken, f"port {wanted}: it already leads to {owner}"):
                await proxy.publish(Route("two", (), "/two/", port=wanted), app.backend)


class LeadingTests(ProxyCase):
    async def test_redirected_hosts(self) -> None:
        """Who asks for a host that leads elsewhere is sent there, with all that he asked for."""
        app = self.app("hello")
        proxy = self.proxy()
        redirects = (
            ("old.example", "https://new.example"),
            ("slash.example", "https://new.example/"),
            ("deep.example", "http://new.example:81/a/$host'"),
        )
        leading = Route("hello", (), "/a/", redirects=redirects)
        await proxy.start(public({leading: app.backend}))
        for host, target, location in (
            ("old.example", "/x%2Fy//?q=+", "https://new.example/x%2Fy//?q=+"),
            ("OLD.example:8080", "/", "https://new.example/"),
            ("slash.example", "//evil.example/", "https://new.example//evil.example/"),
            ("deep.example", "/x", "http://new.example:81/a/$host'/x"),
        ):
            answer = await self.fetch(target, host=host)
            self.assertEqual((answer.status, answer.headers["Location"]), (301, location))

    async def test_signs(self) -> None:
        """A sign leads its path, and all below it, to another service, path or site."""
        app, target = self.app("hello"), Sign("/alias/", service="/a")
        proxy = self.proxy()
        signs = (
            target,
            Sign("/site/", url="https://new.example/s/"),
            Sign("/path/", url="/a/"),
            Sign("/up/", url="/"),
        )
        leading = Route("/a", (), "/a/")
        await proxy.start(public({leading: app.backend}), Commons(signs=signs))
        answer = await self.fetch("/alias/x%2Fy?z")
        self.assertEqual(answer.json["target"], "/x%2Fy?z")
        self.assertEqual(seen(answer)["x-forwarded-prefix"], "/alias")
        for at, location in (
            ("/site/x%2Fy?z", "https://new.example/s/x%2Fy?z"),
            ("/site", "https://new.example/s/"),
            ("/site?z", "https://new.example/s/?z"),
            ("/path/x", "/a/x"),
            ("/path/", "/a/"),
            ("/up/x", "/x"),
            ("/up//evil.example/x", "/evil.example/x"),
            ("/up/\\/evil.example", "/evil.example"),
            ("/up/%2F/x", "/%2F/x"),
            ("/up", "/"),
        ):
            answer = await self.fetch(at)
            got = (at, answer.status, answer.headers["Location"])
            self.assertEqual(got, (at, 301, location))

    async def test_signs_come_and_go(self) -> None:
        """Signs are what was said last; a route goes first; a bad one is told and left out."""
        app = self.app("hello")
        proxy = await self.started(app)
        signs = (
            Sign("/one/", service="hello"),
            Sign("/~hello/", url="/x/"),
            Sign("/two/", url="javascript:alert(1)"),
            Sign("/starphleet/x/", url="/"),
            Sign("/none/", service="nobody"),
        )
        refused = await proxy.refit(Commons(signs=signs))
        self.assertEqual(sorted(refused), ["sign /starphleet/x/", "sign /two/", "sign /~hello/"])
        self.assertEqual((await self.fetch("/one/")).status, 200)
        self.assertEqual((await self.fetch("/~hello/")).status, 200)
        self.assertEqual((await self.fetch("/none/")).status, 404)
        generation = self.generation()
        await proxy.refit(Commons(signs=signs))
        self.assertEqual(self.generation(), generation)
        await proxy.refit(Commons())
        self.assertEqual((await self.fetch("/one/")).status, 404)

    async def test_a_sign_may_be_the_root(self) -> None:
        """The root may lead elsewhere, and the ship's own paths go before it."""
        proxy = self.proxy()
        await proxy.start({}, Commons(signs=(Sign("/", url="https://home.example/"),)))
        answer = await self.fetch("/x?y")
        self.assertEqual(answer.headers["Location"], "https://home.example/x?y")
        self.assertEqual((await self.fetch("/starphleet/x")).status, 404)


class HeaderTests(ProxyCase):
    async def test_saidof_orders(self) -> None:
        """Headers are set on what the app is asked and over what it answers, word for word."""
        app = self.app("hello")
        proxy = self.proxy()
        odd = "a $host \"b\" 'c' \\n ]] {} ; %41"
        leading = Route(
            "hello",
            ("hello.example",),
            "/a/",
            request_headers=(("X-One", odd), ("Accept-Encoding", ""), ("X-Two", "1")),
            response_headers=(("X-Three", odd), ("X-Many", "1"), ("X-Many", "2"), ("Server", "me")),
        )
        await proxy.start(public({leading: app.backend}))
        for target, host in (("/a/", "ship"), ("/", "hello.example")):
            answer = await self.fetch(
                target, host=host, headers=[("x-one", "mine"), ("X-Two", "2")]
            )
            self.assertEqual(seen(answer)["x-one"], odd)
            self.assertEqual(seen(answer)["x-two"], "1")
            self.assertEqual(answer.headers["X-Three"], odd)
            self.assertEqual(answer.headers.get_all("X-Many"), ["1", "2"])
            self.assertEqual(answer.headers.get_all("Server"), ["me"])

    async def test_any_header_arrives_as_it_was_said(self) -> None:
        """Whatever the grammar takes as a value, app and client get, byte for byte."""
        values: set[str] = set()
        text = st.text(st.characters(codec="ascii"), min_size=1, max_size=30)

        @settings(max_examples=150, deadline=None, database=None)
        @given(value=st.one_of(text, st.text("\\\"]][['$%{};#n01 ", min_size=1, max_size=12)))
        def collect(value: str) -> None:
            with contextlib.suppress(InvalidRoute):
                Route("a", (), "/a/", request_headers=(("X-A", value),))
                values.add(value)

        collect()
        self.assertGreater(len(values), 50)
        said = tuple((f"X-A{n}", value) for n, value in enumerate(sorted(values)[:60]))
        leading = Route("a", (), "/a/", request_headers=said, response_headers=said)
        proxy = self.proxy()
        await proxy.start(public({leading: self.app("a").backend}))
        answer = await self.fetch("/a/")
        got = seen(answer)
        for name, value in said:
            self.assertEqual(got[name.lower()], value)
            self.assertEqual(answer.headers[name], value)

    async def test_identity_header_of_a_service(self) -> None:
        """The header that a service takes an identity from cannot be sent, in any spelling."""
        app, other = self.app("hello"), self.app("other")
        proxy = self.proxy()
        leading = Route("hello", ("hello.example",), "/a/", identity_header="X-Remote-User")
        await proxy.start(public({leading: app.backend, route("other"): other.backend}))
        names = ("X-Remote-User", "x-REMOTE-user", "X_Remote_User", "X-Identity", "X-Remote_User")
        headers = [(name, "root") for name in names]
        for target, host in (("/a/", "ship"), ("/", "hello.example")):
            answer = await self.fetch(target, host=host, headers=headers)
            self.assertNotIn("root", seen(answer).values())
        self.assertIn("x-remote-user", seen(await self.fetch("/~other/", headers=headers)))

    async def test_who_serves(self) -> None:
        """App and client learn the service's, the container's and the ship's names; nobody can
        pretend them."""
        await self.started(self.app("hello"))
        forged = [("X-Starphleet-Service-Name", "x"), ("X-Forwarded-Server", "x"), ("X-Http", "on")]
        answer = await self.fetch("/~hello/", headers=forged)
        self.assertEqual(seen(answer)["x-starphleet-service-name"], "hello")
        self.assertEqual(seen(answer)["x-forwarded-server"], "ship")
        self.assertNotIn("x-http", seen(answer))
        self.assertEqual(answer.headers["X-Starphleet-Ship"], "enterprise.example")


class OriginTests(ProxyCase):
    PREFLIGHT = (
        ("Access-Control-Request-Method", "PUT"),
        ("Access-Control-Request-Headers", "x-a"),
    )

    async def test_only_listed_origins(self) -> None:
        """A listed origin may ask, with credentials; any other is told nothing, whatever the app
        says."""
        app = await self.origins("https://a.example", "http://b.example:81")
        for origin, allowed in (
            ("https://a.example", True),
            ("http://b.example:81", True),
            ("https://b.example:81", False),
            ("https://a.example.evil", False),
            ("null", False),
            ("https://A.example", False),
        ):
            for target in ("/a/", "/a/sharing"):
                answer = await self.fetch(target, headers=[("Origin", origin)])
                self.assertEqual(answer.status, 200)
                self.assertIn("Origin", ", ".join(answer.headers.get_all("Vary", [])))
                self.assertEqual(
                    answer.headers.get_all("Access-Control-Allow-Origin"),
                    [origin] if allowed else None,
                )
                credentials = answer.headers.get_all("Access-Control-Allow-Credentials")
                self.assertEqual(credentials, ["true"] if allowed else None)
        self.assertGreater(len(app.wires) + app.lost, 0)

    async def test_preflight_is_answered_here(self) -> None:
        """The question before the question never reaches the app: methods and headers to a listed
        origin, nothing to any other."""
        app = await self.origins("https://a.example")
        for origin in ("https://a.example", "https://evil.example"):
            answer = await self.fetch(
                "/a/", method="OPTIONS", headers=[("Origin", origin), *self.PREFLIGHT]
            )
            self.assertEqual((answer.status, answer.body), (204, b""))
            if origin == "https://a.example":
                self.assertEqual(answer.headers["Access-Control-Allow-Origin"], origin)
                self.assertEqual(answer.headers["Access-Control-Allow-Headers"], "x-a")
                self.assertIn("PUT", answer.headers["Access-Control-Allow-Methods"])
            else:
                self.assertFalse([n for n in answer.headers if n.startswith("Access-Control")])
        self.assertEqual(app.lost + len(app.wires), 0)
        plain = await self.fetch("/a/", method="OPTIONS")
        self.assertEqual(plain.json["method"], "OPTIONS")

    async def test_any_origin_gets_no_credentials(self) -> None:
        """`*` lets every page ask, none with credentials but those that are listed by name."""
        await self.origins("*", "https://a.example")
        anybody = await self.fetch("/a/", headers=[("Origin", "https://x.example")])
        self.assertEqual(anybody.headers["Access-Control-Allow-Origin"], "*")
        self.assertNotIn("Access-Control-Allow-Credentials", anybody.headers)
        named = await self.fetch("/a/", headers=[("Origin", "https://a.example")])
        self.assertEqual(named.headers["Access-Control-Allow-Origin"], "https://a.example")
        self.assertEqual(named.headers["Access-Control-Allow-Credentials"], "true")

    async def test_off_by_default(self) -> None:
        """Without origins the proxy says nothing of them, and preflights are the app's."""
        await self.started(self.app("hello"))
        headers = [("Origin", "https://a.example"), *self.PREFLIGHT]
        answer = await self.fetch("/~hello/", method="OPTIONS", headers=headers)
        self.assertEqual(answer.json["method"], "OPTIONS")
        self.assertFalse([n for n in answer.headers if n.startswith("Access-Control")])
        shared = await self.fetch("/~hello/sharing", headers=headers)
        self.assertEqual(shared.headers["Access-Control-Allow-Origin"], "https://the.app")

    async def origins(self, *origins: str) -> App:
        app = self.app("hello")
        proxy = self.proxy()
        await proxy.start(public({Route("hello", (), "/a/", origins=origins): app.backend}))
        return app


class CachedTests(ProxyCase):
    async def test_kept_for_just_who_asked(self) -> None:
        """A cached path keeps an answer for who sends the same of himself, until the next release;
        the plain path keeps nothing."""
        blue, green = self.app("blue"), self.app("green")
        proxy = self.proxy()
        self.prefix.chmod(0o711)
        cached = Route("hello", (), "/a/b/", cached=True)
        await proxy.start(public({cached: blue.backend}))
        ann, cookie = ("Authorization", "Basic ann"), ("Cookie", "session=1")
        for target, headers, status in (
            ("/a/b_cached/count", [], "MISS"),
            ("/a/b_cached/count", [], "HIT"),
            ("/a/b_cached/count?x", [], "MISS"),
            ("/a/b_cached/count", [ann], "MISS"),
            ("/a/b_cached/count", [ann], "HIT"),
            ("/a/b_cached/count", [cookie], "MISS"),
            ("/a/b_cached/count", [cookie], "HIT"),
            ("/a/b_cached/count", [], "HIT"),
            ("/a/b_cached/private", [], "MISS"),
            ("/a/b_cached/private", [], "MISS"),
            ("/a/b_cached/cookies", [], "MISS"),
            ("/a/b_cached/cookies", [], "MISS"),
            ("/a/b_cached/fail", [], "MISS"),
            ("/a/b_cached/fail", [], "MISS"),
            ("/a/b/count", [], None),
        ):
            if status == "HIT":  # nginx files an answer after it has sent it

                async def hit(target: str = target, headers: Headers = headers) -> bool:
                    answer = await self.fetch(target, headers=headers)
                    return answer.headers.get("X-Cache-Status") == "HIT"

                await until(hit, f"{target} to be kept", most=3)
                continue
            answer = await self.fetch(target, headers=headers)
            got = (target, headers, answer.headers.get("X-Cache-Status"))
            self.assertEqual(got, (target, headers, status))
        for host in ("other", "ship"):
            answer = await self.fetch("/a/b_cached/count", host=host)
            self.assertEqual(answer.headers["X-Cache-Status"], "MISS")
        posted = await self.fetch("/a/b_cached/count", method="POST", body=b"")
        self.assertEqual(posted.headers.get("X-Cache-Status"), None)
        await proxy.publish(cached, green.backend)
        answer = await self.fetch("/a/b_cached/count")
        self.assertEqual(answer.headers["X-Cache-Status"], "MISS")
        self.assertEqual(answer.headers["X-Starphleet-Container"], "green")
        self.assertEqual(await proxy.traffic.drain("blue", 5), 0)

    async def test_streams_pass_by(self) -> None:
        """On a cached path too an event is with the client before the next one is written, and a
        websocket opens; directives, headers and counts are those of the path."""
        app, proxy = self.app("hello"), self.proxy()
        self.prefix.chmod(0o711)
        locations = "expires 1h; proxy_buffering off;"
        cached = Route("hello", (), "/a/", cached=True, locations=locations)
        await proxy.start(public({cached: app.backend}))
        client = await self.client()
        await client.ask("/a_cached/events?x%2F", "Accept: a/b, Text/Event-Stream")
        await until(lambda: app.held, "the stream to open")
        for event in (b"data: first\n\n", b"data: second\n\n"):
            app.held[0].send(event)
            await client.receives(event)
        self.assertIn(b"X-Starphleet-Container: hello", client.received)
        self.assertIn(b"max-age=3600", client.received)
        self.assertNotIn(b"X-Cache-Status", client.received)
        self.assertEqual(await proxy.traffic.open_requests("hello"), 1)
        client.close()
        self.assertEqual(await proxy.traffic.drain("hello", 5), 0)
        other = await self.client()
        await other.ask("/a_cached/socket", "Upgrade: websocket", "Connection: Upgrade")
        await other.receives(b"101 Switching")
        other.send("ping over the wire")
        await other.receives(b"ping over the wire")
        other.close()
        self.assertEqual(await proxy.traffic.drain("hello", 5), 0)
        answer = await self.fetch("/a_cached/y%2F?z", headers=[("Accept", "text/event-stream")])
        self.assertEqual(answer.json["target"], "/y%2F?z")
        self.assertEqual((await self.fetch("/a_cached/y")).headers["X-Cache-Status"], "MISS")

    async def test_streams_that_say_so_pass_by(self) -> None:
        """What the service does not want gathered is not, whoever asks how."""
        app, proxy = self.app("hello"), self.proxy()
        self.prefix.chmod(0o711)
        await proxy.start(public({Route("hello", (), "/a/", cached=True): app.backend}))
        client = await self.client()
        await client.ask("/a_cached/flow")
        await until(lambda: app.held, "the stream to open")
        for piece in (b"first", b"second"):
            app.held[0].send(piece)
            await client.receives(piece)

    async def test_cached_path_is_a_way_like_others(self) -> None:
        """A cached path cannot be had by two."""
        app = self.app("hello")
        self.prefix.chmod(0o711)
        proxy = self.proxy()
        await proxy.start(public({Route("/", (), "/", cached=True): app.backend}))
        with self.assertRaisesRegex(RouteTaken, "/_cached/"):
            await proxy.publish(Route("x", (), "/_cached/"), app.backend)
        self.assertEqual((await self.fetch("/_cached/x")).json["target"], "/x")


class DirectiveTests(ProxyCase):
    async def test_directives_of_orders(self) -> None:
        """Directives hold on every way to their service, and on no other."""
        app, other = self.app("hello"), self.app("other")
        port = free_port()
        proxy = self.proxy()
        self.prefix.chmod(0o711)
        leading = Route(
            "hello",
            ("a.example",),
            "/a/",
            port=port,
            cached=True,
            locations="client_max_body_size 10;\nexpires 1h; # short\nproxy_buffering on;",
        )
        table = public({leading: app.backend, route("other"): other.backend})
        self.assertEqual(await proxy.start(table, Commons(signs=(Sign("/b/", "hello"),))), {})
        for target, host, at in (
            ("/a/x", "ship", self.port),
            ("/a_cached/x", "ship", self.port),
            ("/b/x", "ship", self.port),
            ("/x", "a.example", self.port),
            ("/x", "ship", port),
        ):
            large = await self.fetch(target, host=host, at=at, method="POST", body=b"x" * 11)
            self.assertEqual((target, large.status), (target, 413))
            answer = await self.fetch(target, host=host, at=at)
            self.assertEqual(answer.headers["Cache-Control"], "max-age=3600")
        answer = await self.fetch("/~other/", method="POST", body=b"x" * 11)
        self.assertEqual(answer.status, 200)
        self.assertNotIn("Cache-Control", answer.headers)

    async def test_longest_path_wins_all_the_same(self) -> None:
        """Paths with directives, cached ones, plain ones and signs lie below each other at will."""
        proxy = self.proxy()
        self.prefix.chmod(0o711)
        own = {
            "/": "gzip off;",
            "/a/": "",
            "/a/b/": "gzip off;",
            "/a/b/c/": "",
            "/x/y_cached/z/": "",
        }
        table = {
            Route(f"s{n}", (), path, locations=text): self.app(f"s{n}").backend
            for n, (path, text) in enumerate(own.items())
        }
        table[Route("x", (), "/x/y/", cached=True)] = self.app("x").backend
        signs = (Sign("/a/b/s/", url="https://s.example/"), Sign("/a/t/", service="s3"))
        self.assertEqual(await proxy.start(public(table), Commons(signs=signs)), {})
        for target, app, seen_ in (
            ("/v", "s0", "/v"),
            ("/a/v", "s1", "/v"),
            ("/a/b/v", "s2", "/v"),
            ("/a/b/c/v", "s3", "/v"),
            ("/a/t/v", "s3", "/v"),
            ("/x/y/v", "x", "/v"),
            ("/x/y_cached/v", "x", "/v"),
            ("/x/y_cached/z/v", "s4", "/v"),
            ("/x/y_cache/v", "s0", "/x/y_cache/v"),
        ):
            answer = await self.fetch(target)
            self.assertEqual((answer.json["app"], answer.json["target"]), (app, seen_))
        self.assertEqual((await self.fetch("/a/b/s/v")).headers["Location"], "https://s.example/v")
        for target in ("/a", "/a/b", "/a/b/c", "/a/t", "/x/y", "/x/y_cached", "/x/y_cached/z"):
            answer = await self.fetch(f"{target}?q=%2F")
            self.assertEqual(answer.headers["Location"], f"{target}/?q=%2F")

    async def test_a_bad_directive_fails_its_route_alone(self) -> None:
        """What nginx does not take is told of one route out of twenty; the others serve."""
        app = self.app("hello")
        proxy = self.proxy()
        table = {route(f"s{n}"): app.backend for n in range(20)}
        table[Route("bad", (), "/bad/", locations="client_max_body_size many;")] = app.backend
        refused = await proxy.start(public(table))
        self.assertEqual(list(refused), ["bad"])
        self.assertRegex(str(refused["bad"]), "client_max_body_size")
        for n in range(20):
            self.assertEqual((await self.fetch(f"/~s{n}/")).status, 200)
        with self.assertRaisesRegex(ProxyError, "between 1 and 9"):
            bad = Route("bad", (), "/bad/", locations="gzip_comp_level 99;")
            await proxy.publish(bad, app.backend)
        self.assertEqual((await self.fetch("/bad/")).status, 404)
