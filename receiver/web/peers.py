"""The other ships of the phleet: their log streams, led into ours as fast as its reader takes them.

Peers are asked for what is of their own alone, so that no event goes in a circle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from attrs import define, field
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import (
    ConnectError,
    ConnectionLost,
    ConnectionRefusedError,
    DNSLookupError,
    TimeoutError,
)
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.client import Agent, ResponseFailed, ResponseNeverReceived
from twisted.web.http_headers import Headers

from hooks.say import plain
from receiver.headquarters.https import OncePerHost, trusted
from receiver.web.reader import HEARTBEAT
from receiver.web.site import PATH
from receiver.web.sse import SHIP, Frame, Frames, Odd, position_text

if TYPE_CHECKING:
    from pathlib import Path

    from receiver.web.stream import Ask, Tap

CONNECT = 10  # seconds
SILENCE = 3 * HEARTBEAT
FIRST, LONGEST = 1.0, 60.0  # seconds before a peer that is away is asked again, doubling
_TEXTS = ("service", "release", "process", "content")
_REASONS: Mapping[type[Exception], str] = {
    Odd: "",  # says it itself
    DNSLookupError: "its name is not known",
    ConnectionRefusedError: "nothing listens there",
    TimeoutError: "it does not answer",
    SSL.Error: "its certificate is not trusted",
    VerificationError: "its certificate is of somebody else",
    ConnectError: "it cannot be reached",
    ConnectionLost: "the connection was lost",
}


class NotMeant(Exception):
    """This peer has nothing for this reader."""


class Peers:
    """Asks each of `urls` for its stream; `token` is what shows it who we are. `roots` are the
    authorities that its certificate is verified by, else the platform's."""

    def __init__(
        self, reactor: Any, urls: Sequence[str], token: str, roots: Path | None = None
    ) -> None:
        self._reactor = reactor
        self._urls = tuple(urls)
        self._token = token
        self.ours: set[str] = set()
        """Those of the URLs that turned out to be of this ship."""
        self._agent = Agent(reactor, OncePerHost(trusted(roots)), CONNECT)

    def follow(self, tap: Tap, ask: Ask) -> list[Deferred[None]]:
        """Lead the stream of each into `tap` until cancelled."""
        heard: set[str] = {tap.ship}
        found = []
        for url in (each for each in self._urls if each not in self.ours):
            peer = _Peer(self._reactor, self, url, tap, ask, heard)
            found.append(Deferred.fromCoroutine(peer.go()))
            found[-1].addErrback(lambda failure: failure.trap(CancelledError))
        return found

    async def open(self, url: str, tap: Tap, ask: Ask) -> Any:
        """The answer of one peer. Raises `Odd` when it is no stream, `NotMeant`."""
        named = [("service", one) for one in ask.services] + [("ship", one) for one in ask.ships]
        query = urlencode([("local", ""), ("n", str(ask.lines)), *named])
        headers = {"Accept": ["text/event-stream"]}
        if self._token:
            headers["Authorization"] = [f"Bearer {self._token}"]
        if tap.position:
            headers["Last-Event-ID"] = [position_text(tap.position)]
        asked = f"{url}{PATH}logstream?{query}".encode()
        response = await self._answer(self._agent.request(b"GET", asked, Headers(headers)))
        kind = response.headers.getRawHeaders("content-type", [""])[0]
        if response.code == 200 and kind.startswith("text/event-stream"):
            return response
        response.deliverBody(_Unread())
        if response.code == 204:
            raise NotMeant
        raise Odd(f"it answered {response.code}")

    async def _answer(self, asking: Deferred[Any]) -> Any:
        late = self._reactor.callLater(SILENCE, asking.cancel)
        try:
            return await asking
        except Exception:
            if not late.active():
                raise Odd(f"it said nothing for {SILENCE:g} s") from None
            raise
        finally:
            if late.active():
                late.cancel()


@define(eq=False)
class _Peer:
    """One peer of one reader. `heard` are the ships that somebody tells this reader of already."""

    reactor: Any
    peers: Peers
    url: str
    tap: Tap
    ask: Ask
    heard: set[str]
    ship: str = ""
    pause: float = field(factory=lambda: FIRST)
    trouble: str | None = None

    async def go(self) -> None:
        """Until cancelled, or until it turns out that there is nothing to hear."""
        while True:
            try:
                response = await self.peers.open(self.url, self.tap, self.ask)
                body = _Body(self.reactor, self)
                response.deliverBody(body)
                await body.ended
                why = "its stream ended"
            except NotMeant:
                return
            except CancelledError:
                raise
            except Exception as error:
                why = reason(error)
            if self.tap.reader.gone:  # a request that is cancelled fails in ways of its own
                return
            self._tell(why)
            await deferLater(self.reactor, self.pause)
            self.pause = min(LONGEST, self.pause * 2)

    def take(self, frame: Frame) -> None:
        """One event of its stream. `Odd` for what no ship says, `NotMeant` when it is known."""
        said = _object(frame.data)
        if frame.kind == "ship":
            self._is(str(said.get("ship", "")))
        elif not self.ship:
            raise Odd("it does not say which ship it is")
        elif frame.kind == "":
            self.tap.event(self.ship, _number(said.get("id")), _event(said))
        elif frame.kind == "missed":
            self.tap.note("missed", ship=self.ship, missed=_number(said.get("missed")))

    def _is(self, ship: str) -> None:
        if not SHIP.fullmatch(ship):
            raise Odd("it does not say which ship it is")
        if ship == self.tap.ship:
            self.peers.ours.add(self.url)
        if ship != self.ship and ship in self.heard:
            raise NotMeant  # it is this ship, or one that has two URLs
        self.heard.add(ship)
        self.ship, self.pause = ship, FIRST
        self._tell("")

    def _tell(self, trouble: str) -> None:
        """Say in the stream that it is away, or here, when that is new."""
        if trouble != self.trouble:
            self.trouble = trouble
            self.tap.note("ship", ship=self.ship, url=self.url, trouble=trouble)


class _Body(Protocol):
    """A stream that comes: as fast as the reader takes it, and never silent for long."""

    def __init__(self, reactor: Any, peer: _Peer) -> None:
        self._reactor = reactor
        self._peer = peer
        self._frames = Frames()
        self._silence: Any = None
        self._waiting: Deferred[None] | None = None
        self.ended: Deferred[None] = Deferred(lambda _: self._fail(CancelledError()))

    def connectionMade(self) -> None:
        self._silence = self._reactor.callLater(SILENCE, self._silent)

    def dataReceived(self, data: bytes) -> None:
        if self.ended.called:
            return
        self._silence.reset(SILENCE)
        try:
            for frame in self._frames.take(data):
                self._peer.take(frame)
        except (Odd, NotMeant) as error:
            self._fail(error)
            return
        finally:
            self._peer.tap.reader.flush()
        if self._peer.tap.reader.full and self._waiting is None:
            self._wait()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        if self._silence is not None and self._silence.active():
            self._silence.cancel()
        if self._waiting is not None:
            self._waiting.cancel()
        if not self.ended.called:
            self.ended.callback(None)

    def _wait(self) -> None:
        assert self.transport is not None
        self.transport.pauseProducing()  # type: ignore[attr-defined]
        self._waiting = self._peer.tap.reader.room()
        self._waiting.addCallbacks(self._go_on, lambda failure: failure.trap(CancelledError))

    def _go_on(self, _: None) -> None:
        assert self.transport is not None
        self._waiting = None
        self.transport.resumeProducing()  # type: ignore[attr-defined]

    def _silent(self) -> None:
        if self._waiting is None:
            self._fail(Odd(f"it said nothing for {SILENCE:g} s"))
        else:
            self._silence = self._reactor.callLater(SILENCE, self._silent)

    def _fail(self, error: Exception) -> None:
        self.ended.errback(error)
        self._cut()

    def _cut(self) -> None:
        if self.transport is not None:
            self.transport.stopProducing()  # type: ignore[attr-defined]


class _Unread(Protocol):
    """A body that nobody wants: the connection goes."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.stopProducing()  # type: ignore[attr-defined]


def reason(error: BaseException) -> str:
    """Why a peer is away, in a few words that give away nothing else."""
    if isinstance(error, ResponseNeverReceived | ResponseFailed) and error.reasons:
        return reason(error.reasons[0].value)
    for kind, text in _REASONS.items():
        if isinstance(error, kind):
            return text or str(error)
    return f"it cannot be read ({type(error).__name__})"


def _object(text: str) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise Odd("it says what is no JSON object")
    return said


def _number(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value < 10**18:
        raise Odd("it says what is no event")
    return value


def _event(said: dict[str, Any]) -> dict[str, object]:
    """The known parts of an event, each of its kind, without what could command a terminal."""
    when = said.get("time")
    if not isinstance(when, int | float):
        raise Odd("it says what is no event")
    texts = {name: plain(str(said.get(name, ""))).replace("\n", " ") for name in _TEXTS}
    return {"time": when, **texts}
