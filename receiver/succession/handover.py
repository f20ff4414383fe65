"""One process of the ship takes over from another: the words between the two, and what each does.

The one that was there starts the next, which says `ready` when it could begin; is told `yours`,
with the open sockets; says `up`; and is told `keep`, or `back` when it is not as it should be.
Whoever is left alone in between goes on: a next one whose predecessor dies is the ship.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, TimeoutError

from containers.spawn import Child, in_memory, launch
from containers.watching import readable
from hooks.errors import ShipError
from hooks.say import clean

READY_SECONDS = 60.0
UP_SECONDS = 120.0  # for adopting what serves
BACK_SECONDS = 30.0
_MOST = 1 << 16  # bytes of one message
_MOST_FDS = 64
_LONGEST = 300  # characters of a reason
_END = "end"


class Gone(Exception):
    """The other process has ended."""


@define(eq=False)
class Channel:
    """Messages, each a word, some names, and a descriptor for each name if it comes with them."""

    _reactor: Any
    _socket: socket.socket

    def tell(self, word: str, names: Sequence[str] = (), descriptors: Sequence[int] = ()) -> None:
        """Raises `Gone`."""
        message = json.dumps([word, list(names)]).encode()
        try:
            socket.send_fds(self._socket, [message], list(descriptors))
        except OSError as error:
            raise Gone from error

    async def hear(self) -> tuple[str, list[str], list[int]]:
        """The next message. Raises `Gone`."""
        await readable(self._reactor, self._socket.fileno())
        try:
            message, descriptors, _, _ = socket.recv_fds(self._socket, _MOST, _MOST_FDS)
        except OSError as error:
            raise Gone from error
        if not message:
            raise Gone
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        word, names = json.loads(message)
        return word, names, descriptors


@define(eq=False)
class Successor:
    """The next process of the ship, as the one sees it that started it.

    `settled` fires when it is the ship for good, and fails with why it is not. `before` is what
    services answered until it began, by URL. `stopped`: it was the ship, and was told to end.
    """

    reactor: Any
    channel: Channel
    child: Child
    _reaped: Deferred[None]
    _errors: int
    names: list[str] = field(factory=list)
    before: Mapping[str, str] = field(factory=dict)
    failure: str = ""
    stopped: bool = False
    settled: Deferred[None] = field(factory=Deferred)

    @classmethod
    def begin(cls, reactor: Any, interpreter: Path, env: Mapping[str, str]) -> Successor:
        """Start it. It says what goes wrong into memory until it is kept. Raises
        `ContainerError`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        errors = in_memory(b"")
        with theirs:
            argv = [interpreter, "-I", "-m", "receiver.cli", "ship", "--after", theirs.fileno()]
            child = launch(
                reactor,
                [str(word) for word in argv],
                env=env,
                stdout=1,
                stderr=errors,
                inherit=[theirs.fileno()],
            )
        child.spares = True
        reaped = Deferred.fromCoroutine(child.close())
        return cls(reactor, Channel(reactor, ours), child, reaped, errors)

    async def ready(self) -> None:
        """Wait until it could begin; `ShipError` says why it does not."""
        await self._says("ready", READY_SECONDS)

    async def up(self, names: Sequence[str], descriptors: Sequence[int]) -> None:
        """Let it be the ship, with these sockets, and wait until it is; then `names` says where its
        doors are. `ShipError` says why it is not."""
        with suppress(Gone):  # why is heard next
            self.channel.tell("yours", names, descriptors)
        self.names = await self._says("up", UP_SECONDS)

    def keep(self) -> None:
        """It is the ship from now on."""
        with suppress(Gone):
            self.channel.tell("keep")

    async def back(self) -> None:
        """It is the ship no more; return when it has let go of everything. It lives on for the
        sessions that it has by now; one that does not let go is killed."""
        with suppress(Gone):
            self.channel.tell("back")
        try:
            await self._says("aside", BACK_SECONDS)
        except ShipError:
            self.child.signal_group(signal.SIGKILL)
            await self.child.ended()
        os.close(self._errors)

    def stop(self, going_on: bool) -> None:
        """Pass on what was meant for the ship; what it serves goes on or ends."""
        self.child.signal_group(signal.SIGHUP if going_on else signal.SIGTERM)

    async def told_to_end(self) -> None:
        """Wait until it is stopped, and we are to stop with it; not when it just ends."""
        try:
            while (await self.channel.hear())[0] != _END:
                pass
        except Gone:
            await Deferred()

    def reason(self) -> str:
        """The last line of what it said when something went wrong."""
        size = os.lseek(self._errors, 0, os.SEEK_END)
        said = os.pread(self._errors, size, 0).decode("utf-8", "replace")
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        return clean(lines[-1].removeprefix("starphleet: "))[:_LONGEST] if lines else ""

    async def _says(self, awaited: str, seconds: float) -> list[str]:
        """The names that come with the word `awaited`; others are passed over, an `up` that comes
        too late. `ShipError` when it does not come."""
        hearing = Deferred.fromCoroutine(self._heard(awaited))
        try:
            return await hearing.addTimeout(seconds, self.reactor)
        except TimeoutError:
            raise ShipError(f"the new one was not {awaited} within {seconds:g} s") from None
        except Gone:
            await self.child.ended()
            raise ShipError(self.reason() or "the new one ended without a word") from None

    async def _heard(self, awaited: str) -> list[str]:
        while True:
            word, names, _ = await self.channel.hear()
            self.stopped = self.stopped or word == _END
            if word == awaited:
                return names


@define(eq=False)
class Predecessor:
    """The process that was the ship before, as the one sees it that it started."""

    channel: Channel

    @classmethod
    def at(cls, reactor: Any, descriptor: int) -> Predecessor:
        return cls(Channel(reactor, socket.socket(fileno=descriptor)))

    async def doors(self) -> tuple[list[str], list[int]]:
        """Say that we could begin, and wait for our turn: the sockets. Raises `Gone` when it does
        not come."""
        self.channel.tell("ready")
        word, names, descriptors = await self.channel.hear()
        if word != "yours":
            raise Gone
        return names, descriptors

    def up(self, names: Sequence[str]) -> None:
        """Say that we are the ship, with doors at these."""
        with suppress(Gone):
            self.channel.tell("up", names)

    async def keeps(self) -> bool:
        """Whether we are to go on as the ship."""
        try:
            word, _, _ = await self.channel.hear()
        except Gone:
            return True
        return word == "keep"

    async def gone(self) -> None:
        """Wait until it has ended, with all sessions that were opened there."""
        with suppress(Gone):
            while True:
                await self.channel.hear()

    def aside(self) -> None:
        """Say that we have let go of everything."""
        with suppress(Gone):
            self.channel.tell("aside")

    def end(self) -> None:
        """The ship is stopped: sessions that are open there end too."""
        with suppress(Gone):
            self.channel.tell(_END)
