"""The health check, against real sockets."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from containers.interface import Address, Exit
from hooks.check import Answered, check, unhealthy


class App(Resource):
    """Answers with each of `statuses` in turn, the last one for ever; never ends its body."""

    isLeaf = True

    def __init__(self, *statuses: int) -> None:
        super().__init__()
        self.statuses = list(statuses)
        self.asked: list[bytes] = []

    def render_GET(self, request: Request) -> int:
        self.asked.append(request.uri)
        request.setResponseCode(
            self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        )
        request.write(b"and so on")
        return 1  # NOT_DONE_YET


class Checking(TestCase):
    def serve(self, factory: Any) -> Address:
        port: Any = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return Address("127.0.0.1", port.getHost().port)

    async def test_a_service_that_comes_up_late_passes(self) -> None:
        """It asks until it gets a 200, and does not wait for the body."""
        app = App(503, 404, 200)
        address = self.serve(Site(app))
        self.assertEqual(await check(reactor, address, "/up", 20, Deferred()), Answered(200, True))
        self.assertEqual(app.asked, [b"/up"] * 3)

    async def test_without_a_check_anything_below_500_will_do(self) -> None:
        """A service that only knows paths of its own is healthy with a 404."""
        address = self.serve(Site(App(404)))
        self.assertEqual(await check(reactor, address, None, 20, Deferred()), Answered(404, True))

    async def test_what_never_passes_is_told_with_its_last_answer(self) -> None:
        """A 404 does not pass a check that somebody set."""
        address = self.serve(Site(App(404)))
        self.assertEqual(
            await check(reactor, address, "/up", 0.3, Deferred()), Answered(404, False)
        )

    async def test_a_service_that_takes_a_connection_and_says_nothing(self) -> None:
        """The time is over when it is over, whatever hangs."""
        address = self.serve(Factory.forProtocol(Protocol))
        self.assertEqual(
            await check(reactor, address, None, 0.3, Deferred()), Answered(None, False)
        )

    async def test_the_end_of_the_service_ends_the_check(self) -> None:
        """A service that is gone is not asked on."""
        ended: Deferred[Exit] = Deferred()
        ended.callback(Exit(status=3))
        self.assertEqual(
            await check(reactor, Address("127.0.0.1", 1), None, 20, ended), Exit(status=3)
        )

    async def test_who_cancels_it_is_told_so(self) -> None:
        """A check that is cancelled ends as anything that is, not by an error of the ship's."""
        address = self.serve(Factory.forProtocol(Protocol))
        ended: Deferred[Exit] = Deferred()
        checking = Deferred.fromCoroutine(check(reactor, address, None, 20, ended))
        checking.cancel()
        with self.assertRaises(CancelledError):
            await checking

    def test_the_reason_names_the_ports(self) -> None:
        """What it listens on stands against what it should."""
        never = Answered(None, False)
        self.assertIn("listens on 80, 81", unhealthy("GET /", never, 5000, [80, 81], 9))
        self.assertIn("listens on no port", unhealthy("GET /", never, 5000, [], 9))
        self.assertIn("else", unhealthy("GET /", Answered(200, True), 5000, [], 9))
        self.assertIn("did not answer", unhealthy("GET /", never, 5000, [5000], 9))
        self.assertIn("answered 500", unhealthy("GET /", Answered(500, False), 5000, [5000], 9))
