"""The process that a session is joined to."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
from collections.abc import Callable, Sequence

from twisted.conch.ssh.common import NS
from twisted.internet.error import ProcessTerminated
from twisted.internet.interfaces import IDelayedCall, IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from receiver.ssh.interface import Command
from receiver.ssh.pipes import Inlet, Outlet
from receiver.ssh.terminal import Terminal

GRACE = 5.0  # seconds between SIGHUP and SIGKILL for a child whose client is gone

# Those that RFC 4254 names.
SIGNALS = frozenset(
    ["ABRT", "ALRM", "FPE", "HUP", "ILL", "INT", "KILL", "PIPE", "QUIT", "SEGV", "TERM"]
).union(["USR1", "USR2"])


def wrapped(command: Command, *, terminal: bool = False) -> tuple[str, ...]:
    """The argv that runs `command` in its directory, as leader of a session of its own, whose
    controlling terminal is its stdin if that is one.

    By way of env and setsid because a plain spawn is a vfork: a fork of this process to do the
    same costs several milliseconds a push.
    """
    at = ("--ctty",) if terminal else ()
    return ("/usr/bin/env", "-C", str(command.cwd), "/usr/bin/setsid", *at, "--", *command.argv)


def farewell(reason: Failure) -> tuple[bytes, bytes]:
    """Name and payload of the channel request that says how a process ended (RFC 4254, 6.10)."""
    error = reason.value
    if not isinstance(error, ProcessTerminated) or error.signal is None:
        return b"exit-status", struct.pack(">L", getattr(error, "exitCode", None) or 0)
    try:
        name = signal.Signals(error.signal).name.removeprefix("SIG")
    except ValueError:
        name = str(error.signal)
    if name not in SIGNALS:
        name += "@linux"
    dumped = os.WCOREDUMP(error.status)
    return b"exit-signal", NS(name.encode()) + bytes((dumped,)) + NS(b"") + NS(b"")


class Child(ProcessProtocol):
    """One process in a group of its own. `ended` is called once, when it was reaped."""

    def __init__(self, reactor: IReactorTime, ended: Callable[[Failure], None]) -> None:
        self._reactor = reactor
        self._ended = ended
        self._pid = 0
        self._spared = False
        self._reaped = False
        self._kill: IDelayedCall | None = None

    def spawn(
        self, spawner: IReactorProcess, command: Command, stdin: Inlet, outputs: tuple[Outlet, ...]
    ) -> None:
        """Start it, joined to the pipe ends given, which a failure closes. Raises `OSError`.

        They are opened first: a quick child has ended before `spawnProcess` returns.
        """
        theirs: list[int] = []
        ends: tuple[Inlet | Outlet, ...] = (stdin, *outputs)
        try:
            for number, end in enumerate(ends):
                read, write = os.pipe()
                theirs.append(write if number else read)
                end.open(read if number else write)
            self._spawn(spawner, command, wrapped(command), theirs)
        except BaseException:
            for end in ends:
                end.close()
            raise
        finally:
            for fd in theirs:
                os.close(fd)

    def spawn_at(
        self,
        spawner: IReactorProcess,
        command: Command,
        terminal: Terminal,
        stdin: Inlet,
        output: Outlet,
    ) -> None:
        """As `spawn`, at a terminal, of which the ends are copies."""
        try:
            stdin.open(os.dup(terminal.ours))
            output.open(os.dup(terminal.ours))
            self._spawn(spawner, command, wrapped(command, terminal=True), [terminal.theirs] * 3)
        except BaseException:
            for end in (stdin, output, terminal):
                end.close()
            raise
        finally:
            os.close(terminal.theirs)

    def _spawn(
        self, spawner: IReactorProcess, command: Command, argv: Sequence[str], fds: Sequence[int]
    ) -> None:
        process = spawner.spawnProcess(
            self, argv[0], argv, dict(command.env), childFDs=dict(enumerate(fds))
        )
        self._spared = command.spared
        self._pid = process.pid or 0

    def processEnded(self, reason: Failure) -> None:
        self._reaped = True
        if self._kill is not None and not self._signal(0):
            self._kill.cancel()
            self._kill = None
        self._ended(reason)

    def hang_up(self) -> None:
        """The client is gone: SIGHUP to the group, SIGKILL to what is left of it after `GRACE`,
        unless it is spared."""
        if not self._pid or self._kill is not None or not self._signal(signal.SIGHUP):
            return
        if not self._spared:
            self._kill = self._reactor.callLater(GRACE, self._kill_group)

    def signal(self, number: signal.Signals) -> None:
        """To its process group."""
        if self._pid:
            self._signal(number)

    def _kill_group(self) -> None:
        self._kill = None
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> bool:
        """Whether there was a process left to signal.

        The group's number is not given out again while a process of it lives, the leader's not
        before it is reaped.
        """
        try:
            os.killpg(self._pid, number)
        except PermissionError:  # all of it runs as somebody else by now
            return True
        except ProcessLookupError:
            pass
        else:
            return True
        if self._reaped:
            return False
        with contextlib.suppress(ProcessLookupError):  # it has not come as far as setsid
            os.kill(self._pid, number)
        return True
