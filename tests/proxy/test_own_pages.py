"""The ship's own pages at its front door: a real nginx and checker, and a stand-in for the site."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import maybeDeferred

from proxy.nginx import Proxy
from proxy.protection import OWN, Crew, Member, Protection
from proxy.ranks import Rank
from proxy.routes import InvalidRoute, Route, RouteTaken
from tests.proxy.app import App, Request, Wire
from tests.proxy.client import Answer
from tests.proxy.reactor import until
from tests.proxy.test_guard_door import DoorCase

ANN, PIA = Member("ann", Rank.ADMIRAL), Member("pia", Rank.PUSHER)
CREW = Crew({"SHA256:a": ANN, "SHA256:p": PIA}, "ssh git@ship")
PAGES = ("dashboard", "dashboard/", "dashboard/a.css", "status", "logstream", "metrics")
TAKE_TOKENS = ("logstream", "metrics")


class Site(App):
    """Streams are held open."""

    def answer(self, wire: Wire, request: Request) -> None:
        if request.all("accept") == ["text/event-stream"]:
            self.on_events(wire, request)
        else:
            super().answer(wire, request)


class OwnCase(DoorCase):
    async def opened(self, *apps: App, **options: Any) -> Proxy:
        """A front door with a site behind its own pages, and each app at `/~NAME/`, private."""
        proxy = self.proxy(reached="ssh git@ship", **options)
        await proxy.muster(CREW)
        table = {
            Route(app.name, (f"{app.name}.localhost",), f"/~{app.name}/"): (
                app.backend,
                Protection("private"),
            )
            for app in apps
        }
        self.assertEqual(await proxy.start(table), {})
        self.site = Site("site").listen_at(proxy.instance.pages)
        self.addCleanup(self.close, self.site)
        return proxy

    async def come_in(self, proxy: Proxy, service: str = OWN, **who: str) -> dict[str, str]:
        """The headers of a browser that came by a link."""
        given = {"owner": "ann", "key": "SHA256:a", **who}
        query = await proxy.link(service, **given)
        at = "/starphleet/dashboard" if service == OWN else f"/~{service}/"
        answer = await self.get(f"{at}?{query}")
        self.assertEqual((answer.status, answer.headers["Location"]), (302, at))
        return {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}

    def owner(self, answer: Answer) -> str | None:
        return self.seen(answer).get("x-starphleet-owner")


class PageTests(OwnCase):
    async def test_before_the_first_link(self) -> None:
        """Nobody gets a page, everybody is told how; no checker runs for that."""
        await self.opened()
        for page in PAGES:
            for headers in ({}, {"X-Starphleet-Owner": "ann"}, {"Authorization": "Basic eDp5"}):
                answer = await self.get(f"/starphleet/{page}", headers)
                self.assertEqual((page, answer.status), (page, 401))
                self.assertIn("ssh git@ship open dashboard", answer.text)
        self.assertEqual(self.site.wires, [])
        self.assertFalse((self.prefix / "guard" / "pid").exists())

    async def test_an_admiral(self) -> None:
        """Who came by a link sees all of the pages; the site learns who it is, of nginx alone, and
        neither the link nor the cookie."""
        kept = await self.come_in(await self.opened())
        said = {**kept, "X-Starphleet-Owner": "root", "X-Identity": "root"}
        for page in PAGES:
            answer = await self.get(
                f"/starphleet/{page}?a=1", {**said, "Cookie": f"a=1; {kept['Cookie']}; b=2"}
            )
            self.assertEqual((answer.status, answer.json["app"]), (200, "site"))
            self.assertEqual(answer.json["target"], f"/starphleet/{page}?a=1")
            self.assertEqual((self.owner(answer), self.seen(answer)["cookie"]), ("ann", "a=1; b=2"))

    async def test_tokens_are_for_the_site(self) -> None:
        """A program's token reaches the site where it takes one, and nobody vouches for it; at the
        other pages it is nothing."""
        kept = await self.come_in(await self.opened())
        for page in PAGES:
            sent = {"Authorization": "bearer x", "X-Starphleet-Owner": "ann"}
            answer = await self.get(f"/starphleet/{page}", sent)
            if page in TAKE_TOKENS:
                self.assertEqual((answer.status, self.owner(answer)), (200, None))
                self.assertEqual(self.seen(answer)["authorization"], "bearer x")
                answer = await self.get(f"/starphleet/{page}", {**sent, **kept})
                self.assertNotIn("cookie", self.seen(answer))
                self.assertIsNone(self.owner(answer))
            else:
                self.assertEqual((page, answer.status), (page, 401))

    async def test_not_elsewhere(self) -> None:
        """Neither on a service's host and port, nor beside these paths, there are such pages."""
        app = self.app("hello")
        kept = await self.come_in(await self.opened(app))
        for target, host in (
            ("/starphleet/dashboard", "hello.localhost"),
            ("/starphleet/dashboardx", "ship"),
            ("/starphleet/statusx", "ship"),
            ("/starphleet/status/x", "ship"),
            ("/starphleet/", "ship"),
        ):
            answer = await self.get(target, kept, host=host)
            self.assertIn((target, answer.status), ((target, 401), (target, 404)))
        self.assertEqual(self.site.wires, [])

    async def test_a_host_of_their_own(self) -> None:
        """Where there is one they are there too, without any service beside them; who is in there
        has a cookie for all of it, and none can be called so."""
        app = self.app("hello")
        proxy = await self.opened(app, own_host="starphleet.ship")
        there: dict[str, Any] = {"host": "starphleet.ship"}
        query = await proxy.link(OWN, "ann", "SHA256:a")
        answer = await self.get(f"/starphleet/dashboard?{query}", **there)
        self.assertIn("; Path=/;", answer.headers["Set-Cookie"])
        kept = {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}
        for page in PAGES:
            answer = await self.get(f"/starphleet/{page}", kept, **there)
            self.assertEqual((answer.status, self.owner(answer)), (200, "ann"))
        for target in ("/~hello/", "/hello", "/starphleet/hooks/", "/starphleet/x"):
            self.assertEqual((await self.get(target, kept, **there)).status, 404)
        self.assertEqual((await self.get("/", **there)).status, 302)
        self.assertEqual(
            (await self.get("/starphleet/leave", kept, method="POST", **there)).status, 302
        )
        with self.assertRaises(RouteTaken):
            await proxy.publish(Route("/x", ("starphleet.ship",), ""), app.backend)

    async def test_the_ship_is_away(self) -> None:
        """Pages of a ship that is not there are a 503 for who is in, and nothing for others."""
        kept = await self.come_in(await self.opened())
        await maybeDeferred(self.site.listening.stopListening)
        for headers, status in ((kept, 503), ({}, 401), ({"Authorization": "Bearer x"}, 503)):
            answer = await self.get("/starphleet/logstream", headers)
            self.assertEqual(
                (answer.status, "ship is away" in answer.text), (status, status == 503)
            )

    async def test_other_pages(self) -> None:
        """A page of another origin may lead here, but neither read nor send anything; a program
        that says nothing of that may."""
        kept = await self.come_in(await self.opened())
        document = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        frame = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
        for method, said, status in (
            ("GET", {}, 200),
            ("GET", {"Sec-Fetch-Site": "none", **document}, 200),
            ("GET", {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, 200),
            ("POST", {"Sec-Fetch-Site": "same-origin", "Origin": "http://ship:8080"}, 200),
            ("POST", {"Origin": "http://ship:8080"}, 200),
            ("GET", {"Sec-Fetch-Site": "cross-site", **document}, 200),
            ("GET", {"Sec-Fetch-Site": "cross-site", **frame}, 403),
            ("GET", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, 403),
            ("GET", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, 403),
            ("POST", {"Sec-Fetch-Site": "same-site", **document}, 403),
            ("POST", {"Origin": "http://hello.ship:8080"}, 403),
            ("POST", {"Origin": "http://ship:20001"}, 403),
            ("POST", {"Origin": "null"}, 403),
            ("GET", {"Origin": "https://ship:8080"}, 403),
        ):
            answer = await self.get("/starphleet/dashboard", {**kept, **said}, method=method)
            self.assertEqual((method, said, answer.status), (method, said, status))

    async def test_leaving(self) -> None:
        """There is a page with a button, and after it nobody is in by that cookie."""
        kept = await self.come_in(await self.opened())
        self.assertEqual((await self.get("/starphleet/dashboard", kept)).status, 200)
        answer = await self.get("/starphleet/leave", kept)
        self.assertEqual((answer.status, "<form method=post>" in answer.text), (200, True))
        answer = await self.get("/starphleet/leave", {**kept, "Origin": "http://x"}, method="POST")
        self.assertEqual(answer.status, 403)
        answer = await self.get("/starphleet/leave", kept, method="POST")
        self.assertEqual(
            (answer.status, answer.headers["Location"]), (302, "/starphleet/dashboard")
        )
        self.assertIn("Max-Age=0", answer.headers["Set-Cookie"])

        async def out() -> bool:
            return (await self.get("/starphleet/dashboard", kept)).status == 401

        await until(out, "nginx to forget", 10)
        self.assertEqual((await self.get("/starphleet/leave", method="POST")).status, 401)

    async def test_a_link_is_in_no_log(self) -> None:
        """Neither nginx nor the checker writes a link down."""
        proxy = await self.opened()
        query = await proxy.link(OWN, "ann", "SHA256:a")
        for _ in range(2):
            await self.get(f"/starphleet/dashboard?{query}")
        self.assertIn("ann came in by a link", self.logs())
        self.assertNotIn(query.partition("=")[2], self.logs())


class KeyTests(OwnCase):
    async def test_a_key_that_is_gone(self) -> None:
        """What it opened is closed once the ship has told that it is gone: pages, a private
        service, a link that was not used yet; and of an open stream nothing more comes."""
        app = self.app("hello")
        proxy = await self.opened(app)
        pages, hello = await self.come_in(proxy), await self.come_in(proxy, "hello")
        unused = await proxy.link(OWN, "ann", "SHA256:a")
        client = await self.client()
        client.wire.write(
            b"GET /starphleet/logstream HTTP/1.1\r\nHost: ship\r\nAccept: text/event-stream\r\n"
            + f"Cookie: {pages['Cookie']}\r\n\r\n".encode()
        )
        await until(lambda: self.site.held, "the stream to begin")
        (stream,) = self.site.held
        stream.send(b"data: 1\n\n")
        await until(lambda: b"data: 1" in client.received, "an event")
        await proxy.muster(evolve(CREW, members={**CREW.members, "SHA256:b": ANN}))
        stream.send(b"data: 2\n\n")
        await until(lambda: b"data: 2" in client.received, "an event after somebody came")
        opened = (("/starphleet/dashboard", pages), ("/~hello/", hello))
        for target, headers in opened:
            self.assertEqual((await self.get(target, headers)).status, 200)
        await proxy.muster(evolve(CREW, members={"SHA256:p": PIA}))
        for target, headers in (*opened, (f"/starphleet/dashboard?{unused}", {})):
            self.assertEqual((await self.get(target, headers)).status, 401)

        async def cut_off() -> bool:
            if not client.closed:
                stream.send(b"data: 3\n\n")
            return bool(client.closed)

        await until(cut_off, "the stream to be cut off", 10)

    async def test_the_ship_comes_back(self) -> None:
        """A front door that is adopted by the next ship keeps who is in, at every moment."""
        app = self.app("hello")
        proxy = await self.opened(app)
        pages = await self.come_in(proxy)
        again = self.proxy(reached="ssh git@ship")
        await again.muster(CREW)
        await again.start({Route("hello", (), "/~hello/"): (app.backend, Protection("private"))})
        self.assertEqual((await self.get("/starphleet/dashboard", pages)).status, 200)


class ServiceTests(OwnCase):
    async def test_a_private_service(self) -> None:
        """By path, host and websocket: nobody without a link gets in; who has one has it for this
        way, and the service never sees the cookie."""
        hello, other = self.app("hello"), self.app("other")
        proxy = await self.opened(hello, other)
        for target, host in (("/~hello/", "ship"), ("/", "hello.localhost")):
            self.assertEqual((await self.get(target, host=host)).status, 401)
            query = await proxy.link("hello", "pia", "SHA256:p")
            answer = await self.get(f"{target}?{query}", host=host)
            self.assertIn(f"Path={target};", answer.headers["Set-Cookie"])
            kept = {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}
            for _ in range(2):
                answer = await self.get(target, kept, host=host)
                self.assertEqual(
                    (answer.json["app"], self.seen(answer)["x-identity"]), ("hello", "pia")
                )
                self.assertNotIn("cookie", self.seen(answer))
                self.assertIsNone(self.owner(answer))
            query = await proxy.link("hello", "pia", "SHA256:p")
            self.assertEqual((await self.get(f"{target}?{query}", kept, host=host)).status, 302)
            upgrade = {"Upgrade": "websocket", "Connection": "Upgrade"}
            for headers, status in ((upgrade, 401), ({**upgrade, **kept}, 101)):
                at = f"{target}socket" if status == 101 else target
                self.assertEqual((await self.get(at, headers, host=host)).status, status)
            self.assertEqual((await self.get("/~other/", kept)).status, 401)
            self.assertEqual((await self.get("/starphleet/status", kept)).status, 401)

    async def test_no_service_is_called_as_the_pages_are(self) -> None:
        """No route can have the name by which the pages are known, nor a path among them."""
        with self.assertRaises(InvalidRoute):
            Route(OWN, (), "/x/")
        for path in ("/starphleet/", "/starphleet/dashboard/"):
            with self.assertRaises(InvalidRoute):
                Route("/x", (), path)

    async def test_what_clients_claim_is_taken_off(self) -> None:
        """No service is told of an owner by a client."""
        app = self.app("hello")
        proxy = self.proxy()
        await proxy.start({Route("hello", (), "/~hello/"): (app.backend, Protection())})
        answer = await self.get("/~hello/", {"X-Starphleet-Owner": "ann"})
        self.assertIsNone(self.owner(answer))
