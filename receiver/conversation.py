"""One question to the ship, and its answer: lines of JSON, for as long as whoever asked stays."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.protocols.basic import LineReceiver

from hooks.errors import DeployFailed, HandedOver
from hooks.say import Say
from receiver.backlog import Backlog

if TYPE_CHECKING:
    from receiver.relay import Relay


class Left(Exception):
    """Whoever asked is gone."""


class Conversation(LineReceiver):
    """One question and its answer."""

    delimiter = b"\n"
    MAX_LENGTH = 1 << 20

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._answering: Deferred[None] | None = None
        self._left = False
        self._awaited: Deferred[Any] | None = None
        self._backlog: Backlog | None = None
        self._hook = ""
        self._moved_on = False
        self.again: dict[str, Any] = {}
        """What another process of the ship is to be asked instead, if it takes over now."""

    def connectionMade(self) -> None:
        self._backlog = Backlog(self.transport, lambda line: self._send({"say": line}))

    def lineReceived(self, line: bytes) -> None:
        if self._relay.handed_over:
            self._end_with({"again": {}})
        elif self._answering is None:
            question = json.loads(line)
            self._hook = question["hook"]
            self._answering = Deferred.fromCoroutine(self._answer(question))
            self._answering.addErrback(self._failed)

    def ask_again(self) -> None:
        """Let who is here ask another process of the ship, unless that is what was asked for."""
        if self._answering is None or self._answering.called or self._hook == "handover":
            return
        self._end_with({"again": self.again})
        self._moved_on = True
        self._answering.cancel()

    def say(self, line: str) -> None:
        if self._backlog is not None:
            self._backlog.say(line)

    def tell(self, answer: dict[str, Any]) -> None:
        """Something for a program, before the last line."""
        self._send(answer)

    def explain(self, error: Exception, reason: str) -> None:
        """Show what stands before the reason: details, then the reason as the last line."""
        if isinstance(error, DeployFailed):
            for line in error.details:
                Say(self.say).line(line)
        Say(self.say).plain(f" !     {reason}")

    async def unless_left(self, awaited: Deferred[Any]) -> Any:
        """The result of `awaited`; raises `Left` when the other side leaves first."""
        if self._moved_on or self._left:
            awaited.addErrback(_unheard)
            awaited.cancel()
        if self._moved_on:
            raise HandedOver("it goes on in another process")
        if self._left:
            raise Left
        self._awaited = awaited
        try:
            return await awaited
        except CancelledError:
            if self._moved_on:
                raise HandedOver("it goes on in another process") from None
            raise Left from None
        finally:
            self._awaited = None

    def connectionLost(self, reason: object = None) -> None:
        self._left = True
        self._relay.gone(self)
        if self._awaited is not None and not self._moved_on:
            self._awaited.cancel()

    async def _answer(self, question: dict[str, Any]) -> None:
        self._end_with(await self._relay.answer(question, self))

    def _end_with(self, answer: dict[str, Any]) -> None:
        self._end()
        self._send(answer)
        assert self.transport is not None
        self.transport.loseConnection()

    def _end(self) -> None:
        backlog, self._backlog = self._backlog, None
        if backlog is not None:
            backlog.end()

    def _failed(self, failure: Any) -> None:
        if failure.check(Left) is None and not self._moved_on:
            self._relay.log.failure("a question could not be answered", failure)
        self._end()
        if self.transport is not None:
            self.transport.loseConnection()

    def _send(self, answer: dict[str, Any]) -> None:
        if not self._left and not self._moved_on and self.transport is not None:
            self.transport.write(json.dumps(answer).encode() + b"\n")


def _unheard(failure: object) -> None:
    """Nobody is there any more to be told."""
