"""The log stream: what is heard, from where on, and by whom."""

from __future__ import annotations

import gc
import socket
import time
from unittest.mock import patch

import psutil
from twisted.trial.unittest import SynchronousTestCase, TestCase

from hooks.errors import Refused
from receiver.web import reader
from receiver.web.sse import LONGEST, Frame, Frames, Odd, position_text, read_position
from tests.receiver.crowd import ID, Crowd
from tests.receiver.web_scene import ANN, Ear, Shore, aside, ask, connected, pause

ASKED = b"GET /starphleet/logstream?n=0 HTTP/1.1\r\nHost: x\r\nX-Starphleet-Owner: ann\r\n\r\n"


class Texts(SynchronousTestCase):
    def test_an_id_names_an_event_of_each_ship(self) -> None:
        """What a stream says as an id is read back as it was; what none said is refused."""
        for position in ({}, {"": 12}, {"a": 1, "b-2.example": 7}, {"::1": 3}):
            self.assertEqual(read_position(position_text(position)), position)
        for text in ("x", "a:", ":1", "1,", "a:1,b", "-1", "a:1\n", "a:" + "9" * 30, "A:1"):
            with self.subTest(text=text), self.assertRaisesRegex(Refused, "Last-Event-ID"):
                read_position(text)

    def test_frames_come_out_of_chunks_that_end_anywhere(self) -> None:
        """Cut at any byte, the same frames are read; comments and other fields are none."""
        text = ": hi\n\nretry: 5\n\nevent: ship\ndata: {}\n\nid: 4\ndata: a\ndata: é\n\n".encode()
        for cut in range(len(text)):
            frames = Frames()
            found = [*frames.take(text[:cut]), *frames.take(text[cut:])]
            self.assertEqual(found, [Frame("ship", "{}"), Frame("", "a\n\u00e9")], cut)

    def test_a_frame_that_does_not_end_is_no_frame(self) -> None:
        """One line, or many, of more bytes than a frame has are not kept."""
        for chunk in (b"data: " + b"x" * LONGEST, b"data: x\n" * (LONGEST // 6)):
            with self.assertRaises(Odd):
                list(Frames().take(chunk))


class Stream(TestCase):
    async def setUp(self) -> None:  # type: ignore[override]
        self.shore = await Shore(self).begin()

    async def contents(self, ear: Ear, count: int) -> list[str]:
        return [heard.content for heard in await aside(ear.lines, count)]

    async def test_an_event_is_a_line_of_json(self) -> None:
        """It has the parts that it has in the journal and its ship, and is heard once written."""
        listening = await self.shore.ear()
        ship = await aside(listening.next)
        self.assertEqual((ship.kind, ship.said["ship"]), ("ship", "here"))
        self.shore.write("hello \x1b[31mred")
        (heard,) = await aside(listening.lines, 1)
        self.assertEqual(heard.kind, "")
        self.assertEqual(heard.id, str(heard.said["id"]))
        self.assertLess(abs(heard.said.pop("time") - time.time()), 60)
        expected = {"service": "app", "release": "app-0-1", "process": "web", "ship": "here"}
        self.assertEqual(heard.said, {**expected, "id": 1, "content": "hello red"})
        self.assertTrue(listening.response.headers["Content-Type"].startswith("text/event-stream"))
        self.assertEqual(listening.response.headers["Cache-Control"], "no-store")

    async def test_who_names_no_event_begins_with_the_last_lines(self) -> None:
        """50 of them, or as many as are asked for, of the services that are asked for."""
        await self.shore.settled(*map(str, range(60)))
        await self.shore.settled("other", service="/other")
        await self.shore.settled("ship", service="")
        for query, expected in [
            ("", [*map(str, range(12, 60)), "other", "ship"]),
            ("?n=3", ["59", "other", "ship"]),
            ("?n=2&service=app", ["58", "59"]),
            ("?service=other", ["other"]),
            ("?service=%2Fother&service=", ["other", "ship"]),
        ]:
            listening = await self.shore.ear(query)
            self.assertEqual(await self.contents(listening, len(expected)), expected, query)
        listening = await self.shore.ear("?n=0&service=app")
        self.shore.write("not this", service="else")
        self.shore.write("this")
        self.assertEqual(await self.contents(listening, 1), ["this"])

    async def test_a_stream_is_resumed(self) -> None:
        """Who says what it heard last, in a header or in the query, hears what comes after it, once
        and in order; an id that no event has yet is of another journal, and begins anew."""
        await self.shore.settled(*map(str, range(1, 301)))
        for query, headers in [
            ("", {"Last-Event-ID": "100"}),
            ("?last-event-id=100", {}),
            ("?last-event-id=7", {"Last-Event-ID": "other:5,here:100"}),
        ]:
            listening = await self.shore.ear(query, {**ANN, **headers})
            expected = [str(number) for number in range(101, 301)]
            self.assertEqual(await self.contents(listening, 200), expected)
        listening = await self.shore.ear("?n=1", {**ANN, "Last-Event-ID": "301"})
        self.assertEqual(await self.contents(listening, 1), ["300"])

    async def test_what_makes_no_sense_is_refused(self) -> None:
        """In one line that says what: an id that no stream said, and a number that is none."""
        for query, said in [
            ("?n=-1", "n="),
            ("?n=9999", "n="),
            ("?n=0000000099999", "n="),
            (f"?n={'0' * 5000}", "n="),
            ("?last-event-id=x", "Last-E"),
        ]:
            path = f"/starphleet/logstream{query}"
            answer = await aside(ask, self.shore.socket, path, **ANN)
            self.assertEqual(answer.status, 400)
            self.assertIn(said, answer.text)

    async def test_a_ship_that_is_not_meant(self) -> None:
        """Where there is nothing to hear there is no stream, and a browser asks no more."""
        path = "/starphleet/logstream?ship=other"
        answer = await aside(ask, self.shore.socket, path, **ANN)
        self.assertEqual((answer.status, answer.text), (204, ""))
        many = "/starphleet/logstream?" + "&".join(f"service={number}" for number in range(300))
        self.assertEqual((await aside(ask, self.shore.socket, many, **ANN)).status, 400)
        listening = await self.shore.ear("?ship=here&ship=other")
        await self.shore.settled("hello")
        self.assertEqual(await self.contents(listening, 1), ["hello"])

    async def test_head_is_an_answer_without_a_stream(self) -> None:
        """It ends, and nobody is counted as a reader."""
        answer = await aside(ask, self.shore.socket, "/starphleet/logstream", "HEAD", **ANN)
        self.assertEqual((answer.status, answer.text, self.shore.stream.readers), (200, "", 0))

    async def test_who_leaves_is_forgotten(self) -> None:
        """At once, whether or not anything is said."""
        ears = [await self.shore.ear() for _ in range(5)]
        self.assertEqual(self.shore.stream.readers, 5)
        for one in ears:
            one.close()
        await self.shore.alone()

    async def test_a_quiet_stream_gives_a_sign_of_life(self) -> None:
        """A comment comes when nothing else does."""
        with patch.object(reader, "HEARTBEAT", 0.05):
            listening = await self.shore.ear()
            await aside(listening.next)
            waiting = aside(listening.next)
            while not listening.beats:
                await pause()
            self.shore.write("at last")
            self.assertEqual((await waiting).content, "at last")


class Few(TestCase):
    async def test_only_so_many(self) -> None:
        """One more than there may be is refused with 503 and a line, until somebody leaves."""
        shore = await Shore(self, most=3).begin()
        ears = [await shore.ear() for _ in range(3)]
        answer = await aside(ask, shore.socket, "/starphleet/logstream", **ANN)
        self.assertEqual(answer.status, 503)
        self.assertEqual(answer.text, "503 Too many readers\n3 read the log stream already.\n")
        ears[0].close()
        while shore.stream.readers == 3:
            await pause()
        self.assertEqual((await shore.ear()).status, 200)

    async def test_what_the_journal_lost_is_said(self) -> None:
        """Who resumes after what has fallen off the ring is told how many events are missing."""
        shore = await Shore(self, logs=1 << 20).begin()
        for _ in range(20):
            await shore.settled(*["x" * 1000] * 500)
        listening = await shore.ear("?last-event-id=1")
        heard = [await aside(listening.next) for _ in range(3)]
        self.assertEqual([each.kind for each in heard], ["ship", "missed", ""])
        self.assertEqual(heard[1].said, {"ship": "here", "missed": heard[2].said["id"] - 2})
        self.assertGreater(heard[1].said["missed"], 5000)


class Many(TestCase):
    async def setUp(self) -> None:  # type: ignore[override]
        self.shore = await Shore(self).begin()
        self.crowd = Crowd()
        self.addCleanup(self.crowd.end)

    async def test_one_of_a_hundred_reads_nothing(self) -> None:
        """The others hear every line all the same, and once the slow one reads again, it hears all
        as well, each line once."""
        (slow,) = await self.asking(1)
        self.crowd.add(await self.asking(99))
        while self.shore.stream.readers < 100:
            await pause()
        await self.flood(3000, 100)
        self.assertEqual(await aside(heard_by, slow, 3000), list(range(1, 3001)))

    async def test_what_nobody_takes_is_kept_nowhere(self) -> None:
        """However much is said, and however long its lines are, those who do not read cost the ship
        what their sockets hold."""
        self.crowd.add(await self.asking(1))
        await self.flood(2500, 4000)  # what the journal keeps at hand is there now
        gc.collect()
        before = psutil.Process().memory_info().rss
        await self.asking(100)
        while self.shore.stream.readers < 101:
            await pause()
        await self.flood(1000, 4000)
        gc.collect()
        grown = psutil.Process().memory_info().rss - before
        self.assertLess(grown, 24 << 20)

    async def asking(self, count: int) -> list[socket.socket]:
        """So many who have asked for the stream, and read nothing yet."""
        found = []
        for _ in range(count):
            one = (await aside(connected, self.shore.socket)).sock
            self.addCleanup(one.close)
            one.sendall(ASKED)
            found.append(one)
        return found

    async def flood(self, count: int, size: int) -> None:
        """Write so many lines, and wait until each of the crowd has heard all."""
        for _ in range(0, count, 500):
            await self.shore.settled(*["a line ".ljust(size, ".")] * 500)
        while self.crowd.heard < self.shore.journal.newest:
            await pause()


def heard_by(slow: socket.socket, count: int) -> list[int]:
    """Read on until so many events were heard; which they were. Blocks."""
    data = b""
    while len(found := ID.findall(data)) < count:
        data += slow.recv(1 << 22)
    return [int(id) for id in found]
