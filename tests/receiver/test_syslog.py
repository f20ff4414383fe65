"""Syslog: its grammar, and receivers over UDP, TCP and TLS that come and go."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor as installed
from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from hooks.errors import Refused
from hooks.journal.journal import Journal
from hooks.journal.lines import Event
from hooks.layout import Layout
from hooks.settings import Settings
from proxy.certificates import self_made
from receiver.syslog import sending
from receiver.syslog.messages import Destination, destinations, framed, message, priority
from receiver.syslog.sending import Sender, senders
from tests.hooks.scene import scratch

reactor: Any = installed
SHAPE = re.compile(
    r"<(\d{1,3})>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ([\x21-\x7e]{1,255}) ([\x21-\x7e]{1,48}) "
    r'([\x21-\x7e]{1,128}) - \[starphleet@32473( [a-z]+="(?:[^"\\\]]|\\["\\\]])*")+\] (.*)',
    re.DOTALL,
)
ID = re.compile(r'id="(\d+)"')


async def until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        await deferLater(reactor, 0.01)


class Grammar(SynchronousTestCase):
    def test_destinations(self) -> None:
        """Several, with the usual port of each way; twice is once."""
        found = destinations("udp://a, tcp://10.0.0.1:1514,tls://[fe80::1],udp://a:514", "S")
        self.assertEqual(
            found,
            (Destination("udp", "a", 514), Destination("tcp", "10.0.0.1", 1514),
             Destination("tls", "fe80::1", 6514)),
        )  # fmt: skip
        self.assertEqual(str(found[2]), "tls://[fe80::1]:6514")
        self.assertEqual(destinations("", "S"), ())

    def test_what_is_none(self) -> None:
        """Is refused in a line that names the setting."""
        for text in ("host", "http://a", "udp://", "udp://a:0", "tcp://a:99999", "tls://a/b",
                     "udp://-a", "udp://a b", "tcp://u@a", "tls://a\nb"):  # fmt: skip
            with self.assertRaisesRegex(Refused, r"^S: .* is no destination such as udp://"):
                destinations(f"{text},udp://x", "S")

    def test_a_message(self) -> None:
        """As RFC 5424 has it, with service, release, process and id."""
        event = Event(7, 1795262401.25, "/a b", 'x"]\\', "night", 'hello "there"')
        self.assertEqual(
            message(event, "ship-1").decode(),
            "<14>1 2026-11-21T12:00:01.250Z ship-1 /a_b night - [starphleet@32473 "
            'id="7" service="/a b" release="x\\"\\]\\\\" process="night"] hello "there"',
        )
        self.assertEqual(framed(b"<14>1 \xc3\xa9"), b"8 <14>1 \xc3\xa9")

    def test_how_bad_it_is(self) -> None:
        """The ship is a daemon whose lines say how bad they are; the last line of a deploy too."""

        def of(service: str, process: str, content: str) -> int:
            return priority(Event(1, 0.0, service, "r", process, content))

        self.assertEqual(of("", "ship", "[hooks.boot#error] no"), 3 * 8 + 3)
        self.assertEqual(of("", "ship", "[hooks.boot#warn] no"), 3 * 8 + 4)
        self.assertEqual(of("", "ship", "Traceback"), 3 * 8 + 6)
        self.assertEqual(of("a", "deploy", " !     failed"), 1 * 8 + 3)
        self.assertEqual(of("a", "web", "[hooks.boot#critical] mine"), 1 * 8 + 6)

    @given(st.builds(Event, st.integers(1, 10**12), st.floats(0, 4e9), *[st.text(max_size=300)] * 3,
                     st.text(alphabet=st.characters(codec="utf-8"), max_size=5000)),
           st.text(max_size=300))  # fmt: skip
    def test_any_event(self, event: Event, ship: str) -> None:
        """Whatever it holds, its message has that shape and a bound."""
        data = message(event, ship)
        self.assertLessEqual(len(data), 8192)
        self.assertRegex(data.decode(), SHAPE)


class Receiver(Protocol):
    """Takes octet counted messages; `ids` has what it was told, of all connections."""

    def __init__(self, seen: list[str], after: int | None) -> None:
        self.seen, self.after, self.data = seen, after, b""

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        while match := re.match(rb"(\d+) ", self.data):
            end = match.end() + int(match[1])
            if len(self.data) < end:
                return
            self.seen.append(self.data[match.end() : end].decode())
            self.data = self.data[end:]
            if self.after is not None and len(self.seen) >= self.after:
                self.transport.abortConnection()  # type: ignore[union-attr]
                return


class Datagrams(DatagramProtocol):
    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    def datagramReceived(self, datagram: bytes, addr: object) -> None:
        self.seen.append(datagram.decode())


class Sending(TestCase):
    async def setUp(self) -> None:  # type: ignore[override]
        self.layout = Layout(scratch(self) / "ship")
        self.layout.prepare()
        self.journal = Journal(reactor, self.layout, Settings())
        await self.journal.open()
        self.seen: list[str] = []
        self.going: list[Deferred[None]] = []
        self.patch(sending, "FIRST_PAUSE", 0.05)

    async def tearDown(self) -> None:  # type: ignore[override]
        self.stop()
        await self.journal.close()

    def start(self, way: str, port: int, roots: Path | None = None) -> Sender:
        to = [Destination(way, "localhost" if way == "tls" else "127.0.0.1", port)]
        (sender,) = senders(reactor, self.journal, to, "ship-1", roots, self.layout.journal)
        sender._pause = sending.FIRST_PAUSE
        going: Deferred[None] = Deferred.fromCoroutine(sender.go())
        going.addErrback(lambda _: None)
        self.going.append(going)
        return sender

    def stop(self) -> None:
        for one in self.going:
            one.cancel()
        self.going.clear()

    def listen(self, port: int = 0, after: int | None = None, secured: Any = None) -> Any:
        factory = Factory.forProtocol(lambda: Receiver(self.seen, after))
        if secured is None:
            there = reactor.listenTCP(port, factory, interface="127.0.0.1")
        else:
            there = reactor.listenSSL(port, factory, secured, interface="127.0.0.1")
        self.addCleanup(there.stopListening)
        return there

    def write(self, first: int, last: int) -> None:
        lines = [f"line {number}" for number in range(first, last + 1)]
        self.journal.write("shop", "shop-1", "web", lines)

    def numbers(self) -> list[int]:
        return [int(text.rpartition(" ")[2]) for text in self.seen if " line " in text]

    async def test_tcp(self) -> None:
        """Everything comes, in order, in the shape of RFC 5424; a receiver that breaks off in the
        middle gets the rest, and what it may not have had, when it is there again."""
        first = self.listen(after=700)
        port = first.getHost().port
        sender = self.start("tcp", port)
        await until(lambda: sender._after >= 0)
        self.write(1, 2000)
        await until(lambda: len(self.seen) >= 700)
        await first.stopListening()
        self.write(2001, 2500)
        self.listen(port)
        await until(lambda: 2500 in self.numbers())
        self.assertEqual(sorted(set(self.numbers())), [*range(1, 2501)])
        self.assertLessEqual(len(self.seen), 2500 + sending.AT_ONCE)
        ids = [int(found[1]) for text in self.seen if (found := ID.search(text))]
        self.assertEqual(len(set(ids)), 2500)
        for text in self.seen:
            self.assertRegex(text, SHAPE)

    async def test_it_goes_on_where_it_was(self) -> None:
        """The next ship sends what came while none sent, once."""
        there = self.listen()
        sender = self.start("tcp", there.getHost().port)
        await until(lambda: sender._after >= 0)
        self.write(1, 3)
        await until(lambda: sender._after == 3)
        self.stop()
        self.write(4, 6)
        await self.journal.settle()
        self.start("tcp", there.getHost().port)
        await until(lambda: 6 in self.numbers())
        self.assertEqual(self.numbers(), [1, 2, 3, 4, 5, 6])

    async def test_away(self) -> None:
        """That nobody is there is said once, and that somebody is again; nothing is lost."""
        said: list[str] = []
        there = self.listen()
        port = there.getHost().port
        await there.stopListening()
        sender = self.start("tcp", port)
        self.patch(sender, "_log", _Log(said))
        self.write(1, 3)
        await until(lambda: said)
        await deferLater(reactor, 0.5)
        self.assertEqual(said, ["{to}: {why}; it is tried again"])
        self.listen(port)
        await until(lambda: 3 in self.numbers())
        await until(lambda: len(said) == 2)

    async def test_one_that_does_not_read(self) -> None:
        """Is waited for, while others get everything, and nothing piles up."""
        stuck = reactor.listenTCP(0, Factory.forProtocol(_Deaf), interface="127.0.0.1")
        self.addCleanup(stuck.stopListening)
        slow = self.start("tcp", stuck.getHost().port)
        quick = self.start("tcp", self.listen().getHost().port)
        await until(lambda: slow._after >= 0 <= quick._after)
        for part in range(3):
            self.journal.write("shop", "shop-1", "web", ["x" * 4000] * 499 + [f"line {part}"])
            await self.journal.settle()
        await until(lambda: 2 in self.numbers())
        self.assertLess(slow._after, self.journal.newest)

    async def test_tls(self) -> None:
        """With a certificate of an authority that is trusted; else nothing is told to it."""
        made = self_made(["localhost"], time.time())
        roots, other = self.layout.root / "roots.pem", self.layout.root / "other.pem"
        roots.write_bytes(made.chain)
        other.write_bytes(self_made(["localhost"], time.time()).chain)
        pair = ssl.PrivateCertificate.loadPEM(made.key + made.chain)
        port = self.listen(secured=pair.options()).getHost().port
        said: list[str] = []
        doubting = self.start("tls", port, other)
        self.patch(doubting, "_log", _Log(said))
        self.write(1, 2)
        await until(lambda: said)
        self.assertEqual(self.seen, [])
        self.stop()
        doubting.kept.write_text("0")
        self.start("tls", port, roots)
        await until(lambda: self.numbers() == [1, 2])

    async def test_udp(self) -> None:
        """One message in each datagram; those that nobody listened for come when somebody does."""
        there = reactor.listenUDP(0, Datagrams(self.seen), interface="127.0.0.1")
        port = there.getHost().port
        sender = self.start("udp", port)
        await until(lambda: sender._after >= 0)
        self.write(1, 200)
        await until(lambda: self.numbers() == [*range(1, 201)])
        await until(lambda: sender._after == 200)
        await there.stopListening()
        self.write(201, 201)
        await until(lambda: sender._trouble)
        again = reactor.listenUDP(port, Datagrams(self.seen), interface="127.0.0.1")
        self.addCleanup(again.stopListening)
        await until(lambda: 201 in self.numbers())
        self.assertEqual(sorted(set(self.numbers())), [*range(1, 202)])
        self.assertRegex(self.seen[0], SHAPE)


class _Deaf(Protocol):
    def connectionMade(self) -> None:
        self.transport.pauseProducing()  # type: ignore[union-attr]


class _Log:
    """Keeps the formats of what is said."""

    def __init__(self, said: list[str]) -> None:
        self.warn = self.info = lambda text, **told: said.append(text)
