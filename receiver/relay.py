"""Where git's hooks ask the ship, and `starphleet` asks how it is: a socket in the ship's root.

A question is one line of JSON, an answer is lines of JSON; see `hooks/git/relay.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from attrs import define
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver

from hooks.deploy import KNOWN
from hooks.errors import DeployFailed
from hooks.ledger import Serving
from hooks.naming import repository_name
from hooks.orders import orders_of_push
from hooks.push import Push, read_push
from hooks.say import Say, clean
from hooks.ship import Ship
from hooks.tailing import follow
from hooks.underway import Deploys
from receiver.backlog import Backlog
from receiver.commands import Commands
from receiver.headquarters.hosting import NAME as HEADQUARTERS
from receiver.headquarters.hosting import Hosting, hear, verdict
from receiver.headquarters.loop import Loop
from receiver.headquarters.ordered import Ordered

LONGEST = 500  # characters of a reason
FULL = 8 << 20  # free bytes of a disk that has no room for anything


@define(eq=False)
class Relay(Factory):
    """One for the ship. `stop` is called when somebody asks the ship to stop."""

    ship: Ship
    deploys: Deploys
    loop: Loop
    hosting: Hosting
    commands: Commands
    noisy: bool = False
    log: Logger = Logger()

    def buildProtocol(self, addr: object) -> Conversation:
        return Conversation(self)

    async def answer(self, question: dict[str, Any], conversation: Conversation) -> dict[str, Any]:
        """The last line of the answer to one question."""
        if question["hook"] == "status":
            return await self.commands.status()
        if question["hook"] == "history":
            return await self.commands.history(question["words"])
        try:
            moved = await self._do(question, conversation)
        except KNOWN as error:
            reason = clean(f"{error}{self._full()}")[:LONGEST]
            conversation.explain(error, reason)
            return {"verdict": reason}
        except (CancelledError, Left):
            raise
        except Exception:
            self.log.failure("{hook} failed", hook=question["hook"])
            return {"verdict": "the ship made an error of its own; its log says which"}
        return {"verdict": "", "moved": moved}

    async def _do(self, question: dict[str, Any], conversation: Conversation) -> bool:
        """Whether the branches of a push were moved; if not, git is to do it."""
        hook = question["hook"]
        if hook == "entrance":
            conversation.tell(await self.commands.entrance(question["words"]))
            return True
        if hook == "command":
            await self.commands.do(question["words"], conversation.say)
            return True
        if hook == "hq-wait":
            await self._wait(question["options"][0], conversation)
            return True
        if hook == "pre-receive":
            self.ship.layout.require_room(self.ship.settings.free_disk)
        if question["repository"] == HEADQUARTERS:
            return await self._headquarters(question, conversation)
        push = self._push(question)
        return hook == "proc-receive" and await self._deploy(push, conversation)

    async def _headquarters(self, question: dict[str, Any], conversation: Conversation) -> bool:
        updates = [(old, new, ref) for old, new, ref in question["updates"]]
        say = Say(conversation.say)
        if question["hook"] == "pre-receive":
            await self.hosting.examine(updates, question["quarantine"], say)
            return False
        changed = await self.hosting.accept(updates, say)
        await self._settled(changed, conversation)
        verdict(self.loop.commit, changed)
        return True

    async def _wait(self, commit: str, conversation: Conversation) -> None:
        """Until the headquarters at `commit` (or a later one) is live; `DeployFailed` why not."""
        arrival: Deferred[None] = Deferred.fromCoroutine(self.loop.reach(commit))
        await conversation.unless_left(arrival)
        everything = list(self.loop.ordered.values())
        await self._settled([one for one in everything if one in self.loop.unsettled], conversation)
        refused = self.loop.headquarters.refused if self.loop.headquarters else {}
        for reason in refused.values():
            raise DeployFailed(f"{reason}; what serves there goes on", tuple(refused.values()))
        verdict(self.loop.commit, everything)

    async def _settled(self, services: Sequence[Ordered], conversation: Conversation) -> None:
        """Stream what `services` say until each is settled."""
        hearing = [(one, hear(one, conversation.say, alone=len(services) == 1)) for one in services]
        for one, listen in hearing:
            one.follow(listen)
        try:
            for one, _ in hearing:
                await conversation.unless_left(one.settled())
        finally:
            for one, listen in hearing:
                one.leave(listen)

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
        ttl = self.ship.settings.test_ttl
        orders = await orders_of_push(
            push,
            repository,
            ttl,
            self.loop.for_tests,
            bases=self.loop.bases,
            most=self.ship.settings.service_limits,
            devmode=self.ship.settings.devmode,
        )
        for warning in orders.warnings:
            say.header(warning)
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
