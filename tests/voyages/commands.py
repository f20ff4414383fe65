"""`starphleet` commands, the ship's own among them: each is a process of its own, forked from one
which has imported all of it, for that takes longer than most of what they do.

Executed, this is that process: it takes commands from its standard input, a socket.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define

from tests.receiver.ssh_ship import at_home_in

ROOT = Path(__file__).parents[2]
MOST = 1 << 17  # bytes of one command with its environment


@define
class Running:
    """A command, much as `subprocess.Popen` has it."""

    argv: Sequence[str]
    pid: int
    _told: socket.socket  # its status, once it has ended
    _status: int | None = None

    def wait(self, seconds: float | None = None) -> int:
        """The status with which it ends; negative: the signal that ended it."""
        if self._status is None:
            self._told.settimeout(seconds)
            try:
                self._status = int(self._told.recv(16))
            except TimeoutError:
                raise subprocess.TimeoutExpired(list(self.argv), seconds or 0) from None
            self._told.close()
        return self._status

    def poll(self) -> int | None:
        """As `wait`; None while it runs."""
        try:
            return self.wait(1e-6)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(argv: Sequence[str], env: Mapping[str, str], seconds: float) -> tuple[int, str]:
    """`starphleet ARGV` to its end: its status, and what it printed."""
    with tempfile.TemporaryFile() as printed:
        running = begin(argv, env, printed.fileno())
        try:
            status = running.wait(seconds)
        finally:
            running.kill()
        printed.seek(0)
        return status, printed.read().decode("utf-8", "replace")


def begin(argv: Sequence[str], env: Mapping[str, str], output: int) -> Running:
    """`starphleet ARGV` in a session of its own, in the work tree, with exactly this environment;
    it prints to the descriptor `output`."""
    asked = json.dumps({"argv": list(argv), "env": dict(env)}).encode()
    told, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        socket.send_fds(_server()[0], [asked], [its.fileno(), output])
    return Running(argv, int(told.recv(16)), told)


@functools.cache
def _server() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Where to ask. It ends with this process, which alone holds the other end."""
    asking, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    argv = [sys.executable, "-m", "tests.voyages.commands"]
    with its:
        return asking, subprocess.Popen(argv, cwd=ROOT, stdin=its.fileno(), start_new_session=True)


def _serve(asking: socket.socket) -> None:
    from receiver import cli

    for slow in ("receiver.daemon", "receiver.keyring"):
        importlib.import_module(slow)  # once, instead of in each fork
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        asked, fds, _, _ = socket.recv_fds(asking, MOST, 2)
        if not asked:
            return
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _tell(cli.main, json.loads(asked), *fds)
        for fd in fds:
            os.close(fd)


def _tell(main: Any, asked: dict[str, Any], to: int, output: int) -> None:
    """Run the command in one more process, and tell its pid and then how it ended: it may execute
    something else, or be killed."""
    pid = os.fork()
    if pid == 0:
        os.close(to)
        os._exit(_command(main, asked, output))
    os.write(to, b"%d" % pid)
    _, status = os.waitpid(pid, 0)
    os.write(to, b"%d" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _command(main: Any, asked: dict[str, Any], output: int) -> int:
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for fd, number in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(fd, number)
    os.environ.clear()
    os.environ.update(asked["env"])
    _reactor_anew()
    at_home_in(Path(asked["env"]["STARPHLEET_ROOT"]).parent)
    status = 1
    try:
        status = main(asked["argv"])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 2
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _reactor_anew() -> None:
    """Conch makes one when it is imported; what that has open is shared by all forks."""
    from twisted.internet import reactor

    made: Any = reactor
    type(made).__init__(made)


if __name__ == "__main__":
    with socket.socket(fileno=0) as asking:
        _serve(asking)
