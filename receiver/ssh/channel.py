"""The session channel: one command, shell or text joined to one client, and nothing else.

What an account that is not `whole` may ask for is a command, and a well-formed GIT_PROTOCOL for it.
"""

# Conch is mostly without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import re
import signal
import struct
from typing import TYPE_CHECKING

from attrs import evolve
from twisted.conch.ssh.common import getNS
from twisted.internet.error import ProcessTerminated
from twisted.logger import Logger
from twisted.python.failure import Failure

from receiver.ssh.child import SIGNALS, Child, farewell
from receiver.ssh.flow import PACKET, WINDOW, Channel, Ends, Step
from receiver.ssh.interface import Account, Command, Entry, Login, Request, Words
from receiver.ssh.pipes import Inlet, Outlet
from receiver.ssh.terminal import Size, Terminal, Wanted, read_size, read_wanted

if TYPE_CHECKING:
    from receiver.ssh.connection import Connection

__all__ = ["PACKET", "WINDOW", "Session"]

LONGEST_COMMAND = 16 * 1024  # bytes
VARIABLES = 20  # that a client may set

_GIT_PROTOCOL = re.compile(rb"version=[012](:[a-z0-9=:.-]+)?")
_LOCALE = re.compile(rb"LANG|LC_[A-Z]{1,20}")
_LOCALE_VALUE = re.compile(rb"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")
_INTERNAL_ERROR = Words("internal error\n", 1)


def git_protocol(name: bytes, value: bytes) -> str | None:
    """The value, if this is the one variable that git's clients may set, and well-formed."""
    if name != b"GIT_PROTOCOL" or len(value) > 256 or not _GIT_PROTOCOL.fullmatch(value):
        return None
    return value.decode("ascii")


def locale(name: bytes, value: bytes) -> str | None:
    """The value, if this is one of the locale's variables, and names no path."""
    if not _LOCALE.fullmatch(name) or not _LOCALE_VALUE.fullmatch(value):
        return None
    return value.decode("ascii")


class Session(Channel):
    """A session channel of the connection `conn`, for `login`, as `account` has them."""

    name = b"session"
    _log = Logger()

    def __init__(
        self, conn: Connection, login: Login, account: Account, *, window: int, packet: int
    ) -> None:
        super().__init__(conn, window=window, packet=packet)
        reactor = conn.reactor
        self._login = login
        self._account = account
        self._request = Request(None)
        self._wanted: Wanted | None = None
        self._terminal: Terminal | None = None
        self._began: float | None = None
        self._inlet = Inlet(reactor, self.drained)
        self._out = Outlet(reactor, self.pump)
        self._err = Outlet(reactor, self.pump)
        self.ends = Ends(self._inlet, self._out, self._err)
        self._child = Child(reactor, self._child_ended)
        self._farewell: tuple[bytes, bytes] | None = None
        self._ended = "the client left"

    # What the client asks for

    def requested(self, kind: bytes, data: bytes) -> Step | None:
        if kind == b"env":
            name, value, _ = getNS(data, 2)
            return self._accept_env(name, value)
        if kind in (b"exec", b"shell"):
            return self._beginning(getNS(data)[0] if kind == b"exec" else None, subsystem=False)
        if not self._account.whole:
            return None
        if kind == b"subsystem":
            return self._beginning(getNS(data)[0], subsystem=True)
        if kind == b"pty-req":
            return self._want(read_wanted(data))
        if kind == b"window-change":
            return self._resizing(read_size(data))
        if kind == b"signal":
            return self._signalling(getNS(data)[0].decode("ascii", "replace"))
        if kind == b"auth-agent-req@openssh.com":
            return self.conn.forwarding.forward_agent if self._began is None else None
        return None

    def _beginning(self, command: bytes | None, *, subsystem: bool) -> Step | None:
        if self._began is not None:
            return None
        self._began = self.conn.reactor.seconds()
        return lambda: self._begin(command, subsystem=subsystem)

    def _accept_env(self, name: bytes, value: bytes) -> Step | None:
        accepted = locale(name, value) if self._account.whole else git_protocol(name, value)
        env = self._request.env
        if accepted is None or self._began is not None or len(env) >= VARIABLES:
            return None
        asked = evolve(self._request, env={**env, name.decode("ascii"): accepted})

        def keep() -> None:
            self._request = asked

        return keep

    def _want(self, wanted: Wanted) -> Step | None:
        if self._began is not None or self._wanted is not None:
            return None

        def keep() -> None:
            self._wanted = wanted
            self._request = evolve(self._request, term=wanted.term)

        return keep

    def _resizing(self, size: Size) -> Step | None:
        terminal = self._terminal
        return None if terminal is None else lambda: terminal.resize(size)

    def _signalling(self, name: str) -> Step | None:
        if name not in SIGNALS or self._farewell is not None:
            return None
        return lambda: self._signal(signal.Signals[f"SIG{name}"])

    def _signal(self, number: signal.Signals) -> None:
        if self._terminal is None or not self._terminal.signal(number):
            self._child.signal(number)

    # The command

    def _begin(self, command: bytes | None, *, subsystem: bool) -> None:
        try:
            self._join(self._decide(command, subsystem=subsystem))
        except Exception:
            self._log.failure("room {account} failed", account=self._login.account)
            self._join(_INTERNAL_ERROR)

    def _decide(self, command: bytes | None, *, subsystem: bool) -> Command | Words:
        if command is None:
            return self._account.room(self._login, self._request)
        if len(command) > LONGEST_COMMAND:
            return Words(f"a command is at most {LONGEST_COMMAND} bytes long\n")
        try:
            text = command.decode()
        except UnicodeDecodeError:
            return Words("a command must be UTF-8\n")
        if "\0" in text:
            return Words("a command must be free of NUL\n")
        self._request = evolve(self._request, command=text, subsystem=subsystem)
        return self._account.room(self._login, self._request)

    def _join(self, found: Command | Words) -> None:
        if isinstance(found, Words):
            self._inlet.close()
            self._err.pending = memoryview(found.text.encode())
            self._part(b"exit-status", struct.pack(">L", found.status), f"exit {found.status}")
        elif self._wanted is not None:
            self._spawn_at(self._wanted, found)
        else:
            found = self.conn.forwarding.with_agent(found)
            self._child.spawn(self.conn.reactor, found, self._inlet, (self._out, self._err))
        self.pump()

    def _spawn_at(self, wanted: Wanted, found: Command) -> None:
        found = self.conn.forwarding.with_agent(found)
        self._terminal = terminal = Terminal.open(wanted, found.uid)
        found = evolve(found, env={**found.env, "SSH_TTY": terminal.name})
        self._child.spawn_at(self.conn.reactor, found, terminal, self._inlet, self._out)

    def eofReceived(self) -> None:
        if self._terminal is None:
            self._inlet.end()
        elif self._farewell is None:
            self._inlet.feed(memoryview(self._terminal.end_of_file))
            self._inlet.flush()

    def _child_ended(self, reason: Failure) -> None:
        if self._terminal is not None:
            self._out.drain()
        self._part(*farewell(reason), _how(reason))
        self.pump()

    def _part(self, request: bytes, payload: bytes, how: str) -> None:
        self._farewell = request, payload
        self._ended = how

    # The end

    def finish(self) -> None:
        if self._farewell is not None and self.sent:
            self._over = True
            self._inlet.close()
            # The status goes first: a client that sees EOF or CLOSE before it reports failure.
            self.conn.sendRequest(self, *self._farewell)
            self.conn.sendEOF(self)
            self.conn.sendClose(self)

    def closed(self) -> None:
        finished = self._farewell is not None and self.sent
        super().closed()
        if self._terminal is not None:
            self._terminal.close()
        if not finished:
            self._child.hang_up()
        if self._began is not None:
            self._record(self._began)

    def _record(self, began: float) -> None:
        asked = self._request
        did = asked.command or "a shell"
        self.conn.record(
            Entry(
                self._login,
                f"subsystem {did}" if asked.subsystem else did,
                self._ended,
                began,
                self.conn.reactor.seconds() - began,
            )
        )


def _how(reason: Failure) -> str:
    """How a process ended, in words."""
    error = reason.value
    if isinstance(error, ProcessTerminated) and error.signal is not None:
        return f"signal {error.signal}"
    return f"exit {getattr(error, 'exitCode', None) or 0}"
