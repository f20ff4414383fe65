"""Answers over https that no git server gives."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from twisted.internet import reactor as the_reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import TestCase
from twisted.web.client import ResponseNeverReceived
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from receiver.headquarters import https
from receiver.headquarters.https import Https
from receiver.headquarters.lsrefs import Odd
from tests.receiver.web_scene import pause

reactor: Any = the_reactor


class Endless(Resource):
    """Says something, and never comes to an end."""

    isLeaf = True

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.asked = self.left = False

    def render_GET(self, request: Request) -> int:
        self.asked = True
        request.notifyFinish().addErrback(self._left)
        request.write(b"x" * self.size)
        return NOT_DONE_YET

    def _left(self, _: object) -> None:
        self.left = True


class Answers(TestCase):
    async def asking(self, page: Endless) -> Deferred[Any]:
        port = reactor.listenTCP(0, Site(page), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        asking = Https(reactor, None)
        self.addCleanup(asking.close)
        url = f"http://127.0.0.1:{port.getHost().port}/x.git"
        return Deferred.fromCoroutine(asking.ask(url, ["HEAD"]))

    async def gone(self, page: Endless) -> None:
        while not page.left:
            await pause()

    async def test_one_that_is_too_long(self) -> None:
        """It is cut off, and told from a server that cannot be reached: git itself may be asked."""
        page = Endless(5000)
        with patch.object(https, "MOST", 1000):
            asking = await self.asking(page)
            with self.assertRaisesRegex(Odd, "more than 1000 bytes"):
                await asking
        await self.gone(page)

    async def test_one_that_nobody_waits_for(self) -> None:
        """It is cut off too."""
        page = Endless(10)
        asking = await self.asking(page)
        while not page.asked:
            await pause()
        await pause()
        asking.cancel()
        with self.assertRaises((CancelledError, ResponseNeverReceived)):
            await asking
        await self.gone(page)
