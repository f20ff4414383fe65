"""The ship on this machine, as `starphleet` sees it: started, asked, stopped.

Twisted, and whatever stands on it, is imported where it is needed: asking takes far less than that.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hooks.errors import ShipError, Unreachable
from hooks.layout import Layout
from hooks.settings import git_address
from receiver import unit
from receiver.config import Config

UP_SECONDS = 60.0
DOWN_SECONDS = 60.0
SYSTEM = Path("/var/starphleet")  # where the ship of the system is


def foreground(config: Config, after: int | None = None) -> int:
    """Run the ship until SIGINT, SIGTERM or SIGHUP; the exit status.

    After SIGHUP alone its services go on, for the next ship to take over. `after` is the
    descriptor by which the process speaks from which this one is to take over.
    """
    from twisted.internet import reactor as installed  # where it is needed, for it stays
    from twisted.internet.defer import Deferred
    from twisted.logger import globalLogBeginner, textFileLogObserver

    from receiver.daemon import serve
    from receiver.ship_log import told
    from receiver.succession.handover import Predecessor

    reactor: Any = installed
    observer = told(textFileLogObserver(sys.stdout))
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    stop: Deferred[bool] = Deferred()
    outcome: list[str] = []

    def ended(result: Any) -> None:
        if result is not None:
            outcome.append(_why(config, result))
        if reactor.running:
            reactor.stop()

    def begin() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda told, _: reactor.callFromThread(stop_once, told))
        before = None if after is None else Predecessor.at(reactor, after)
        Deferred.fromCoroutine(serve(reactor, config, stop, before)).addBoth(ended)

    def stop_once(told: int) -> None:
        if not stop.called:
            stop.callback(told == signal.SIGHUP)

    reactor.callWhenRunning(begin)
    reactor.run(installSignalHandlers=True)
    for line in outcome:
        print(f"starphleet: {line}", file=sys.stderr)
    return 1 if outcome else 0


def _why(config: Config, failure: Any) -> str:
    """One line for a person; what is not meant for one is logged whole."""
    from twisted.internet.error import CannotListenError

    from hooks.deploy import KNOWN

    error = failure.value
    if isinstance(error, CannotListenError):
        return f"port {error.port} is taken: set STARPHLEET_SSH_PORT ({error.socketError})"
    if isinstance(error, KNOWN):
        return str(error)
    failure.printTraceback(file=sys.stderr)
    return f"the ship could not go on: {error}"


def up(config: Config) -> None:
    """Start the ship in the background and wait until it answers; nothing if it does already."""
    if status(config) is not None:
        return
    config.layout.root.mkdir(parents=True, exist_ok=True)
    before = config.layout.log.stat().st_size if config.layout.log.exists() else 0
    with config.layout.log.open("ab") as log:
        process = subprocess.Popen(
            unit.starting(config.layout) or [sys.executable, "-P", "-m", "receiver.cli", "ship"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    end = time.monotonic() + UP_SECONDS
    while status(config) is None:
        if process.poll() or time.monotonic() > end:
            raise ShipError(f"the ship did not start; {_said(config.layout, before)}")
        time.sleep(0.05)


def down(config: Config) -> bool:
    """Stop the ship and all that it serves; False when none runs."""
    return _end(config, signal.SIGTERM)


def _end(config: Config, told: signal.Signals) -> bool:
    """Tell the ship to end and wait for it; False when none runs."""
    pid = _pid(config.layout)
    if pid is None:
        return False
    os.kill(pid, told)
    end = time.monotonic() + DOWN_SECONDS
    while _pid(config.layout) is not None:
        if time.monotonic() > end:
            raise ShipError(f"the ship (process {pid}) did not stop within {DOWN_SECONDS:g} s")
        time.sleep(0.05)
    return True


def status(config: Config, seconds: float = 10.0) -> dict[str, Any] | None:
    """What the ship says of itself; `None` when none answers."""
    try:
        return next(answers(config, {"hook": "status"}, seconds))
    except PermissionError:
        raise
    except (OSError, ValueError, StopIteration):
        return None


def required_status(config: Config) -> dict[str, Any]:
    """`status`; `ShipError` when no ship answers."""
    answer = status(config)
    if answer is None:
        raise ShipError(_absent(config))
    return answer


def history(config: Config, service: str | None) -> list[dict[str, Any]]:
    """The newest deploys, of one service or of all, newest first."""
    question = {"hook": "history", "words": [service] if service else []}
    for answer in _asked(config, question):
        return list(answer["history"])
    return []


def opened(config: Config, what: str) -> str:
    """The URL of a service or of the dashboard, with what lets who asks in."""
    for answer in _asked(config, {"hook": "open", "words": [what], "asker": config.asker}):
        if answer.get("verdict"):
            raise ShipError(answer["verdict"])
        if "url" in answer:
            return str(answer["url"])
    raise ShipError("the ship did not answer")


def command(config: Config, words: Sequence[str], say: Callable[[str], None]) -> None:
    """Let the ship do what `words` say, and show its own; `ShipError` is its reason not to."""
    obeyed(config, {"hook": "command", "words": list(words)}, say)


def cancel(config: Config, deploy: str, say: Callable[[str], None]) -> None:
    """End a deploy, by its id or its service."""
    obeyed(config, {"hook": "cancel", "words": [deploy], "asker": config.asker}, say)


def obeyed(config: Config, question: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Let the ship do what is asked for; `ShipError` is its reason not to, `Unreachable` that it
    ended before it gave one."""
    for answer in _asked(config, question):
        if answer.get("verdict"):
            raise ShipError(answer["verdict"])
        if "verdict" in answer:
            return
        if "say" in answer and not answer["say"].startswith(" !     "):
            say(answer["say"])
    raise Unreachable("the ship ended before it said how that went: starphleet status")


def foreign(error: PermissionError) -> str:
    """Whose the ship is that somebody else may not ask, in a line that says what to do."""
    path = Path(error.filename or "/")
    while not os.access(path, os.F_OK) and path != path.parent:
        path = path.parent
    owner = path.owner()
    sudo = "sudo" if owner == "root" else f"sudo -u {owner}"
    return f"{error.filename} is {owner}'s, and the ship with it: {sudo} starphleet"


def _asked(config: Config, question: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    try:
        yield from answers(config, question, seconds=None)
    except (FileNotFoundError, ConnectionRefusedError):
        raise ShipError(_absent(config)) from None


def _absent(config: Config) -> str:
    """That no ship runs, and what may be meant instead."""
    if config.layout.root != SYSTEM and SYSTEM.is_dir():
        return f"no ship of yours runs here, in {config.layout.root}; the system's: sudo starphleet"
    return "no ship runs here: starphleet up"


def answers(
    config: Config, question: Mapping[str, Any], seconds: float | None
) -> Iterator[dict[str, Any]]:
    again: dict[str, Any] | None = {}
    while again is not None:
        question, again = {**question, **again}, None
        with socket.socket(socket.AF_UNIX) as ship:
            ship.settimeout(seconds)
            _connect(ship, config.layout.socket)
            ship.sendall(json.dumps(question).encode() + b"\n")
            for line in ship.makefile("rb"):
                answer = json.loads(line)
                if "again" in answer:
                    again = answer["again"]
                else:
                    yield answer


def _connect(ship: socket.socket, path: Path) -> None:
    try:
        ship.connect(str(path))
    except PermissionError as error:
        raise PermissionError(error.errno, error.strerror, str(path)) from None


def beside(config: Config, service: str, words: Sequence[str]) -> int:
    """Run a command beside `service`, on our own input, output and terminal; its exit status.

    The ship is asked all the while, so that it knows of it.
    """
    from receiver import beside

    for answer in _asked(config, {"hook": "beside", "words": [service]}):
        if answer.get("verdict"):
            raise ShipError(answer["verdict"])
        if "argv" in answer:
            return beside.run(answer, words, config.terminal)
    raise ShipError("the ship did not answer")


def git(config: Config, words: Sequence[str]) -> int:
    """git with the ship's own keys and the host keys it knows; its exit status."""
    from receiver.headquarters.git import environment

    env = environment(config.layout, "", config.path, config.git_env)
    return subprocess.run(["git", *words], env=env, check=False).returncode


def settle(config: Config) -> str:
    """Let a ship that runs take in what is logged so far; its name, "" when none answers."""
    try:
        return str(next(answers(config, {"hook": "journal"}, seconds=10.0))["ship"])
    except PermissionError:
        raise
    except (OSError, ValueError, StopIteration):
        return ""


def welcome(config: Config) -> list[str]:
    """How to reach a ship that is up."""
    settings = config.settings
    https = f", https on {settings.https_port}" if settings.https_port is not None else ""
    return [
        f"the ship is up: git over {git_address(settings)}/NAME, "
        f"http on port {settings.http_port}{https}",
        f"everything it keeps is in {config.layout.root}, its log in {config.layout.log}",
    ]


def _pid(layout: Layout) -> int | None:
    """The process that holds the ship's lock."""
    try:
        with layout.lock.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(lock.read().strip() or 0) or None
    except FileNotFoundError:
        pass
    return None


def _said(layout: Layout, start: int) -> str:
    """The reason in the ship's log: its last line since `start` bytes."""
    with layout.log.open("rb") as log:
        log.seek(start)
        lines = log.read().decode("utf-8", "replace").split("\n")
    said = [line for line in lines if line.startswith("starphleet: ")]
    return said[-1].removeprefix("starphleet: ") if said else f"see {layout.log}"
