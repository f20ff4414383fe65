"""What a ship looks at before it lets another process be the ship for good."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from hooks.errors import ShipError
from receiver.succession import selfcheck
from receiver.succession.selfcheck import Place, check

reactor: Any = default_reactor
URL = "http://a.localhost/~a/"


class Says(Protocol):
    """Answers a question, or at once when there is none to wait for."""

    def __init__(self, answer: Callable[[bytes], bytes], *, first: bool = False) -> None:
        self._answer = answer
        self._first = first

    def connectionMade(self) -> None:
        if self._first:
            self.dataReceived(b"")

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(self._answer(data))
        self.transport.loseConnection()


class OfAShip(TestCase):
    """`ssh`, `told` and `statuses` are what the ship says; the last of the statuses for good."""

    def setUp(self) -> None:
        self.ssh, self.told, self.statuses = b"SSH-2.0-Ship\r\n", self.status(URL), [b"200"]
        self.asked: list[bytes] = []
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.socket = Path(place.name) / "ship"
        self.open(reactor.listenUNIX, str(self.socket), lambda: Says(lambda _: self.told))
        said_first = lambda: Says(lambda _: self.ssh, first=True)  # noqa: E731
        self.at_ssh = self.open(reactor.listenTCP, 0, said_first)
        self.at_http = self.open(reactor.listenTCP, 0, lambda: Says(self.http))
        self.patch(selfcheck, "PATIENCE", 0.5)

    def open(self, listen: Any, at: Any, made: Callable[[], Protocol]) -> Place:
        factory = Factory.forProtocol(made)
        where = {"interface": "127.0.0.1"} if at == 0 else {}
        port = listen(at, factory, **where)
        self.addCleanup(port.stopListening)
        return Place("127.0.0.1", port.getHost().port if at == 0 else 0)

    def status(self, *urls: str) -> bytes:
        return json.dumps({"services": [{"url": url} for url in urls]}).encode() + b"\n"

    def http(self, asked: bytes) -> bytes:
        self.asked.append(asked)
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return b"HTTP/1.1 " + status + b" As It Is\r\n\r\n"

    def check(self, before: dict[str, str] | None = None) -> Deferred[None]:
        expected = {URL: "200"} if before is None else before
        return Deferred.fromCoroutine(
            check(reactor, self.socket, self.at_ssh, self.at_http, expected)
        )

    async def test_a_ship_that_is_as_before_passes(self) -> None:
        """SSH, status and the routes; the host and the whole path are what is asked."""
        await self.check()
        self.assertTrue(self.asked[0].startswith(b"GET /~a/ HTTP/1.1\r\nHost: a.localhost\r\n"))

    async def test_a_service_may_take_a_moment(self) -> None:
        """One that answers as before in the end is as before."""
        self.statuses = [b"502", b"200"]
        await self.check()

    async def test_what_is_not_as_before_is_named(self) -> None:
        """Each thing that is looked at has words of its own when it is not there."""
        for attribute, value, reason in (
            ("ssh", b"HTTP/1.1 400\r\n", "does not answer SSH"),
            ("told", b"", "does not tell its status"),
            ("told", b"{}\n", "does not tell its status"),
            ("statuses", [b"502"], f"{URL} answers 502 and not 200 as before"),
        ):
            kept = getattr(self, attribute)
            setattr(self, attribute, value)
            with self.assertRaisesRegex(ShipError, reason):
                await self.check()
            setattr(self, attribute, kept)

    async def test_a_url_that_is_there_no_more_is_not_asked(self) -> None:
        """The settings may have changed with it."""
        self.told = self.status("http://other/")
        self.statuses = [b"404"]
        await self.check()
        self.assertEqual(self.asked, [])

    async def test_nobody_there_is_no_answer(self) -> None:
        """A port on which nobody listens, and a path."""
        nobody = Place("127.0.0.1", 9)
        self.assertEqual(await selfcheck.answers(reactor, nobody, [URL]), {})
        with self.assertRaises(ShipError):
            await selfcheck.status(reactor, self.socket.with_name("nobody"))

    def test_what_is_bound_everywhere_is_reached_here(self) -> None:
        """A wildcard address is no place to go to; a place is the same after it was told."""
        for bind, host in (("0.0.0.0", "127.0.0.1"), ("[::]", "::1"), ("10.1.2.3", "10.1.2.3")):
            place = Place.of(bind, 22)
            self.assertEqual(place, Place(host, 22))
            self.assertEqual(Place.read(str(place)), place)
