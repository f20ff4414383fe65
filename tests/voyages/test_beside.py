"""Commands beside what serves, on pipes and on a terminal; deploys that somebody ends."""

from __future__ import annotations

import json
import os
import pty
import pwd
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.voyages.apps import slow_build, web
from tests.voyages.harbour import ROOT, Harbour, until
from tests.voyages.test_admiral import Crew

RUN = [sys.executable, "-m", "receiver.cli"]
PROFILE = "export FROM_PROFILE=yes\n"


@pytest.fixture(scope="module")
def ship(port_of_call: Harbour) -> Harbour:
    """A ship that serves two apps, and does not wait long for those who are still there."""
    port_of_call.settings["STARPHLEET_DRAINSTOP_WAIT"] = "1"
    for name in ("shore", "shoal"):
        files = {**web(name, SECRET="it's $HOME"), ".profile.d/own.sh": PROFILE}
        port_of_call.app(files, name).push(name)
    return port_of_call


def starphleet(
    ship: Harbour, *words: str, given: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """A command with pipes of its own."""
    return subprocess.run(
        [*RUN, *words], cwd=ROOT, env=ship.env, input=given, capture_output=True, timeout=60
    )


class Terminal:
    """What somebody sees and types who has started a command on a terminal."""

    def __init__(self, ship: Harbour, *argv: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            os.execvpe(argv[0], argv, {**ship.env, "TERM": "xterm"})
        self.seen = ""

    def until(self, text: str) -> str:
        """Read on until `text` was seen; what was seen by then."""
        end = time.monotonic() + 60
        while text not in self.seen:
            assert select.select([self.fd], [], [], end - time.monotonic())[0], self.seen
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                raise AssertionError(f"{text} was not seen:\n{self.seen}") from None
            self.seen += data.decode("utf-8", "replace").replace("\r\n", "\n")
        return self.seen

    def type(self, text: str) -> None:
        self.seen = ""
        os.write(self.fd, text.encode())

    def ended(self) -> int:
        """Its status."""
        with suppress(OSError):
            while os.read(self.fd, 65536):
                pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@contextmanager
def terminal(ship: Harbour, *argv: str) -> Iterator[Terminal]:
    opened = Terminal(ship, *argv)
    try:
        yield opened
    finally:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(opened.pid, signal.SIGKILL)
            os.waitpid(opened.pid, 0)
        os.close(opened.fd)


def test_a_command_has_what_the_service_has(ship: Harbour) -> None:
    """Its environment, that of `.profile.d` too, its files and its user; nothing of the ship's."""
    said = starphleet(ship, "run", "shore", "--", "sh", "-c", "env; pwd; ls; id -u")
    lines = said.stdout.decode().splitlines()
    assert said.returncode == 0, said.stderr
    for line in ("SECRET=it's $HOME", "FROM_PROFILE=yes", "SAYS=shore", "server.py"):
        assert line in lines
    assert "0" not in lines
    assert not [line for line in lines if line.startswith("STARPHLEET_ROOT")]


def test_a_command_on_pipes(ship: Harbour) -> None:
    """Bytes go through both ways as they are, errors apart, and the exit status is the command's;
    a signal's is 128 and its number."""
    data = bytes(range(256)) * 4096
    said = starphleet(ship, "run", "shore", "cat", given=data)
    assert (said.returncode, said.stdout) == (0, data)
    said = starphleet(ship, "run", "shore", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (said.returncode, said.stdout, said.stderr) == (7, b"out\n", b"err\n")
    assert starphleet(ship, "run", "shore", "sh", "-c", "kill -9 $$").returncode == 137
    assert starphleet(ship, "run", "shore", "--", "nothing-of-that-name").returncode == 127
    said = starphleet(ship, "run", "shore", "sh", "-c", "yes | head -n 1")
    assert (said.stdout, said.stderr) == (b"y\n", b"")


def test_ctrl_c_is_the_commands(ship: Harbour) -> None:
    """Signals reach the command, which ends as it likes; its own status comes back."""
    trap = 'trap "echo so; exit 5" INT; echo ready; while :; do sleep 0.1; done'
    # A shell cannot trap what was ignored when it began, and what runs the tests may ignore it.
    asked = ["env", "--default-signal=INT", *RUN, "run", "shore", "sh", "-c", trap]
    running = subprocess.Popen(
        asked, cwd=ROOT, env=ship.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert running.stdout is not None
    assert running.stdout.readline() == b"ready\n"
    running.send_signal(signal.SIGINT)
    assert running.stdout.read() == b"so\n"
    assert running.wait(60) == 5


def test_a_command_on_a_terminal(ship: Harbour) -> None:
    """A shell has a terminal of its own, as large as ours, in which Ctrl-C ends what it runs and
    not the shell."""
    with terminal(ship, *RUN, "attach", "shore") as shell:
        shell.until("$ ")
        shell.type("stty rows 33 cols 77; test -t 0 && echo a te''rminal $TERM\n")
        shell.until("a terminal xterm")
        shell.type("echo be''gun; sleep 1000\n")
        shell.until("begun")
        time.sleep(0.3)  # until the shell has begun it there is nothing to see
        shell.type("\x03")
        shell.type("echo st''ill here; stty size\n")
        assert "33 77" in shell.until("33 77")
        shell.type("exit 9\n")
        assert shell.ended() == 9


TYPES = """
import fcntl, os, termios
try:
    fcntl.ioctl(os.open("/dev/tty", os.O_RDWR), termios.TIOCSTI, b"x")
except OSError:
    pass
print("tried")
"""


def test_nobody_types_into_the_terminal_of_who_began_it(ship: Harbour) -> None:
    """A command cannot put words into the terminal that it was begun from, where its output goes
    elsewhere; that comes as it is."""
    begun = shlex.join([*RUN, "run", "shore", "python3", "-c", TYPES])
    with terminal(ship, "bash", "-c", f"{begun} | od -c; read line; echo got $line") as opened:
        opened.until("t   r   i   e   d  \\n\n")
        opened.type("mine\n")
        opened.until("got mine")


def test_a_part_of_a_name(ship: Harbour) -> None:
    """A part of one name will do; of several, a list is printed, or asked from on a terminal."""
    assert starphleet(ship, "attach", "shoa", "printenv", "SAYS").stdout == b"shoal\n"
    said = starphleet(ship, "attach", "sho", "printenv", "SAYS")
    assert (said.returncode, said.stdout) == (1, b"")
    assert said.stderr == b"starphleet: sho is a part of several: shoal, shore\n"
    said = starphleet(ship, "attach", "nix", "true")
    assert said.stderr == b"starphleet: nothing serves as nix; there are shoal, shore\n"
    with terminal(ship, *RUN, "attach") as asked:
        asked.until("Which one? ")
        assert "1) shoal" in asked.seen
        asked.type("5\n")
        asked.until("Which one? ")
        asked.type("2\n")
        asked.until("$ ")
        asked.type("printenv SAYS\n")
        asked.until("shore")


def test_names_are_completed(ship: Harbour) -> None:
    """Shells that complete the name of a service are told those of the ship."""
    assert starphleet(ship, "complete", "--", "run", "sho").stdout == b"shoal\nshore\n"
    assert starphleet(ship, "complete", "--", "run", "shoal", "x").stdout == b":\n"


def test_asked_whether_it_is_well(ship: Harbour) -> None:
    """`healthcheck` says what the service answers, and fails where that is not well."""
    said = starphleet(ship, "healthcheck", "shore")
    assert (said.returncode, said.stdout) == (0, b"shore: GET / answered 200\n")
    assert starphleet(ship, "healthcheck", "nix").returncode == 1


def test_a_deploy_is_cancelled(ship: Harbour) -> None:
    """A build ends by the id that `status` shows; the pusher is told by whom, what served goes on,
    and only who pushed it or a captain may."""
    app = ship.app(web("kept"), "kept")
    url = app.push("kept").url
    app.commit(slow_build("never", "sleep 600"))
    pushing = app.pushing("kept")
    status = lambda: json.loads(ship.starphleet("status", "--json").text)["deploys"]  # noqa: E731
    until(lambda: [one for one in status() if not one["waits"]], "it is built")
    (deploy,) = status()
    assert deploy["service"] == "kept"
    line = f"kept                 {deploy['commit'][:7]} by ann  is being deployed, {deploy['id']}"
    assert line in ship.starphleet("status").text
    app.commit({"more": "x"})
    later = app.pushing("kept")
    until(lambda: [one for one in status() if one["waits"]], "another waits")
    (_, waiting) = status()
    assert f" waits, {waiting['id']}" in ship.starphleet("status", "kept", "--metadata").text
    ship.starphleet("cancel", waiting["id"])
    told, _ = later.communicate(timeout=60)
    assert f"cancelled by {pwd.getpwuid(os.geteuid()).pw_name};".encode() in told
    assert status() == [deploy]
    pia = Crew.sign_on(ship, "pia", "pushers").ssh("git", "cancel", deploy["id"])
    assert pia.returncode == 1
    assert "kept is deployed for ann" in pia.stderr
    cid = Crew.sign_on(ship, "cid", "captains").ssh("captain", "cancel", deploy["id"])
    assert cid.returncode == 0, cid.stderr
    told, _ = pushing.communicate(timeout=60)
    assert pushing.returncode != 0
    assert b"cancelled by cid; what served before serves on" in told
    assert ship.get(url).text == "kept"
    assert "failed: cancelled by cid" in ship.starphleet("history", "kept").text.splitlines()[0]
    assert status() == []
    said = ship.starphleet("cancel", deploy["id"], check=False)
    assert (said.status, "is underway" in said.text) == (1, True)


def test_a_command_outlives_the_ships_process(ship: Harbour) -> None:
    """A ship that is begun anew leaves alone what somebody runs beside a service; it ends with
    the service's container."""
    running = subprocess.Popen(
        [*RUN, "run", "shoal", "cat"], cwd=ROOT, env=ship.env, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert running.stdin is not None
    assert running.stdout is not None

    def echoed(line: bytes) -> bool:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(line)
        running.stdin.flush()
        return running.stdout.readline() == line

    assert echoed(b"one\n")
    assert ship.process is not None
    ship.process.send_signal(signal.SIGHUP)
    ship.process.wait(60)
    ship.up()
    assert echoed(b"two\n")
    ship.app(web("anew"), "anew").push("shoal", "+master")
    assert running.wait(60) != 0
