"""ssh connections that are kept: the questions to one host share one login.

A login costs ten times what a question costs. ssh itself shares its connections (ssh_config(5),
ControlMaster); the process that holds one is a child of the ship, and ends with it.
"""

from __future__ import annotations

import os
import signal
from hashlib import sha256
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from containers.interface import ContainerError
from containers.spawn import Child, launch
from hooks.layout import Layout
from receiver.headquarters.ssh import Login, deploy_keys, options, parted

IDLE = 90.0  # seconds that a connection is kept without a question: longer than most pulses
AGAIN = 60.0  # seconds from the end of a connection to the next one there
GRACE = 2.0  # seconds that a connection gets to end
_SOCKET = 107 - 17  # bytes of a path that ssh can make a socket at: it binds one with a suffix
_WITH_THE_SHIP = ("setpriv", "--pdeathsig", "TERM")

_log = Logger()


@define(eq=False)
class _Kept:
    child: Child
    asked: float  # when it was last of use
    watching: Deferred[None] | None = None


@define(eq=False)
class Connections:
    """One for each login that is asked for, begun after the first answer. `path` is `PATH`."""

    reactor: Any
    layout: Layout
    path: str
    _kept: dict[str, _Kept] = field(factory=dict, init=False)
    _not_before: dict[str, float] = field(factory=dict, init=False)

    def options(self, url: str) -> list[str]:
        """ssh's options for a question to `url`: the connection that is kept, once it is there."""
        self._end_idle()
        if (found := parted(url)) is None:
            return []
        kept = self._kept.get(name := self._name(found[0]))
        socket = self.layout.connections / name
        if kept is None or not socket.exists():
            return []
        kept.asked = self.reactor.seconds()
        return ["-S", str(socket)]

    def keep(self, url: str) -> None:
        """A question to `url` was answered, so those to come may share a connection."""
        if (found := parted(url)) is None:
            return
        name = self._name(login := found[0])
        socket = self.layout.connections / name
        early = self.reactor.seconds() < self._not_before.get(name, 0.0)
        if name not in self._kept and not early and len(os.fsencode(socket)) <= _SOCKET:
            self._begin(name, socket, login)

    async def close(self) -> None:
        """End every connection."""
        for kept in list(self._kept.values()):
            await kept.child.put_down(GRACE)
            if kept.watching is not None:
                await kept.watching

    def _name(self, login: Login) -> str:
        """Another one when the ship has got other keys."""
        keys = [f"{key} {key.stat().st_mtime_ns}" for key in deploy_keys(self.layout.private_keys)]
        return sha256("\n".join([*login.argv, *keys]).encode()).hexdigest()[:16]

    def _begin(self, name: str, socket: Path, login: Login) -> None:
        socket.unlink(missing_ok=True)
        hold = ["-N", "-T", "-M", "-S", str(socket)]
        argv = [*_WITH_THE_SHIP, "ssh", *options(self.layout, login), *hold, *login.argv]
        try:
            child = launch(self.reactor, argv, env={"PATH": self.path, "HOME": "/nonexistent"})
        except ContainerError as error:
            _log.warn("no connection is kept: {error}", error=error)
            self._not_before[name] = self.reactor.seconds() + AGAIN
            return
        kept = self._kept[name] = _Kept(child, self.reactor.seconds())
        kept.watching = Deferred.fromCoroutine(self._watch(name, kept))

    async def _watch(self, name: str, kept: _Kept) -> None:
        await kept.child.ended()
        del self._kept[name]
        self._not_before[name] = self.reactor.seconds() + AGAIN
        await kept.child.close()

    def _end_idle(self) -> None:
        for kept in self._kept.values():
            if self.reactor.seconds() - kept.asked > IDLE:
                kept.child.signal_group(signal.SIGTERM)
