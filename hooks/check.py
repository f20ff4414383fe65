"""The health check: asks a new container until it answers well, ends, or its time is over."""

from __future__ import annotations

from typing import Any

from attrs import define, frozen
from twisted.internet.defer import CancelledError, Deferred, FailureGroup, race
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.web.client import URI, Agent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from containers.interface import Address, Exit

PULSE = 0.05  # seconds between two questions
PATIENCE = 30.0  # seconds for one answer


@frozen
class Answered:
    """The status that passed, or the last that did not (`None`: there was no answer at all)."""

    status: int | None
    passed: bool


def passes(status: int, path: str | None) -> bool:
    """A check that somebody set needs a 200; without one anything below 500 will do."""
    return status == 200 if path is not None else status < 500


async def check(
    reactor: Any, address: Address, path: str | None, seconds: float, ended: Deferred[Exit]
) -> Answered | Exit:
    """Ask `address` for `path` (`/` when nobody set one) until it passes, or `seconds` are over.

    Answers the `Exit` when `ended` fires first. Only the status line is waited for.
    """
    asking = _Asking(reactor, address, path)
    either: list[Deferred[Any]] = [asking.start(seconds), ended]
    try:
        _, result = await race(either)
    except FailureGroup:  # neither fails by itself
        raise CancelledError from None
    answered: Answered | Exit = result
    return answered


def unhealthy(
    asked: str, answered: Answered, port: int, listening: list[int], seconds: float
) -> str:
    """Why a service that still runs is not healthy, in one line."""
    if answered.passed:
        return f"something else on this host answers on $PORT ({port}): push again"
    if answered.status is not None:
        return f"{asked} answered {answered.status} for {seconds:g} s"
    if port in listening:
        return f"the service listens on port {port} but did not answer {asked} within {seconds:g} s"
    ports = ", ".join(map(str, listening)) or "no port"
    return (
        f"nothing listened on $PORT ({port}) within {seconds:g} s; the service listens on {ports}"
    )


@define
class _Asking:
    reactor: Any
    address: Address
    path: str | None
    last: int | None = None
    over: bool = False

    def start(self, seconds: float) -> Deferred[Answered]:
        """Begin; cancelling it ends the asking."""
        polling = Deferred.fromCoroutine(self.until(seconds))

        def cancel(_: Deferred[Answered]) -> None:
            self.over = True  # said first: a cancelled request looks like any other that failed
            polling.cancel()

        answered: Deferred[Answered] = Deferred(cancel)
        polling.addCallbacks(answered.callback, answered.errback)
        return answered

    async def until(self, seconds: float) -> Answered:
        end = self.reactor.seconds() + seconds
        while not self.over and (left := end - self.reactor.seconds()) > 0:
            path = self.path or "/"
            status = await ask(self.reactor, self.address, path, min(left, PATIENCE))
            if status is not None:
                self.last = status
                if passes(status, self.path):
                    return Answered(status, True)
            if not self.over:
                await deferLater(self.reactor, PULSE)
        return Answered(self.last, False)


async def listens(reactor: Any, address: Address, seconds: float) -> bool:
    """Whether anything takes a connection at `address`, tried for so long."""
    end = reactor.seconds() + seconds
    endpoint = TCP4ClientEndpoint(reactor, address.host, address.port)
    while True:
        try:
            await endpoint.connect(Factory.forProtocol(_Unread))
        except ConnectError:
            if reactor.seconds() > end:
                return False
            await deferLater(reactor, PULSE)
        else:
            return True


async def ask(reactor: Any, address: Address, path: str, patience: float) -> int | None:
    """The status of one answer to `GET path`; `None` when there was none (nobody listens, say)
    within `patience` seconds. Only the status line is waited for.
    """
    url = f"http://{address.host}:{address.port}{path}".encode()
    agent = Agent.usingEndpointFactory(reactor, _Straight(reactor, address))
    asked = agent.request(b"GET", url, Headers({b"User-Agent": [b"starphleet"]}))
    cancelled = False

    def cancel(_: Deferred[Any]) -> None:
        nonlocal cancelled
        cancelled = True  # said first: a cancelled request looks like any other that failed
        asked.cancel()

    answer: Deferred[Any] = Deferred(cancel)
    asked.addCallbacks(answer.callback, answer.errback)
    timer = reactor.callLater(patience, asked.cancel)
    try:
        response = await answer
    except Exception:
        if cancelled:
            raise CancelledError() from None
        return None
    finally:
        if timer.active():
            timer.cancel()
    response.deliverBody(_Unread())
    return int(response.code)


@implementer(IAgentEndpointFactory)
@define
class _Straight:
    """To the address and nowhere else; without looking up names a refusal is seen at once."""

    reactor: Any
    address: Address

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        return TCP4ClientEndpoint(self.reactor, self.address.host, self.address.port)


class _Unread(Protocol):
    """Closes the connection instead of reading, which might never end."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()
