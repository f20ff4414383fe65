"""What nginx does for services that are not for everybody: it asks, and lets nobody pass itself."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import psutil
from twisted.internet.defer import Deferred, DeferredList

from proxy.nginx import Proxy
from proxy.protection import Commons, Protection, Sign
from proxy.routes import Route
from tests.ports import free_port
from tests.proxy.app import App, Request, Wire
from tests.proxy.client import Answer
from tests.proxy.reactor import until
from tests.proxy.sentry import NO, Sentry, Verdict, basic, unkept
from tests.proxy.world import ProxyCase, route

LISTED = Protection(mode="htpasswd", users={"ann": "x"})
ANN = ("Authorization", "Basic ann")
BOB = ("Authorization", "Basic bob")


class GuardedCase(ProxyCase):
    def setUp(self) -> None:
        super().setUp()
        self.prefix.chmod(0o711)

    def proxy(self, **options: Any) -> Proxy:
        return unkept(super().proxy(**options))

    async def guarded(self, name: str) -> App:
        """An app at `/~NAME/` of which each request is looked at; its `proxy` serves it."""
        app = self.app(name)
        app.proxy = self.proxy()
        await app.proxy.start({route(name): (app.backend, LISTED)})
        return app

    def sentry(self, decide: Callable[[Request], Verdict] = basic) -> Sentry:
        sentry = Sentry("guard", decide=decide).post(self.prefix)
        self.addCleanup(self.close, sentry)
        return sentry

    def seen(self, answer: Answer) -> dict[str, str]:
        return {name.lower(): value for name, value in answer.json["headers"]}

    def saying(
        self, *headers: str, body: bytes = b"", status: str = "200 OK"
    ) -> Callable[[Request], Verdict]:
        """A guard that says the same to everybody."""

        def say(request: Request) -> Verdict:
            return status, headers, body

        return say


class WayTests(GuardedCase):
    async def test_every_way_is_guarded(self) -> None:
        """By path, host, port, alias, cached path and beta: who does not say who he is gets the
        guard's own answer, and the app hears nothing."""
        app, root = self.app("hello"), self.app("root")
        sentry = self.sentry()
        port = free_port()
        leading = Route("/a/b", ("a.example",), "/a/b/", port=port, cached=True)
        proxy = self.proxy()
        table = {
            leading: (app.backend, LISTED),
            Route("/", (), "/"): (root.backend, Protection()),
        }
        commons = Commons(signs=(Sign("/alias/", service="/a/b"),))
        self.assertEqual(await proxy.start(table, commons), {})
        ways = (
            ("/a/b/x", "ship", self.port, "/a/b"),
            ("/x", "a.example", self.port, ""),
            ("/x", "ship", port, ""),
            ("/alias/x", "ship", self.port, "/alias"),
            ("/a/b_cached/x", "ship", self.port, "/a/b_cached"),
            ("/%61/b/x", "ship", self.port, "/a/b"),
            ("/a/../a/b/x", "ship", self.port, "/a/b"),
        )
        for target, host, at, prefix in ways:
            refused = await self.fetch(target, host=host, at=at)
            self.assertEqual((target, refused.status), (target, 401))
            self.assertEqual(refused.headers["WWW-Authenticate"], 'Basic realm="Forbidden!"')
            self.assertEqual(refused.text, "who are you?")
            asked = {name.lower(): value for name, value in sentry.asked[-1].headers}
            self.assertEqual((asked["x-service"], asked["x-prefix"]), ("/a/b", prefix))
        self.assertEqual(app.wires, [])
        for target, host, at, _ in ways:
            forged = [("X-Identity", "root"), ("jwt-role", "admin")]
            answer = await self.fetch(target, host=host, at=at, headers=[ANN, *forged])
            self.assertEqual((answer.status, answer.json["target"]), (200, "/x"))
            self.assertEqual(self.seen(answer)["x-identity"], "ann")
            self.assertNotIn("jwt-role", self.seen(answer))

    async def test_what_the_guard_is_told(self) -> None:
        """The guard learns of a request what the client sent, and no more."""
        await self.guarded("hello")
        sentry = self.sentry()
        headers = [
            ("Cookie", "a=1; b=2"),
            ("Accept", "text/html"),
            ("Origin", "https://o"),
            ("X-Requested-With", "XMLHttpRequest"),
            ("X-Service", "/forged"),
            ("X-Other", "kept back"),
        ]
        await self.fetch("/~hello/p%2Fq//?x=%20", method="DELETE", host="Ship:81", headers=headers)
        asked = dict((name.lower(), value) for name, value in sentry.asked[0].headers)
        self.assertEqual(
            asked,
            {
                "host": "guard",
                "x-service": "hello",
                "x-method": "DELETE",
                "x-scheme": "http",
                "x-host": "Ship:81",
                "x-uri": "/~hello/p%2Fq//?x=%20",
                "x-prefix": "/~hello",
                "x-address": "127.0.0.1",
                "cookie": "a=1; b=2",
                "accept": "text/html",
                "origin": "https://o",
                "x-requested-with": "XMLHttpRequest",
            },
        )

    async def test_answers_of_the_guard(self) -> None:
        """What is no yes goes to the client as it is; other headers of it stay behind."""
        app = await self.guarded("hello")
        said = (
            "Location: https://login/?target=x",
            "Set-Cookie: a=1; Path=/",
            "Set-Cookie: b=2",
            "Cache-Control: no-store",
            "Content-Type: text/html",
            "X-Secret: no",
        )
        self.sentry(self.saying(*said, body=b"<p>there", status="302 Found"))
        answer = await self.fetch("/~hello/")
        self.assertEqual((answer.status, answer.text), (302, "<p>there"))
        self.assertEqual(answer.headers["Location"], "https://login/?target=x")
        self.assertEqual(answer.headers.get_all("Set-Cookie"), ["a=1; Path=/", "b=2"])
        self.assertEqual(answer.headers["Cache-Control"], "no-store")
        self.assertEqual(answer.headers["Content-Type"], "text/html")
        self.assertNotIn("X-Secret", answer.headers)
        self.assertEqual(app.wires, [])

    async def test_expires_is_not_the_guards(self) -> None:
        """How long a service's answers may be kept does not make the guard's be kept."""
        app, proxy = self.app("hello"), self.proxy()
        leading = Route("hello", (), "/a/", locations="expires max;")
        await proxy.start({leading: (app.backend, LISTED)})
        said = ("Location: https://login/", "Cache-Control: no-store")
        sentry = self.sentry(self.saying(*said, status="302 Found"))
        answer = await self.fetch("/a/")
        self.assertEqual(answer.headers.get_all("Cache-Control"), ["no-store"])
        self.assertNotIn("Expires", answer.headers)
        sentry.decide = self.saying()
        self.assertIn("max-age", (await self.fetch("/a/")).headers["Cache-Control"])

    async def test_a_directives_word_is_one_word(self) -> None:
        """No word of the directives for a service leads around its guard, whatever its quotes."""
        app, proxy = self.app("hello"), self.proxy()
        self.sentry()
        locations = """expires '"; return 200 "around';"""
        await proxy.start({Route("hello", (), "/a/", locations=locations): (app.backend, LISTED)})
        self.assertEqual((await self.fetch("/a/")).status, 401)
        self.assertEqual((await self.fetch("/a/", headers=[ANN])).json["app"], "hello")

    async def test_added_headers_are_not_the_guards(self) -> None:
        """What orders add to answers is added to the guard's too, and replaces nothing of it."""
        app, proxy = self.app("hello"), self.proxy()
        added = (("Cache-Control", "max-age=9"), ("Set-Cookie", "a=1"), ("X-Frame", "DENY"))
        leading = Route("hello", (), "/a/", response_headers=added)
        await proxy.start({leading: (app.backend, LISTED)})
        said = ("Location: https://login/", "Cache-Control: no-store", "Set-Cookie: jwt=x")
        sentry = self.sentry(self.saying(*said, status="302 Found"))
        answer = await self.fetch("/a/")
        self.assertEqual(answer.headers.get_all("Cache-Control"), ["no-store"])
        self.assertEqual(answer.headers.get_all("Set-Cookie"), ["jwt=x"])
        self.assertEqual(answer.headers["X-Frame"], "DENY")
        sentry.decide = self.saying()
        self.assertEqual((await self.fetch("/a/")).headers["Cache-Control"], "max-age=9")
        self.assertEqual((await self.fetch("/a/break")).headers["Cache-Control"], "no-store")

    async def test_what_a_yes_brings(self) -> None:
        """The app gets the guard's headers over the client's, the client the guard's cookies beside
        the app's."""
        await self.guarded("hello")
        self.sentry(
            self.saying("X-Pass: x-user: ann", "X-Pass: jwt-role: a: b", "Set-Cookie: who=ann")
        )
        answer = await self.fetch("/~hello/cookies", headers=[("X-User", "root")])
        self.assertEqual(answer.headers.get_all("Set-Cookie"), ["app=1", "who=ann"])
        answer = await self.fetch("/~hello/", headers=[("X-User", "root"), ("Jwt-Role", "root")])
        seen = self.seen(answer)
        self.assertEqual((seen["x-user"], seen["jwt-role"]), ("ann", "a: b"))
        self.assertEqual(len([n for n, _ in answer.json["headers"] if n.lower() == "x-user"]), 1)

    async def test_two_authorizations_are_refused(self) -> None:
        """A request that says twice who it is gets a 400."""
        await self.guarded("hello")
        self.sentry(self.saying())
        answer = await self.fetch("/~hello/", headers=[ANN, BOB])
        self.assertEqual(answer.status, 400)

    async def test_body_of_a_refused_request_is_no_request(self) -> None:
        """On a kept connection, the body of a POST that nginx answered is not taken for the next
        request, whether it came with the head or later."""
        app = await self.guarded("hello")
        self.sentry()
        await app.proxy.publish(route("other"), app.backend)
        inner = "GET /~other/smuggled HTTP/1.1\r\nHost: ship\r\n\r\n"
        for target, said in (("/~hello/", b"who are you?"), ("/nowhere", b"No such service")):
            client = await self.client()
            head = f"POST {target} HTTP/1.1\r\nHost: ship\r\nContent-Length: {len(inner)}\r\n\r\n"
            client.send(head + inner + head)
            await until(lambda c=client, s=said: c.received.count(s) == 2, "both to be refused")
            client.send(inner + "GET /~other/next HTTP/1.1\r\nHost: ship\r\n\r\n")
            await client.receives(b'"/next"')
            self.assertNotIn(b"smuggled", client.received)

    async def test_websocket_is_guarded(self) -> None:
        """A websocket is opened for who may, and refused to who may not."""
        await self.guarded("hello")
        self.sentry()
        no, yes = await self.client(), await self.client()
        upgrade = ("Upgrade: websocket", "Connection: Upgrade")
        await no.ask("/~hello/socket", *upgrade)
        await no.receives(b"401 Unauthorized")
        await yes.ask("/~hello/socket", *upgrade, "Authorization: Basic ann")
        await yes.receives(b"101 Switching")
        yes.send("echo")
        await yes.receives(b"echo")

    async def test_uploads_are_streamed(self) -> None:
        """A large body passes the guard unread."""
        await self.guarded("hello")
        self.sentry()
        workers = psutil.Process(await self.master()).children()
        before = max(worker.memory_info().rss for worker in workers)
        body = b"x" * 50_000_000
        answer = await self.fetch("/~hello/sink", method="POST", body=body, headers=[ANN])
        self.assertEqual(answer.json["body"], len(body))
        self.assertLess(max(w.memory_info().rss for w in workers) - before, 16_000_000)

    async def test_guard_and_traffic_switch_together(self) -> None:
        """A service becomes guarded, and open again, by a publish without a reload."""
        app = self.app("hello")
        self.sentry()
        proxy = await self.started(app)
        generation = self.generation()
        for protection, status in ((LISTED, 401), (None, 200), (LISTED, 401)):
            await proxy.publish(route("hello"), app.backend, protection)
            self.assertEqual((await self.fetch("/~hello/")).status, status)
            told = json.loads((self.prefix / "guard" / "guards.json").read_text())
            self.assertEqual("hello" in told["services"], status == 401)
        await proxy.traffic.lull("hello", "hello", True)
        self.assertIn(" asleep guarded", (self.prefix / "backends").read_text())
        self.assertEqual((await self.fetch("/~hello/")).status, 401)
        self.assertEqual(self.generation(), generation)

    async def test_guard_outlives_a_crash_and_the_ship(self) -> None:
        """An nginx that was killed comes back guarded, and so does the one that a ship adopts."""
        app = await self.guarded("hello")
        self.sentry()
        keeping = Deferred.fromCoroutine(app.proxy.keep())
        keeping.addErrback(lambda _: None)
        self.addCleanup(keeping.cancel)
        for pid in [await self.master(), *await self.workers()]:
            self.kill(pid)

        async def back() -> bool:
            try:
                return (await self.fetch("/~hello/")).status == 401
            except OSError:
                return False

        await until(back, "nginx to be back")
        await self.proxy().start({route("hello"): (app.backend, LISTED)})
        self.assertEqual((await self.fetch("/~hello/")).status, 401)


class RememberedTests(GuardedCase):
    async def test_a_yes_is_remembered_for_its_credential(self) -> None:
        """The same credential is asked for once; any other, at any other service, anew."""
        app = await self.guarded("hello")
        sentry = self.sentry()
        await app.proxy.publish(route("other"), app.backend, LISTED)
        for count, (target, headers) in enumerate(
            (
                ("/~hello/", [ANN]),
                ("/~hello/", [BOB]),
                ("/~other/", [ANN]),
                ("/~hello/", [ANN, ("Cookie", "a=1")]),
                ("/~hello/", [ANN, ("Cookie", "a=2")]),
            ),
            start=1,
        ):
            for _ in range(3):
                answer = await self.fetch(target, headers=headers)
                self.assertEqual(self.seen(answer)["x-identity"], headers[0][1].split()[1])
            self.assertEqual(len(sentry.asked), count)

    async def test_no_is_not_remembered(self) -> None:
        """Who was refused is asked for again each time, and so is who has nothing to say."""
        await self.guarded("hello")
        sentry = self.sentry()
        for count in range(1, 4):
            self.assertEqual((await self.fetch("/~hello/")).status, 401)
            self.assertEqual(len(sentry.asked), count)

    async def test_forgetting(self) -> None:
        """After another protection was published, the guard is asked anew, also where a check was
        under way meanwhile."""
        app = await self.guarded("hello")
        sentry = self.sentry()
        held: list[Any] = []
        self.assertEqual((await self.fetch("/~hello/", headers=[ANN])).status, 200)
        sentry.on_check = lambda wire, request: held.append(wire)  # type: ignore[method-assign]
        late = self.fetch("/~hello/", headers=[BOB])
        await until(lambda: held, "the check to be under way")
        narrower = Protection(mode="htpasswd", users={})
        await app.proxy.publish(route("hello"), app.backend, narrower)
        held[0].reply(b"", "X-Keep: 10")
        self.assertEqual((await late).status, 200)
        del sentry.on_check
        sentry.decide = self.saying(status="403 Forbidden")
        for credential in (ANN, BOB):
            answer = await self.fetch("/~hello/", headers=[credential])
            self.assertEqual(answer.status, 403)

    async def test_what_all_share_is_forgotten_too(self) -> None:
        """New groups are in force at the next request."""
        app = await self.guarded("hello")
        sentry = self.sentry()
        await self.fetch("/~hello/", headers=[ANN])
        for groups, count in (({"g": ("ann",)}, 2), ({"g": ("ann",)}, 2), ({}, 3)):
            self.assertEqual(await app.proxy.refit(Commons(groups=groups)), {})
            await self.fetch("/~hello/", headers=[ANN])
            self.assertEqual(len(sentry.asked), count)

    async def test_it_is_kept_no_longer_than_said(self) -> None:
        """A yes is kept for as long as the guard says: here not at all, and then for a second."""
        await self.guarded("hello")
        sentry = self.sentry(self.saying("X-Keep: 0"))
        for _ in range(2):
            await self.fetch("/~hello/", headers=[ANN])
        self.assertEqual(len(sentry.asked), 2)
        sentry.decide = self.saying("X-Keep: 1")

        async def asked_again() -> bool:
            await self.fetch("/~hello/", headers=[BOB])
            return len(sentry.asked) >= 4

        began = time.monotonic()
        await until(asked_again, "the yes to be over")
        self.assertGreater(time.monotonic() - began, 0.9)

    async def test_a_token_in_the_query_is_always_shown(self) -> None:
        """A request with `jwt=` in its query goes to the guard whatever is remembered."""
        await self.guarded("hello")
        sentry = self.sentry()
        for target in ("/~hello/", "/~hello/?jwt=x", "/~hello/?a=b&jwt=x", "/~hello/?jwt="):
            await self.fetch(target, headers=[ANN])
        self.assertEqual(len(sentry.asked), 4)

    async def test_it_does_not_outlive_nginx(self) -> None:
        """What is remembered is known by a secret that nginx makes anew each time it starts."""
        app = await self.guarded("hello")
        sentry = self.sentry()
        for count in (1, 2):
            await self.fetch("/~hello/", headers=[ANN])
            self.assertEqual(len(sentry.asked), count)
            await app.proxy.restart()


class BetaTests(GuardedCase):
    async def test_another_service_serves(self) -> None:
        """Whom the guard sends elsewhere is served from there, below the same path, by its own
        guard; one that is not there is passed over."""
        first, beta = self.app("first"), self.app("beta")
        proxy = self.proxy()
        await proxy.start(
            {
                Route("/a", (), "/a/"): (first.backend, Protection(betas=(("g", "/b/"),))),
                Route("/b", (), "/b/"): (beta.backend, Protection()),
            }
        )
        sentry = self.sentry(self.saying("X-Serve: /b", "X-Pass: x-identity: ann", "X-Keep: 9"))
        for _ in range(2):
            answer = await self.fetch("/a/x?y")
            self.assertEqual((answer.json["app"], answer.json["target"]), ("beta", "/x?y"))
            self.assertEqual(answer.headers["X-Starphleet-Service"], "/b")
            self.assertNotIn("x-identity", self.seen(answer))
        self.assertEqual(len(sentry.asked), 1)
        await proxy.publish(Route("/b", (), "/b/"), beta.backend, LISTED)
        sentry.decide = self.by_service({"/a": ("X-Serve: /b",)})
        self.assertEqual((await self.fetch("/a/x")).status, 401)
        sentry.decide = self.by_service({"/a": ("X-Serve: /b",), "/b": ("X-Pass: x-identity: b",)})
        self.assertEqual(self.seen(await self.fetch("/a/x"))["x-identity"], "b")
        await proxy.withdraw("/b")
        self.assertEqual((await self.fetch("/a/x")).json["app"], "first")
        self.assertEqual(await proxy.traffic.drain("beta", 5), 0)

    async def test_circles_end(self) -> None:
        """Services that send to each other are left after three hops."""
        first, other = self.app("first"), self.app("other")
        proxy = self.proxy()
        await proxy.start(
            {
                Route("/a", (), "/a/"): (first.backend, LISTED),
                Route("/b", (), "/b/"): (other.backend, LISTED),
            }
        )
        sentry = self.sentry(self.by_service({"/a": ("X-Serve: /b",), "/b": ("X-Serve: /a",)}))
        self.assertEqual((await self.fetch("/a/")).json["app"], "other")
        self.assertEqual(len(sentry.asked), 4)

    def by_service(self, says: dict[str, tuple[str, ...]]) -> Callable[[Request], Verdict]:
        def say(request: Request) -> Verdict:
            headers = says.get(request.all("x-service")[0])
            return NO if headers is None else ("200 OK", headers, b"")

        return say


class TroubleTests(GuardedCase):
    async def test_without_a_guard_nobody_passes(self) -> None:
        """With nobody to ask, a guarded service is a 503 after a while; an open one serves."""
        app = await self.guarded("hello")
        open_app = self.app("open")
        await app.proxy.publish(route("open"), open_app.backend)
        began = time.monotonic()
        answer = await self.fetch("/~hello/", headers=[ANN])
        self.assertEqual(answer.status, 503)
        self.assertIn("does not answer", answer.text)
        self.assertGreater(time.monotonic() - began, 2.5)
        self.assertEqual((await self.fetch("/~open/")).status, 200)
        self.assertEqual(app.wires, [])

    async def test_a_guard_being_restarted_is_waited_for(self) -> None:
        """A guard that comes up within 3 s costs patience and nothing else."""
        await self.guarded("hello")
        waiting = self.fetch("/~hello/", headers=[ANN])
        sentry = self.sentry()
        self.assertEqual((await waiting).status, 200)
        await self.close(sentry)
        (self.prefix / "guard" / "socket").unlink(missing_ok=True)
        waiting = self.fetch("/~hello/", headers=[BOB])
        self.sentry()
        self.assertEqual((await waiting).status, 200)

    async def test_nonsense_of_a_guard_is_no_yes(self) -> None:
        """What is no answer at all lets nobody pass."""
        app = await self.guarded("hello")
        sentry = self.sentry()
        for said in (
            b"200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n",
            b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        ):

            def say(wire: Wire, request: Request, said: bytes = said) -> None:
                wire.send(said)

            sentry.on_check = say  # type: ignore[method-assign]
            answer = await self.fetch("/~hello/", headers=[ANN])
            self.assertEqual((said, answer.status), (said, 503))
        self.assertEqual(app.wires, [])

    async def test_many_at_once(self) -> None:
        """Fifty requests of as many people are each let in as who they are."""
        await self.guarded("hello")
        self.sentry()
        people = [f"p{n}" for n in range(50)]
        answers = [
            self.fetch("/~hello/", headers=[("Authorization", f"Basic {p}")]) for p in people
        ]
        for person, (good, answer) in zip(people, await DeferredList(answers), strict=True):
            self.assertTrue(good)
            self.assertEqual(self.seen(answer)["x-identity"], person)
