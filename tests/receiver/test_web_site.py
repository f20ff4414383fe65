"""The site of the ship's own pages: who sees what, and what everybody else is told."""

from __future__ import annotations

import http.client
import os
import pwd
import shutil
import stat
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.server import Request

from hooks.errors import Refused
from receiver.web import site
from receiver.web.site import HEADERS, Access, Page, Pages, owner, shows
from tests.receiver.web_scene import ANN, Answer, aside, ask, connected, pause, reactor

METRICS = "a-token-for-metrics"
BEARER = {"Authorization": f"Bearer {METRICS}"}
HTML = {"Accept": "text/html,*/*;q=0.8"}


class Tokens(SynchronousTestCase):
    def test_who_knows_a_token(self) -> None:
        """A bearer of exactly it; where there is none, nobody knows it."""
        for header, token, expected in [
            (b"Bearer abc", "abc", True),
            (b"bearer abc", "abc", True),
            (b"Bearer abcd", "abc", False),
            (b"Bearer ab", "abc", False),
            (b"Basic abc", "abc", False),
            (b"abc", "abc", False),
            (b"Bearer \xff", "abc", False),
            (b"Bearer ", "", False),
            (b"", "", False),
        ]:
            self.assertEqual(shows(header, token), expected, header)


class Site(TestCase):
    def setUp(self) -> None:
        root = Path(mkdtemp(prefix="web-"))
        self.addCleanup(shutil.rmtree, root)
        self.path = root / "pages" / "socket"
        self.left = 0
        access = Access("here", {"/starphleet/metrics": METRICS})
        names = ("hello", "metrics", "waits", "breaks", "refuses")
        self.pages = Pages(access, {name: Page(getattr(self, name)) for name in names})
        self.listening = site.listen(reactor, self.path, self.pages)
        self.addCleanup(self.end)

    async def end(self) -> None:
        await self.listening.stopListening()
        self.pages.close()
        while self.pages.protocols:
            await pause()

    async def hello(self, request: Request) -> bytes:
        return f"hello {owner(request)}".encode()

    async def metrics(self, request: Request) -> bytes:
        return b"metrics"

    async def waits(self, request: Request) -> bytes:
        try:
            await Deferred()
        finally:
            self.left += 1
        return b""

    async def breaks(self, request: Request) -> bytes:
        raise ValueError("with a secret in it")

    async def refuses(self, request: Request) -> bytes:
        raise Refused("n=<x>: it is no number")

    async def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        answer: Answer = await aside(ask, self.path, path, method, **headers)
        return answer

    async def test_nginx_says_who_asks(self) -> None:
        """Whom it has let in sees every page, by name; who has no name, or two, sees none."""
        answer = await self.ask("/starphleet/hello", **ANN)
        self.assertEqual((answer.status, answer.text), (200, "hello ann"))
        for headers in ({}, {"X-Starphleet-Owner": ""}, {"X-Starphleet-Owner": " "}, BEARER):
            answer = await self.ask("/starphleet/hello", **headers)
            self.assertEqual(answer.status, 401)
            self.assertIn("ssh git@SHIP open dashboard", answer.text)

        def twice() -> int:
            to = connected(self.path)
            to.putrequest("GET", "/starphleet/hello")
            to.putheader("X-Starphleet-Owner", "ann")
            to.putheader("X-Starphleet-Owner", "bob")
            to.endheaders()
            status = to.getresponse().status
            to.close()
            return status

        self.assertEqual(await aside(twice), 401)

    async def test_a_token_opens_one_page(self) -> None:
        """And none beside it, nor below it, however its path is written; another opens nothing."""
        for path, headers, status in [
            ("/starphleet/metrics", BEARER, 200),
            ("/starphleet/metrics?x=1", BEARER, 200),
            ("/starphleet/metrics", {"Authorization": "Bearer another-token-of-16"}, 401),
            ("/starphleet/metrics", {}, 401),
            ("/starphleet/metrics/", BEARER, 401),
            ("/starphleet/hello", BEARER, 401),
            ("/starphleet/metrics/../hello", BEARER, 401),
            ("/starphleet/%6detrics", BEARER, 401),
            ("//starphleet/metrics", BEARER, 401),
            ("/", BEARER, 401),
        ]:
            answer = await self.ask(path, **headers)
            self.assertEqual(answer.status, status, path)
            self.assertNotIn(METRICS, answer.text)

    async def test_every_answer_has_the_headers_of_safety(self) -> None:
        """A page, a refusal and what is not there."""
        for path, headers in [
            ("/starphleet/hello", ANN),
            ("/starphleet/hello", {}),
            ("/starphleet/nothing", ANN),
            ("/starphleet/breaks", ANN),
        ]:
            answer = await self.ask(path, **headers)
            for name, value in HEADERS.items():
                self.assertEqual(answer.headers[name], value, path)
        self.flushLoggedErrors(ValueError)

    async def test_what_is_not_there(self) -> None:
        """404 as the rest of the ship says it: two lines, or a page in which nothing is markup."""
        for path in ("/starphleet/x%3Cb%3E", "/x", "/", "/starphleet/", "/starphleet/hello/x"):
            answer = await self.ask(path, **ANN)
            self.assertEqual(answer.status, 404, path)
            self.assertTrue(answer.text.startswith("404 No such "), answer.text)
        answer = await self.ask("/starphleet/<b>&", **ANN, **HTML)
        self.assertTrue(answer.headers["Content-Type"].startswith("text/html"))
        self.assertIn("/starphleet/&lt;b&gt;&amp; on the ship here", answer.text)

    async def test_there_is_only_something_to_read(self) -> None:
        """HEAD is GET without a body; any other method is refused, whatever it brings."""
        answer = await self.ask("/starphleet/hello", "HEAD", **ANN)
        self.assertEqual((answer.status, answer.text), (200, ""))
        self.assertEqual(answer.headers["Content-Length"], "9")
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "XYZ"):
            answer = await self.ask("/starphleet/hello", method, **ANN)
            self.assertEqual((answer.status, answer.headers["Allow"]), (405, "GET, HEAD"), method)

    async def test_a_body_is_not_kept(self) -> None:
        """One that comes with a request is read and thrown away."""

        def go() -> tuple[int, bytes]:
            to = connected(self.path)
            to.request("GET", "/starphleet/hello", iter([b"x" * 100_000] * 100), ANN)
            response = to.getresponse()
            told = response.status, response.read()
            to.close()
            return told

        self.assertEqual(await aside(go), (200, b"hello ann"))

    async def test_what_fails_gives_nothing_away(self) -> None:
        """A page that breaks says that the log says why, one that refuses says what in one line."""
        answer = await self.ask("/starphleet/breaks", **ANN)
        self.assertEqual(answer.status, 500)
        self.assertNotIn("secret", answer.text)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        answer = await self.ask("/starphleet/refuses", **ANN)
        self.assertEqual(answer.text, "400 Not this way\nn=<x>: it is no number\n")

    async def test_nobody_waits_for_who_has_left(self) -> None:
        """What was being made for a client ends with it."""
        to = await aside(connected, self.path)
        await aside(to.request, "GET", "/starphleet/waits", None, ANN)
        to.close()
        while not self.left:
            await pause()

    async def test_the_socket_is_for_nginx_alone(self) -> None:
        """No other user of the host can open it."""
        made = self.path.stat()
        self.assertEqual(stat.S_IMODE(made.st_mode), 0o600)
        worker = pwd.getpwuid(made.st_uid).pw_name
        self.assertEqual(worker in ("www-data", "nginx", "nobody"), os.geteuid() == 0)
        self.assertEqual(self.path.parent.stat().st_uid, os.geteuid())

    async def test_only_so_many_connections(self) -> None:
        """One more than there may be is turned away, until somebody leaves."""
        self.patch(site, "MOST", 3)

        def idle() -> Any:
            to = connected(self.path)
            to.request("GET", "/starphleet/hello", headers=ANN)
            to.getresponse().read()
            return to

        three = [await aside(idle) for _ in range(3)]
        with self.assertRaises((ConnectionError, http.client.HTTPException)):
            await aside(idle)
        for one in three:
            one.close()
        while len(self.pages.protocols) == 3:
            await pause()
        (await aside(idle)).close()
