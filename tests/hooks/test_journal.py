"""The journal: what comes in, what is kept of it, and how it is read."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from hooks.journal import sources
from hooks.journal.intake import AT_ONCE
from hooks.journal.journal import Journal
from hooks.journal.lines import Event, Line, Read, Wanted
from hooks.journal.reading import Reader
from hooks.journal.ring import Ring, segments
from hooks.journal.sources import Source, take
from hooks.journal.tailing import follow
from hooks.layout import Layout
from hooks.settings import Settings
from tests.hooks.scene import scratch

SHOP = Wanted(frozenset({"shop"}))
A_MB = 1 << 20


def texts(events: list[Event]) -> list[str]:
    return [event.content for event in events]


async def until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        await deferLater(cast(Any, reactor), 0.01)


class Said:
    """A log of formats."""

    def __init__(self, said: list[str]) -> None:
        self.error = self.info = lambda text, **told: said.append(text)


class Case(TestCase):
    """A journal on a directory of its own; `again` is the one of the next ship."""

    budget = 64 * A_MB
    most = A_MB

    async def setUp(self) -> None:  # type: ignore[override]
        self.layout = Layout(scratch(self) / "ship")
        self.layout.prepare()
        self.journal = await self.opened()

    async def tearDown(self) -> None:  # type: ignore[override]
        await self.journal.close()

    async def opened(self) -> Journal:
        journal = Journal(reactor, self.layout, Settings(logs=self.budget, service_log=self.most))
        await journal.open()
        return journal

    async def again(self) -> None:
        """As after `kill -9`: the next ship begins while nothing of the last was put in order."""
        self.journal._closing = True
        self.journal._soon(0)
        await self.journal._going  # type: ignore[misc]
        os.close(self.journal._intake.ring._fd)
        self.journal._intake.ring._fd = -1
        self.journal = await self.opened()

    def log(self, text: str, release: str = "shop-1") -> Path:
        path = self.layout.service_log(release)
        with path.open("a") as file:
            file.write(text)
        return path

    async def everything(self, wanted: Wanted = Wanted()) -> list[Event]:
        await self.journal.settle()
        events, after = list[Event](), 0
        while after < self.journal.newest:
            batch = await self.journal.read(after, wanted)
            after = batch.upto
            events += batch.events
        return events


class Telling(Case):
    async def test_lines_become_events(self) -> None:
        """Numbered from 1, with when, service, release and process, and found by service."""
        began = time.time()
        self.journal.write("shop", "shop-1", "deploy", ["built", "live"])
        self.journal.write("", "", "ship", ["up"])
        self.assertEqual(self.journal.newest, 0)
        events = await self.everything()
        self.assertEqual([event.id for event in events], [1, 2, 3])
        self.assertEqual(
            [(event.service, event.release, event.process, event.content) for event in events],
            [
                ("shop", "shop-1", "deploy", "built"),
                ("shop", "shop-1", "deploy", "live"),
                ("", "", "ship", "up"),
            ],
        )
        self.assertTrue(all(abs(event.time - began) < 60 for event in events))
        self.assertEqual(texts(await self.everything(SHOP)), ["built", "live"])
        self.assertEqual(texts(await self.journal.last(1, SHOP)), ["live"])
        self.assertEqual(texts(await self.journal.last(2)), ["live", "up"])
        self.assertEqual(self.journal.newest, 3)

    async def test_what_could_command_a_terminal_is_not_kept(self) -> None:
        """Neither colour nor any other escape or control code; a line has its bounds."""
        self.journal.write(
            "s", "r", "deploy", ["\x1b[31mred\x1b[0m\x1b]0;title\x07\x9b2J\x00 \u202e!"]
        )
        self.journal.follow("shop-1", "shop")
        self.log("\x1b[1mbold\x1b[m\r\n10%\r20%\r30%\n" + "x" * 100_000 + "\n")
        events = await self.everything()
        self.assertEqual(texts(events)[:3], ["red !", "bold", "30%"])
        self.assertEqual(len(events[3].content), 4096)

    async def test_whoever_follows_is_told(self) -> None:
        """`grown` fires at the next event, `coming` waits for one that is wanted; both may be
        given up."""
        grown = self.journal.grown()
        given_up = self.journal.grown()
        given_up.cancel()
        await self.assertFailure(given_up, CancelledError)
        coming = Deferred.fromCoroutine(self.journal.coming(0, SHOP))
        self.journal.write("other", "o-1", "web", ["no"])
        await grown
        self.assertFalse(coming.called)
        self.journal.write("shop", "shop-1", "web", ["yes"])
        batch = await coming
        self.assertEqual((texts(batch.events), batch.upto), (["yes"], 2))

    async def test_too_many_at_once(self) -> None:
        """What would fill the memory is left out, and said so."""
        for _ in range(4):
            self.journal.write("shop", "shop-1", "deploy", ["y" * A_MB])
        for _ in range(9000):
            self.journal.write("shop", "shop-1", "deploy", ["y"])
        said = texts(await self.everything())
        self.assertLess(len(said), 6000)
        left_out = 9004 - (len(said) - 1)
        self.assertIn(f"{left_out} lines were left out: too many at once", said)

    async def test_nobody_who_leaves_stops_a_turn(self) -> None:
        """A turn that was asked for goes on when whoever asked is cancelled."""
        self.journal.write("shop", "shop-1", "deploy", ["one"])
        asked = Deferred.fromCoroutine(self.journal.settle())
        asked.cancel()
        await self.assertFailure(asked, CancelledError)
        self.assertEqual(texts(await self.everything()), ["one"])

    async def test_closed(self) -> None:
        """Another process may write now: this one writes nothing any more, but reads."""
        self.journal.write("shop", "shop-1", "deploy", ["one"])
        self.journal.follow("shop-1", "shop")
        await self.journal.close()
        there = sorted(path.read_bytes() for path in self.layout.journal.iterdir())
        self.log("two\n")
        self.journal.write("shop", "shop-1", "deploy", ["three"])
        await self.journal.end("shop-1")
        self.assertEqual(texts(await self.everything()), ["one"])
        now = sorted(path.read_bytes() for path in self.layout.journal.iterdir())
        self.assertEqual(now, there)

    async def test_one_release_is_followed(self) -> None:
        """Its past and what comes, as long as it goes on; whoever goes on where another ended
        misses nothing and gets nothing twice."""
        said: list[bytes] = []
        upto: list[int] = []
        rounds = iter([True, True, False])

        async def going_on() -> bool:
            return next(rounds)

        async def follow_on(after: int) -> None:
            handing = (said.append, going_on, after, upto.append)
            await follow(reactor, self.journal, "shop", "shop-1", *handing)

        self.journal.write("shop", "shop-1", "web", ["one"])
        self.journal.write("shop", "shop-0", "web", ["of another"])
        self.journal.write("shop", "shop-1", "deploy", ["of its deploy"])
        await self.journal.settle()
        following = Deferred.fromCoroutine(follow_on(0))
        await until(lambda: said == [b"one\n"])
        self.journal.write("shop", "shop-1", "web", ["two"])
        await following
        self.journal.write("shop", "shop-1", "web", ["three"])
        await self.journal.settle()
        rounds = iter([False])
        await follow_on(upto[-1])
        self.assertEqual(said, [b"one\n", b"two\n", b"three\n"])


class Following(Case):
    async def test_a_log_file_comes_in(self) -> None:
        """Line by line, one without its end not before the service is over, the lines of its jobs
        by their names."""
        self.journal.follow("shop-1", "shop", ["night"])
        self.log("[night] rung\n[day] no job\nhalf")
        events = await self.everything()
        self.assertEqual(
            [(event.process, event.content) for event in events],
            [("night", "rung"), ("web", "[day] no job")],
        )
        self.log(" and half\nlast words")
        self.assertEqual(texts(await self.everything())[2:], ["half and half"])
        await self.journal.end("shop-1")
        self.assertEqual(texts(await self.everything())[3:], ["last words"])
        self.log("of nobody\n")
        self.assertEqual(len(await self.everything()), 4)

    async def test_by_itself(self) -> None:
        """Nobody has to ask for it."""
        self.journal.follow("shop-1", "shop")
        await self.everything()
        coming = Deferred.fromCoroutine(self.journal.coming(0))
        self.log("there\n")
        self.assertEqual(texts((await coming).events), ["there"])

    async def test_nothing_twice_and_nothing_lost(self) -> None:
        """A ship that was killed, also within a line of the journal, is gone on from: each line is
        there once, also what came meanwhile and of a service that nobody knows any more."""
        self.journal.follow("shop-1", "shop")
        self.journal.follow("gone-1", "gone")
        self.log("one\ntwo\n")
        await self.everything()
        self.log("three\n")
        self.log("unseen\n", "gone-1")
        await self.again()
        found = texts(await self.everything())
        self.assertEqual((found[:2], sorted(found[2:])), (["one", "two"], ["three", "unseen"]))
        (first,) = segments(self.layout.journal)
        path = self.layout.journal / f"{first:016d}.jsonl"
        os.truncate(path, path.stat().st_size - 7)
        await self.again()
        again = texts(await self.everything())
        self.assertEqual((again[:3], sorted(again)), (found[:3], sorted(found)))

    async def test_times_go_up(self) -> None:
        """What a file says from before is not of before what was there already."""
        self.journal.write("", "", "ship", ["now"])
        self.journal.follow("shop-1", "shop")
        path = self.log("then\n")
        os.utime(path, (1e9, 1e9))
        first, second = await self.everything()
        self.assertGreaterEqual(second.time, first.time)
        self.assertEqual(await self.journal.since(first.time - 1), 0)
        self.assertEqual(await self.journal.since(time.time() + 1), 2)

    async def test_a_log_file_stays_small(self) -> None:
        """The disk has back what is read of one that is long; who writes on loses nothing."""
        self.journal.follow("shop-1", "shop")
        path = self.log("")
        with path.open("ab") as file:
            writer = subprocess.Popen(  # noqa: ASYNC220 - it is what is looked at
                ["sh", "-c", "while read go; do seq -f %0200.0f 2000; done"],
                stdin=subprocess.PIPE, stdout=file,
            )  # fmt: skip
        assert writer.stdin is not None
        for round in range(9):
            writer.stdin.write(b"go\n")
            writer.stdin.flush()
            while self.journal.newest < 2000 * round:  # it is ahead by two rounds at most
                await self.journal.settle()
        writer.stdin.close()
        writer.wait()
        numbers = [int(event.content) for event in await self.everything()]
        self.assertEqual(numbers, [*range(1, 2001)] * 9)
        self.assertLess(path.stat().st_blocks * 512, self.most + AT_ONCE)
        await self.again()
        self.log("after\n")
        self.assertEqual(texts(await self.everything())[-2:], [f"{2000:0200}", "after"])

    async def test_a_flood(self) -> None:
        """What is far ahead of the journal is left out, and said so in bytes."""
        self.journal.follow("shop-1", "shop")
        path = self.log("first\n")
        os.truncate(path, 100 * A_MB)
        self.log("last\n")
        events = await self.everything()
        self.assertEqual(events[0].content, "first")
        self.assertRegex(events[-1].content, "^[0-9]{9} bytes are left out")
        self.assertLess(path.stat().st_blocks * 512, self.most + AT_ONCE)
        self.log("after\n")
        self.assertEqual(texts(await self.everything())[-1], "after")

    async def test_a_file_that_claims_to_be_endless(self) -> None:
        """It is cut to nothing."""
        self.journal.follow("shop-1", "shop")
        path = self.log("first\n")
        os.truncate(path, 1 << 41)
        await self.everything()
        self.assertEqual(path.stat().st_size, 0)
        self.log("after\n")
        await self.again()
        self.assertEqual(texts(await self.everything())[-1], "after")

    async def test_a_service_cuts_its_own_log(self) -> None:
        """It is read from its start."""
        self.journal.follow("shop-1", "shop")
        path = self.log("one\ntwo\nthree\n")
        await self.everything()
        os.truncate(path, 0)
        self.log("anew\n")
        self.assertEqual(texts(await self.everything())[3:], ["anew"])


class Bounds(Case):
    budget = A_MB
    most = 64 * A_MB

    async def test_the_oldest_make_room(self) -> None:
        """The budget holds, ids go on, and whoever was behind is told how many are gone; also over
        a restart, after which nothing comes again that has left."""
        self.journal.follow("shop-1", "shop")
        self.journal.follow("quiet-1", "quiet")
        self.log("once\n", "quiet-1")
        await self.everything()
        for round in range(4):
            self.log("".join(f"{round} {number} {'.' * 80}\n" for number in range(5000)))
            await self.everything()
        await self.again()
        await self.everything()
        there = [path.stat().st_size for path in self.layout.journal.iterdir()]
        self.assertLessEqual(sum(there), self.budget + AT_ONCE)
        self.assertEqual(self.journal.newest, 20_001)
        batch = await self.journal.read(10)
        self.assertEqual(batch.missed, batch.events[0].id - 11)
        self.assertGreater(batch.missed, 1000)
        self.assertEqual(len(await self.everything()), 20_001 - 10 - batch.missed)
        self.assertEqual((await self.journal.last(3))[0].content[:7], "3 4997 ")
        middle = (await self.journal.read(19_000)).events[0]
        self.assertLess(await self.journal.since(middle.time), 19_000)

    async def test_no_room_on_the_disk(self) -> None:
        """What is told is dropped and counted, log files wait, the ship hears of it once."""
        self.journal.follow("shop-1", "shop")
        self.log("before\n")
        await self.everything()
        said: list[str] = []
        self.patch(self.journal, "_log", Said(said))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.log("waits\n")
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
        try:
            for line in ("a", "b"):
                self.journal.write("", "", "ship", [line])
                await self.journal.settle()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        found = texts(await self.everything())
        self.assertEqual(said, ["{why}: what is logged is lost", "{path} can be written again"])
        self.assertEqual(found, ["before", "2 lines found no room in the journal", "waits"])


class Rings(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = scratch(self) / "journal"

    def ring(self) -> Ring:
        ring = Ring(self.directory, A_MB)
        ring.open()
        self.addCleanup(ring.close)
        return ring

    def line(self, text: str) -> Line:
        return Line(1.0, "shop", "shop-1", "web", text, 5)

    def test_what_is_written_down(self) -> None:
        """JSON: how far log files were read, then events; for the ship's user alone."""
        self.ring().append([self.line('a "quote" \\ \t')])
        (path,) = self.directory.iterdir()
        mark, event = map(json.loads, path.read_text().splitlines())
        self.assertEqual(mark, {"read": {}})
        self.assertEqual(event["content"], 'a "quote" \\ \t')
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.ring().read, {"shop-1": Read("shop", 5)})

    def test_a_segment_that_never_began(self) -> None:
        """Is removed, and the one before it gone on with; ids are never given twice."""
        self.ring().append([self.line("one")])
        (self.directory / f"{2:016d}.jsonl").write_bytes(b'{"rea')
        ring = self.ring()
        self.assertEqual((ring.newest, segments(self.directory)), (1, [1]))
        self.assertEqual(ring.read, {"shop-1": Read("shop", 5)})

    def test_no_text_looks_like_another_service(self) -> None:
        """Events are picked by what is written beside their text, whatever that says."""
        self.ring().append([self.line('"service":"other",'), self.line("{")])
        reader: Any = Reader(self.directory)
        other = Wanted(frozenset({"other"}))
        self.assertEqual(reader.last(5, other), [])
        self.assertEqual(reader.read(0, other, 5).upto, 2)


class Taking(SynchronousTestCase):
    def setUp(self) -> None:
        self.source = Source(scratch(self) / "log", "shop", "shop-1")

    @given(st.lists(st.binary(max_size=9)), st.integers(1, 12), st.integers(1, 12))
    @settings(max_examples=60, deadline=None)
    def test_nothing_lost(self, chunks: list[bytes], most: int, unended: int) -> None:
        """However it is written and read, each byte is read once, in its turn."""
        self.patch(sources, "AT_ONCE", most)
        self.patch(sources, "UNENDED", min(unended, most))
        self.source.path.write_bytes(b"")
        self.source.at = 0
        for chunk in [*chunks, b"\n"]:
            with self.source.path.open("ab") as file:
                file.write(chunk)
            before = -1
            while self.source.at != before:
                before = self.source.at
                taken = take(self.source, 0.0)
                self.assertEqual([line.at for line in taken.lines][-1:] or [before], [taken.at])
                self.source.at = taken.at
        self.assertEqual(self.source.at, len(b"".join(chunks)) + 1)

    def test_no_link_is_followed(self) -> None:
        """What is no file of its own is not read."""
        other = self.source.path.with_name("other")
        other.write_text("secret\n")
        self.source.path.symlink_to(other)
        with self.assertRaises(OSError):
            take(self.source, 0.0)
