"""Where git's hooks ask the ship, and `starphleet` asks how it is: a socket in the ship's root.

A question is one line of JSON, an answer is lines of JSON; see `hooks/git/relay.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from containers.watching import Waiters
from hooks.deploy import KNOWN
from hooks.errors import DeployFailed, HandedOver, Refused
from hooks.journal.tailing import follow
from hooks.ledger import Serving
from hooks.naming import repository_name
from hooks.orders import orders_of_push
from hooks.push import Push, read_push
from hooks.say import Say, clean
from hooks.ship import Ship
from hooks.underway import Deploys
from receiver import answers
from receiver.commands import Commands
from receiver.conversation import Conversation, Left
from receiver.headquarters.hosting import NAME as HEADQUARTERS
from receiver.headquarters.hosting import Hosting, hear, verdict
from receiver.headquarters.loop import Loop
from receiver.headquarters.ordered import Ordered
from receiver.succession.relief import Relief

LONGEST = 500  # characters of a reason
FULL = 8 << 20  # free bytes of a disk that has no room for anything


@define(eq=False)
class Relay(Factory):
    """One for the ship. `version` says which one it is, and where others come from."""

    ship: Ship
    deploys: Deploys
    loop: Loop
    hosting: Hosting
    commands: Commands
    relief: Relief
    version: Callable[[], dict[str, Any]]
    handed_over: bool = False
    noisy: bool = False
    log: Logger = Logger()
    _conversations: set[Conversation] = field(factory=set)
    _emptied: Waiters = field(factory=Waiters)

    def buildProtocol(self, addr: object) -> Conversation:
        conversation = Conversation(self)
        self._conversations.add(conversation)
        return conversation

    def hand_over(self) -> None:
        """Let everybody ask another process of the ship again, but who asked for that process."""
        self.handed_over = True
        for conversation in list(self._conversations):
            conversation.ask_again()

    def empty(self) -> Deferred[None]:
        """Fires once nobody is connected."""
        emptied = self._emptied.wait()
        self._tell_if_empty()
        return emptied

    def gone(self, conversation: Conversation) -> None:
        """A conversation is over."""
        self._conversations.discard(conversation)
        self._tell_if_empty()

    def _tell_if_empty(self) -> None:
        if not self._conversations:
            self._emptied.go_on()

    async def answer(self, question: dict[str, Any], conversation: Conversation) -> dict[str, Any]:
        """The last line of the answer to one question."""
        if question["hook"] == "status":
            return await answers.status(self.ship, self.loop, self.deploys)
        if question["hook"] == "history":
            return await answers.history(self.ship.ledger, question["words"])
        if question["hook"] == "journal":
            await self.ship.journal.settle()
            return {"ship": self.ship.settings.ship_name}
        if question["hook"] == "version":
            return self.version()
        try:
            moved = await self._do(question, conversation)
        except HandedOver:
            return {"again": conversation.again}
        except KNOWN as error:
            reason = clean(f"{error}{self._full()}")[:LONGEST]
            conversation.explain(error, reason)
            return {"verdict": reason}
        except (CancelledError, Left):
            raise
        except Exception:
            self.log.failure("{hook} failed", hook=question["hook"])
            own = "the ship made an error of its own; its log says which"
            return {"verdict": f"{own}{self._full()}"}
        return {"verdict": "", "moved": moved}

    async def _do(self, question: dict[str, Any], conversation: Conversation) -> bool:
        """Whether the branches of a push were moved; if not, git is to do it."""
        hook = question["hook"]
        if hook == "beside":
            await self._beside(question["words"], conversation)
            return True
        if hook == "cancel":
            said = await self.commands.cancel(question["words"], question["asker"])
            Say(conversation.say).plain(said)
            return True
        if hook == "open":
            conversation.tell(await self.commands.open(question["words"], question["asker"]))
            return True
        if hook == "command":
            await self.commands.do(question["words"], conversation.say)
            return True
        if hook == "handover":
            interpreter, given = Path(question["interpreter"]), question["given"]
            await self.relief.ask(interpreter, given, Say(conversation.say))
            return True
        if hook == "hq-wait":
            await self._wait(question["options"][0], conversation)
            return True
        if hook == "pre-receive":
            self.ship.layout.require_room(self.ship.settings.free_disk)
        if question["repository"] == HEADQUARTERS:
            return await self._headquarters(question, conversation)
        if attached := question.get("attached"):
            await self._go_on(attached, conversation)
            return bool(attached["moved"])
        push = self._push(question)
        return hook == "proc-receive" and await self._deploy(push, conversation)

    async def _beside(self, words: Sequence[str], conversation: Conversation) -> None:
        """Tell where a command runs beside a service, visited until whoever asked leaves."""
        async with self.commands.beside(words) as answer:
            conversation.tell(answer)
            await conversation.unless_left(Deferred())

    async def _headquarters(self, question: dict[str, Any], conversation: Conversation) -> bool:
        updates = [(old, new, ref) for old, new, ref in question["updates"]]
        if {"private", "public"} & set(question["options"]):
            raise Refused("-o private and -o public are for services, not for the headquarters")
        say = Say(conversation.say)
        if question["hook"] == "pre-receive":
            await self.hosting.examine(updates, question["quarantine"], say)
            return False
        changed = await self.hosting.accept(updates, say)
        conversation.again = {"hook": "hq-wait", "options": [self.loop.commit]}
        await self._settled(changed, conversation)
        verdict(self.loop.commit, changed)
        return True

    async def _wait(self, commit: str, conversation: Conversation) -> None:
        """Until the headquarters at `commit` (or a later one) is live; `DeployFailed` why not."""
        arrival: Deferred[None] = Deferred.fromCoroutine(self.loop.reach(commit))
        await conversation.unless_left(arrival)
        everything = list(self.loop.bringing.ordered.values())
        await self._settled(self.loop.bringing.unsettled, conversation)
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
            private=await self.ship.ledger.is_private(push.service),
        )
        if push.private is not None:
            await self.ship.ledger.keep_private(push.service, push.private)
        for warning in orders.warnings:
            say.header(warning)
        arrival = self.deploys.join(orders, conversation.say)
        try:
            serving = await conversation.unless_left(arrival)
            if serving.front != orders.front:  # it joined one for somebody else's eyes
                arrival = self.deploys.join(orders, conversation.say)
                serving = await conversation.unless_left(arrival)
        finally:
            self.deploys.leave(orders, conversation.say)
        moved = await self.ship.settle(push)  # a push that joined has a branch of its own
        if push.attach:
            say.header(f"Following the log; Ctrl-C takes {serving.service} down")
            attached = {"service": serving.service, "after": 0, "moved": moved}
            await self._attach(serving, {**attached, "container": serving.container}, conversation)
        return moved

    async def _go_on(self, attached: dict[str, Any], conversation: Conversation) -> None:
        """Follow a log that another process of the ship followed until now."""
        serving = await self.ship.serving(attached["service"])
        if serving is not None and serving.container == attached["container"]:
            await self._attach(serving, attached, conversation)

    async def _attach(
        self, serving: Serving, attached: dict[str, Any], conversation: Conversation
    ) -> None:
        """Follow the service's log until the pusher leaves; the service goes with the pusher."""
        say = Say(conversation.say)
        conversation.again = {"attached": attached}

        def handed(upto: int) -> None:
            attached["after"] = upto

        following = follow(
            self.ship.reactor,
            self.ship.journal,
            serving.service,
            serving.container,
            say.output,
            lambda: self._serves(serving),
            attached["after"],
            handed,
        )
        try:
            await conversation.unless_left(Deferred.fromCoroutine(following))
        except Left:
            if await self._serves(serving):
                await self.ship.services.take_down(serving)
                self.log.info("{service} went with its pusher", service=serving.service)
            raise
        say.header(f"{serving.service} no longer serves {serving.release.commit[:7]}")

    async def _serves(self, serving: Serving) -> bool:
        now = await self.ship.serving(serving.service)
        return now is not None and now.release == serving.release
