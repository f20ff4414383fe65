"""A command beside a service, joined to the input, output and terminal of this very process."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from shlex import quote
from typing import Any

import psutil

PASSED_ON = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)
SOME = 1 << 16  # bytes read at once
_BEGIN = ("/bin/sh", "-c", '. "$1" && shift && exec "$@"', "sh")
# Its own session: a terminal is typed into by what runs in one that it leads.
_OWN_TERMINAL = ("setsid", "--ctty", "--wait")
_WAITING = ("bwrap", "lxc-attach")  # wait for the command, and are not to end before it


def run(place: Mapping[str, Any], words: Sequence[str], terminal: str) -> int:
    """Run `words` at `place`, an answer of the ship's, and wait; the exit status of a shell.

    `terminal` is its kind, for TERM. Without one at both ends, the command has pipes.
    """
    has_terminal = os.isatty(0) and os.isatty(1)
    relayed = has_terminal and not place["terminal"]
    script = (
        f"{place['script']}export TERM={quote(terminal)}\n" if has_terminal else place["script"]
    )
    told = _in_memory(os.fsencode(script))
    begin = [*_BEGIN, f"/proc/self/fd/{told}", *(_OWN_TERMINAL if relayed else ())]
    argv, env = [*place["argv"], *begin, *place["begin"], *words], dict(place["marks"])
    sys.stdout.flush()
    if relayed:
        return _on_terminal(argv, env)
    # Without a session of its own, it could type into the terminal of whoever started it.
    with _passing_on(lambda: _spawn(argv, env, own_session=not has_terminal)) as child:
        return _status(child)


def _in_memory(data: bytes) -> int:
    """A descriptor that whatever is executed can read `data` from."""
    fd = os.memfd_create("given", 0)
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _spawn(
    argv: Sequence[str], env: Mapping[str, str], *, own_session: bool, terminal: int | None = None
) -> int:
    """The process id. `terminal` is to be its input and output, if it is not ours."""
    own = [(os.POSIX_SPAWN_DUP2, terminal, fd) for fd in (0, 1, 2) if terminal is not None]
    ignored = [signal.SIGPIPE, signal.SIGXFSZ]  # by Python, and by nobody else
    return os.posix_spawn(
        argv[0], list(argv), env, file_actions=own, setsid=own_session, setsigdef=ignored,
        setsigmask=(),
    )  # fmt: skip


def _on_terminal(argv: Sequence[str], env: Mapping[str, str]) -> int:
    master, slave = os.openpty()
    _same_size(master)
    was = termios.tcgetattr(0)
    with _passing_on(lambda: _spawn(argv, env, own_session=True, terminal=slave)) as child:
        os.close(slave)
        signal.signal(signal.SIGWINCH, lambda *_: _same_size(master))
        try:
            tty.setraw(0, termios.TCSADRAIN)  # what was typed already is not lost
            _relay(master, os.pidfd_open(child))
            os.close(master)  # who is still there hears that it is gone
            return _status(child)
        finally:
            termios.tcsetattr(0, termios.TCSADRAIN, was)


def _relay(master: int, ended: int) -> None:
    """What is typed goes in and what is said comes out, until the child ended and all is said. What
    the command does not read yet waits here, and holds up nothing that it says."""
    os.set_blocking(master, False)
    reading, typed = [0, master, ended], b""
    while True:
        heard = [fd for fd in reading if fd != 0 or not typed]
        ready, free, _ = select.select(heard, [master] if typed else [], [])
        if 0 in ready and not (typed := _read(0)):
            reading.remove(0)
        if free:
            typed = typed[_typed(master, typed) :]
        if master in ready:
            if not _pass(master, 1):
                return
        elif ended in ready:
            return


def _read(source: int) -> bytes:
    """Nothing at its end."""
    try:
        return os.read(source, SOME)
    except OSError:  # a terminal that nobody has open any more
        return b""


def _typed(master: int, data: bytes) -> int:
    """How much of it nobody has to type any more."""
    try:
        return os.write(master, data)
    except BlockingIOError:
        return 0
    except OSError:  # nobody is there to read it
        return len(data)


def _pass(source: int, target: int) -> bool:
    """Whether there is more to come."""
    data = rest = _read(source)
    with suppress(OSError):
        while rest:
            rest = rest[os.write(target, rest) :]
    return bool(data) and not rest


def _same_size(master: int) -> None:
    """The window is as large as ours."""
    with suppress(OSError):
        size = fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8)
        fcntl.ioctl(master, termios.TIOCSWINSZ, size)


@contextmanager
def _passing_on(spawn: Callable[[], int]) -> Iterator[int]:
    """Spawn a command, with no signal blocked. Those that would end this process go to it instead,
    from its first moment on: else it would be left behind, and nobody would end it."""

    def pass_on(number: int, _: object) -> None:
        for one in _meant(child):
            with suppress(psutil.Error):
                one.send_signal(number)

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    try:
        child = spawn()
        before = {number: signal.signal(number, pass_on) for number in PASSED_ON}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        yield child
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _meant(child: int) -> list[psutil.Process]:
    """The processes of the command."""
    with suppress(psutil.Error):
        spawned = psutil.Process(child)
        below = spawned.children(recursive=True)
        waits = below and spawned.name() in _WAITING
        return below if waits else [spawned, *below]
    return []


def _status(child: int) -> int:
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
