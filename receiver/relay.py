"""Where git's hooks ask the ship, and `starphleet` asks how it is: a socket in the ship's root.

A question is one line of JSON, an answer is lines of JSON; see `hooks/git/relay.py`.
"""

from __future__ import annotations

import json
from typing import Any

from attrs import define
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver

from buildpacks.packs import BuildError
from containers.interface import ContainerError
from hooks.errors import DeployFailed, ShipError
from hooks.ledger import Serving
from hooks.naming import repository_name
from hooks.orders import orders_of_push
from hooks.push import Push, read_push
from hooks.say import Say, clean
from hooks.settings import url
from hooks.ship import Ship
from hooks.tailing import follow
from hooks.underway import Deploys
from proxy.routes import ProxyError
from receiver.backlog import Backlog

KNOWN = (ShipError, BuildError, ContainerError, ProxyError)
"""Kinds of failure whose text is meant for the pusher."""
LONGEST = 500  # characters of a reason
FULL = 8 << 20  # free bytes of a disk that has no room for anything


@define(eq=False)
class Relay(Factory):
    """One for the ship. `stop` is called when somebody asks the ship to stop."""

    ship: Ship
    deploys: Deploys
    noisy: bool = False
    log: Logger = Logger()

    def buildProtocol(self, addr: object) -> Conversation:
        return Conversation(self)

    async def answer(self, question: dict[str, Any], conversation: Conversation) -> dict[str, Any]:
        """The last line of the answer to one question."""
        if question["hook"] == "status":
            return await self._status()
        try:
            push = self._push(question)
            if question["hook"] == "pre-receive":
                self.ship.layout.require_room(self.ship.settings.free_disk)
                moved = False
            else:
                moved = await self._deploy(push, conversation)
        except KNOWN as error:
            reason = clean(f"{error}{self._full()}")[:LONGEST]
            conversation.explain(error, reason)
            return {"verdict": reason}
        except CancelledError:
            raise
        except Exception:
            self.log.failure("a push of {owner} failed", owner=question["owner"])
            return {"verdict": "the ship made an error of its own; its log says which"}
        return {"verdict": "", "moved": moved}

    def _full(self) -> str:
        """What is behind many an odd error."""
        return "; the ship's disk is full" if self.ship.layout.free_bytes() < FULL else ""

    def _push(self, question: dict[str, Any]) -> Push:
        updates = [(old, new, ref) for old, new, ref in question["updates"]]
        name = repository_name(question["repository"])
        return read_push(name, question["owner"], updates, question["options"])

    async def _deploy(self, push: Push, conversation: Conversation) -> bool:
        """Whether the branch was moved; if not, git is to do it."""
        say = Say(conversation.say)
        say.header(f"{push.service}: {push.new[:7]} of {push.branch}, pushed by {push.owner}")
        repository = self.ship.repository(push.repository)
        orders = await orders_of_push(push, repository, self.ship.settings.test_ttl)
        arrival = self.deploys.join(orders, conversation.say)
        try:
            serving = await conversation.unless_left(arrival)
        finally:
            self.deploys.leave(orders, conversation.say)
        moved = await self.ship.settle(push)  # a push that joined has a branch of its own
        if push.attach:
            await self._attach(serving, conversation, say)
        return moved

    async def _attach(self, serving: Serving, conversation: Conversation, say: Say) -> None:
        """Follow the service's log until the pusher leaves; the service goes with the pusher."""
        say.header(f"Following the log; Ctrl-C takes {serving.service} down")
        log = self.ship.layout.service_log(serving.container)
        try:
            await conversation.unless_left(
                Deferred.fromCoroutine(
                    follow(self.ship.reactor, log, say.output, lambda: self._serves(serving))
                )
            )
        except Left:
            if await self._serves(serving):
                await self.ship.services.take_down(serving)
                self.log.info("{service} went with its pusher", service=serving.service)
            raise
        say.header(f"{serving.service} no longer serves {serving.release.commit[:7]}")

    async def _serves(self, serving: Serving) -> bool:
        now = await self.ship.serving(serving.service)
        return now is not None and now.release == serving.release

    async def _status(self) -> dict[str, Any]:
        serving = (await self.ship.ledger.serving()).values()
        queue = self.ship.queue
        return {
            "services": [
                {
                    "service": one.service,
                    "commit": one.release.commit,
                    "owner": one.owner,
                    "url": url(self.ship.settings, one.service),
                    "since": one.since,
                    "expires": one.expires,
                }
                for one in serving
            ],
            "running": sorted(queue.running),
            "waiting": list(queue.waiting),
        }


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

    def connectionMade(self) -> None:
        self._backlog = Backlog(self.transport, lambda line: self._send({"say": line}))

    def lineReceived(self, line: bytes) -> None:
        if self._answering is None:
            self._answering = Deferred.fromCoroutine(self._answer(json.loads(line)))
            self._answering.addErrback(self._failed)

    def say(self, line: str) -> None:
        if self._backlog is not None:
            self._backlog.say(line)

    def explain(self, error: Exception, reason: str) -> None:
        """Show what stands before the reason: details, then the reason as the last line."""
        if isinstance(error, DeployFailed):
            for line in error.details:
                Say(self.say).line(line)
        Say(self.say).plain(f" !     {reason}")

    async def unless_left(self, awaited: Deferred[Any]) -> Any:
        """The result of `awaited`; raises `Left` when the other side leaves first."""
        if self._left:
            raise Left
        self._awaited = awaited
        try:
            return await awaited
        except CancelledError:
            raise Left from None
        finally:
            self._awaited = None

    def connectionLost(self, reason: object = None) -> None:
        self._left = True
        if self._awaited is not None:
            self._awaited.cancel()

    async def _answer(self, question: dict[str, Any]) -> None:
        answer = await self._relay.answer(question, self)
        self._end()
        self._send(answer)
        assert self.transport is not None
        self.transport.loseConnection()

    def _end(self) -> None:
        backlog, self._backlog = self._backlog, None
        if backlog is not None:
            backlog.end()

    def _failed(self, failure: Any) -> None:
        if failure.check(Left) is None:
            self._relay.log.failure("a question could not be answered", failure)
        self._end()
        if self.transport is not None:
            self.transport.loseConnection()

    def _send(self, answer: dict[str, Any]) -> None:
        if not self._left and self.transport is not None:
            self.transport.write(json.dumps(answer).encode() + b"\n")
