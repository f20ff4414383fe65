"""The streams of other ships, led into one."""

from __future__ import annotations

import json
import time
from unittest.mock import patch

from twisted.internet.ssl import PrivateCertificate
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from hooks.errors import Refused
from proxy.certificates import self_made
from receiver.config import load
from receiver.web import peers
from receiver.web.peering import read_peers
from receiver.web.sse import read_position
from tests.hooks.scene import scratch
from tests.ports import free_port
from tests.receiver.web_scene import ANN, Ear, Heard, Shore, aside, pause, reactor

NAME = "STARPHLEET_PEERS"


class Named(SynchronousTestCase):
    def test_peers_are_base_urls(self) -> None:
        """Apart by commas or spaces, each once; anything but a scheme, a host and a port is refused
        by name."""
        self.assertEqual(read_peers("", NAME), ())
        found = read_peers("https://a.example/, http://b:8080 https://a.example", NAME)
        self.assertEqual(found, ("https://a.example", "http://b:8080"))
        for url in (
            "ship2", "ftp://a", "https://", "https://a/b", "https://a?x", "https://a#x",
            "https://u:p@a", "https://a:0", "https://a:99999", "https://ü.example", "https://[",
        ):  # fmt: skip
            with self.subTest(url=url), self.assertRaisesRegex(Refused, NAME):
                read_peers(url, NAME)
        with self.assertRaisesRegex(Refused, "at most"):
            read_peers(" ".join(f"https://s{number}" for number in range(40)), NAME)

    def test_a_token_is_one_that_can_be_shown(self) -> None:
        """Too short, or with a space in it, it is refused, and not repeated."""
        root = str(scratch(self))
        for name in ("STARPHLEET_PEERS_TOKEN", "STARPHLEET_METRICS_TOKEN"):
            for value in ("short", "a secret with spaces", "sécrét-sécrét-sécrét"):
                with self.assertRaisesRegex(Refused, name) as refused:
                    load({"STARPHLEET_ROOT": root, name: value})
                self.assertNotIn(value, str(refused.exception))
            config = load({"STARPHLEET_ROOT": root, name: "x" * 16})
            self.assertNotIn("x" * 16, repr(config))


class Phleet(TestCase):
    """`here` has `there` as its peer, and itself, as a list that is the same on all ships has."""

    async def setUp(self) -> None:  # type: ignore[override]
        self.patch(peers, "FIRST", 0.05)
        self.there = await Shore(self, "there").begin()
        self.here = await Shore(self, "here", peers=(self.there.url,)).begin()

    async def until(self, listening: Ear, kind: str, **said: object) -> Heard:
        """What is heard of this kind, with at least this in it."""
        while True:
            heard: Heard = await aside(listening.next)
            if heard.kind == kind and said.items() <= heard.said.items():
                return heard

    async def test_streams_are_merged(self) -> None:
        """Lines of both come with the ship they are of, and an id that names an event of each; from
        it the stream is resumed, on both."""
        await self.here.settled("a")
        await self.there.settled("b", "c")
        listening = await self.here.ear()
        heard = await aside(listening.lines, 3)
        said = {(each.said["ship"], each.content) for each in heard}
        self.assertEqual(said, {("here", "a"), ("there", "b"), ("there", "c")})
        self.assertEqual(read_position(heard[-1].id), {"here": 1, "there": 2})
        await self.here.settled("d")
        await self.there.settled("e")
        again = await self.here.ear("", {**ANN, "Last-Event-ID": "there:2,here:1"})
        self.assertEqual({one.content for one in await aside(again.lines, 2)}, {"d", "e"})

    async def test_which_ship_and_which_service(self) -> None:
        """`?ship=` and `?service=` mean the peers too; `?local` means this ship alone."""
        await self.here.settled("a")
        await self.there.settled("b")
        await self.there.settled("c", service="other")
        for query, expected in [
            ("?ship=there", {"b", "c"}),
            ("?ship=here", {"a"}),
            ("?service=app", {"a", "b"}),
            ("?service=app&ship=there", {"b"}),
            ("?local", {"a"}),
            ("?n=1", {"a", "c"}),
        ]:
            listening = await self.here.ear(query)
            heard = await aside(listening.lines, len(expected))
            self.assertEqual({one.content for one in heard}, expected, query)
            listening.close()
        await self.here.alone()
        await self.there.alone()

    async def test_a_peer_that_is_away(self) -> None:
        """It is said once in the stream and asked again; when it is back, what it said meanwhile is
        heard, each line once."""
        await self.there.settled("before")
        listening = await self.here.ear()
        await self.until(listening, "", content="before")
        await self.there.close()
        away = await self.until(listening, "ship", url=self.there.url)
        self.assertEqual(away.said["ship"], "there")
        self.assertTrue(away.said["trouble"])
        await self.here.settled("own lines come all the same")
        await self.until(listening, "", ship="here")
        await self.there.settled("meanwhile", "and more")
        self.there.open()
        self.assertEqual((await self.until(listening, "ship", trouble="")).said["ship"], "there")
        heard = await aside(listening.lines, 2)
        self.assertEqual([one.content for one in heard], ["meanwhile", "and more"])

    async def test_a_peer_that_does_not_know_us(self) -> None:
        """Without the token of the phleet there is nothing to hear, and the stream says why."""
        token = "another-token-of-a-phleet"
        wrong = await Shore(self, "wrong", peers=(self.there.url,), token=token).begin()
        listening = await wrong.ear()
        heard = await self.until(listening, "ship", url=self.there.url)
        self.assertEqual(heard.said["trouble"], "it answered 401")

    async def test_nothing_goes_in_a_circle(self) -> None:
        """Two ships that name each other, and themselves, say each line once."""
        ports = free_port(), free_port()
        ours = tuple(f"http://127.0.0.1:{port}" for port in ports)
        everybody = (self.there.url, self.here.url, *ours)
        first = await Shore(self, "first", peers=everybody, port=ports[0]).begin()
        second = await Shore(self, "second", peers=everybody, port=ports[1]).begin()
        listening = await first.ear()
        for more in ("", " again"):
            for shore in (self.here, self.there, first, second):
                await shore.settled(f"{shore.name}{more}")
            heard = sorted(one.content for one in await aside(listening.lines, 4))
            names = ("first", "here", "second", "there")
            self.assertEqual(heard, [f"{name}{more}" for name in names])
        while (first.stream.readers, second.stream.readers) != (1, 1):
            await pause()

    async def test_one_who_leaves_leaves_all_of_them(self) -> None:
        """Peers are read for as long as somebody reads here, and by nobody after."""
        listening = await self.here.ear()
        while not self.there.stream.readers:
            await pause()
        listening.close()
        await self.here.alone()
        await self.there.alone()

    async def test_a_slow_reader_slows_its_peers(self) -> None:
        """What it does not take stays where it is: the peer is not read on. Then all is heard."""
        listening = await self.here.ear("?n=0")
        while not self.there.stream.readers:
            await pause()
        for _ in range(12):
            await self.there.settled(*["x" * 1000] * 500)
        (one,) = self.there.stream._readers
        (mine,) = self.here.stream._readers
        for _ in range(20):  # it stays so
            while not (one.full and mine.full):
                await pause()
            await pause()
        heard = await aside(listening.lines, 6000)
        ids = [each.said["id"] for each in heard]
        self.assertEqual(ids, list(range(1, 6001)))


class Tls(TestCase):
    async def test_a_certificate_is_verified(self) -> None:
        """By the ship's own authorities and for the name that was asked: then lines come, else why
        not is said."""
        there = await Shore(self, "there").begin()
        await there.settled("hello")
        pair = self_made(["localhost"], time.time())
        roots = scratch(self) / "roots.pem"
        roots.write_bytes(pair.chain)
        options = PrivateCertificate.loadPEM(pair.key + pair.chain).options()
        port = reactor.listenSSL(0, there.pages, options, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        number = port.getHost().port
        for host, known, trouble in [
            ("localhost", roots, ""),
            ("127.0.0.1", roots, "its certificate is of somebody else"),
            ("localhost", None, "its certificate is not trusted"),
        ]:
            url = f"https://{host}:{number}"
            here = await Shore(self, "here", peers=(url,), roots=known).begin()
            listening = await here.ear("?n=5")
            heard = [await aside(listening.next) for _ in range(2)]
            self.assertEqual(heard[1].said["trouble"], trouble, host)
            if not trouble:
                self.assertEqual((await aside(listening.next)).content, "hello")
            listening.close()
            await here.alone()


class Odd(TestCase):
    async def test_what_is_no_stream(self) -> None:
        """A peer that says what no ship says is away, and why is said; nothing of it is sent on."""
        answers: list[bytes] = []

        class Page(Resource):
            isLeaf = True

            def render_GET(self, request: object) -> bytes:
                request.setHeader("Content-Type", "text/event-stream")  # type: ignore[attr-defined]
                return answers[0]

        port = reactor.listenTCP(0, Site(Page()), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        url = f"http://127.0.0.1:{port.getHost().port}"
        here = await Shore(self, "here", peers=(url,)).begin()
        ship = b'event: ship\ndata: {"ship": "odd"}\n\n'
        good = json.dumps({"id": 1, "time": 1.5, "content": "\x1b[31mx\ny"}).encode()
        for answer, why in [
            (b'data: {"id": 1}\n\n', "it does not say which ship it is"),
            (b'event: ship\ndata: {"ship": "A B"}\n\n', "it does not say which ship it is"),
            (ship + b"data: nothing\n\n", "it says what is no JSON object"),
            (ship + b'data: ["x"]\n\n', "it says what is no JSON object"),
            (ship + b'data: {"id": "7", "time": 1}\n\n', "it says what is no event"),
            (ship + b'data: {"id": -1, "time": 1}\n\n', "it says what is no event"),
            (ship + b'data: {"id": 1}\n\n', "it says what is no event"),
            (ship + b"data: " + b"x" * 70000, "an event of more than 65536 bytes"),
            (ship, "its stream ended"),
            (ship + b"data: " + good + b"\n\n", ""),
        ]:
            answers[:] = [answer]
            listening = await here.ear("?ship=odd&ship=here&n=0")
            heard = [await aside(listening.next), await aside(listening.next)]
            if answer.startswith(ship):
                heard.append(await aside(listening.next))
            last = heard[-1].said
            self.assertEqual(last.get("trouble", ""), why)
            if not why:
                self.assertEqual((last["content"], last["ship"]), ("x y", "odd"))
            listening.close()

    async def test_a_peer_that_says_nothing(self) -> None:
        """Not even a sign of life: it counts as away."""
        with patch.object(peers, "SILENCE", 0.2):
            there = await Shore(self, "there").begin()
            here = await Shore(self, "here", peers=(there.url,)).begin()
            listening = await here.ear("?ship=there")
            heard = [await aside(listening.next) for _ in range(2)]
            self.assertEqual(heard[1].said["trouble"], "it said nothing for 0.2 s")

    async def test_a_peer_that_does_not_answer(self) -> None:
        """It takes the question and says nothing at all: it counts as away, and is asked again."""
        asked: list[object] = []

        class Page(Resource):
            isLeaf = True

            def render_GET(self, request: object) -> int:
                asked.append(request)
                return NOT_DONE_YET

        self.patch(peers, "FIRST", 0.05)
        with patch.object(peers, "SILENCE", 0.2):
            port = reactor.listenTCP(0, Site(Page()), interface="127.0.0.1")
            self.addCleanup(port.stopListening)
            url = f"http://127.0.0.1:{port.getHost().port}"
            here = await Shore(self, "here", peers=(url,)).begin()
            listening = await here.ear("?ship=there")
            heard = await aside(listening.next)
            self.assertEqual(heard.said["trouble"], "it said nothing for 0.2 s")
            while len(asked) < 2:
                await pause()
