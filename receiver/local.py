"""The ship on this machine, as `starphleet` sees it: started, asked, stopped."""

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

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)

from containers.log import tail
from containers.sandbox import SYSTEM_PATH, exported
from containers.spawn import in_memory
from hooks.deploy import KNOWN
from hooks.errors import ShipError
from hooks.layout import Layout
from hooks.settings import git_address
from receiver.config import Config
from receiver.daemon import serve
from receiver.headquarters.git import environment

UP_SECONDS = 60.0
DOWN_SECONDS = 60.0
INSIDE = ("/bin/sh", "-c", '. "$1" && shift && cd "$HOME" && exec "$@"', "sh")
SHELL = ("/bin/sh", "-c", "if [ -x /bin/bash ]; then exec /bin/bash; else exec /bin/sh; fi")


def foreground(config: Config) -> int:
    """Run the ship until SIGINT, SIGTERM or SIGHUP; the exit status.

    After SIGHUP alone its services go on, for the next ship to take over.
    """
    from twisted.internet import reactor as installed  # where it is needed, for it stays

    reactor: Any = installed
    globalLogBeginner.beginLoggingTo([_log_observer()], redirectStandardIO=False)
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
        Deferred.fromCoroutine(serve(reactor, config, stop)).addBoth(ended)

    def stop_once(told: int) -> None:
        if not stop.called:
            stop.callback(told == signal.SIGHUP)

    reactor.callWhenRunning(begin)
    reactor.run(installSignalHandlers=True)
    for line in outcome:
        print(f"starphleet: {line}", file=sys.stderr)
    return 1 if outcome else 0


def _log_observer() -> ILogObserver:
    """To standard output: what the ship says, and from Twisted what somebody should see to."""
    wanted = LogLevelFilterPredicate(LogLevel.warn)
    for room in ("receiver", "hooks", "containers", "buildpacks", "proxy"):
        wanted.setLogLevelForNamespace(room, LogLevel.info)
    for chatty in ("channel", "connection"):  # Conch logs by the names of our sub-classes
        wanted.setLogLevelForNamespace(f"receiver.ssh.{chatty}", LogLevel.warn)
    return FilteringLogObserver(textFileLogObserver(sys.stdout), [wanted])


def _why(config: Config, failure: Any) -> str:
    """One line for a person; what is not meant for one is logged whole."""
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
    config.layout.prepare()
    before = config.layout.log.stat().st_size if config.layout.log.exists() else 0
    with config.layout.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "receiver.cli", "ship"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    end = time.monotonic() + UP_SECONDS
    while status(config) is None:
        if process.poll() is not None or time.monotonic() > end:
            raise ShipError(f"the ship did not start; {_said(config.layout, before)}")
        time.sleep(0.05)


def down(config: Config) -> bool:
    """Stop the ship and all that it serves; False when none runs."""
    return _end(config, signal.SIGTERM)


def reload(config: Config) -> None:
    """Start the ship's own process anew; what it serves goes on serving."""
    signal.signal(
        signal.SIGHUP, signal.SIG_IGN
    )  # asked for over the ship's own SSH, which ends now
    _end(config, signal.SIGHUP)
    up(config)


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


def status(config: Config) -> dict[str, Any] | None:
    """What the ship says of itself; `None` when none answers."""
    try:
        return next(_answers(config, {"hook": "status"}, seconds=10.0))
    except (OSError, ValueError, StopIteration):
        return None


def history(config: Config, service: str | None) -> list[dict[str, Any]]:
    """The newest deploys, of one service or of all, newest first."""
    question = {"hook": "history", "words": [service] if service else []}
    for answer in _asked(config, question):
        return list(answer["history"])
    return []


def command(config: Config, words: Sequence[str], say: Callable[[str], None]) -> None:
    """Let the ship do what `words` say, and show its own; `ShipError` is its reason not to."""
    for answer in _asked(config, {"hook": "command", "words": list(words)}):
        if answer.get("verdict"):
            raise ShipError(answer["verdict"])
        if "say" in answer and not answer["say"].startswith(" !     "):
            say(answer["say"])


def _asked(config: Config, question: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    try:
        yield from _answers(config, question, seconds=None)
    except (FileNotFoundError, ConnectionRefusedError):
        raise ShipError("no ship runs here: starphleet up") from None


def _answers(
    config: Config, question: Mapping[str, Any], seconds: float | None
) -> Iterator[dict[str, Any]]:
    with socket.socket(socket.AF_UNIX) as ship:
        ship.settimeout(seconds)
        ship.connect(str(config.layout.socket))
        ship.sendall(json.dumps(question).encode() + b"\n")
        for line in ship.makefile("rb"):
            yield json.loads(line)


def attach(config: Config, service: str, words: Sequence[str]) -> None:
    """Become a command in the container of `service`, on this terminal; a shell without `words`.

    Only returns by a `ShipError`.
    """
    for answer in _asked(config, {"hook": "entrance", "words": [service]}):
        if answer.get("verdict"):
            raise ShipError(answer["verdict"])
        if "argv" in answer:
            own = {"HOME": "/app", "LANG": "C.UTF-8", "PATH": SYSTEM_PATH}
            # Read inside: an LD_PRELOAD of the service's must meet nothing that is root out here.
            told = in_memory(exported({**own, **answer["env"], "TERM": config.terminal}))
            os.set_inheritable(told, True)
            command = [*INSIDE, f"/proc/self/fd/{told}", *(words or SHELL)]
            sys.stdout.flush()
            os.execve(answer["argv"][0], [*answer["argv"], *command], {})  # noqa: S606


def git(config: Config, words: Sequence[str]) -> int:
    """git with the ship's own keys and the host keys it knows; its exit status."""
    env = environment(config.layout, "", config.path, config.git_env)
    return subprocess.run(["git", *words], env=env, check=False).returncode


def logs(config: Config, service: str | None, lines: int, *, going_on: bool) -> None:
    """Print the end of a service's log (the ship's own without one), and then what comes."""
    path = config.layout.log if service is None else _log_of(config, service)
    print("\n".join(tail(path, lines)), flush=True)
    at = path.stat().st_size if path.exists() else 0
    while going_on:
        time.sleep(0.2)
        size = path.stat().st_size if path.exists() else 0
        if size == at:
            continue
        with path.open("rb") as log:
            log.seek(at if size > at else 0)  # cut short: from its start
            sys.stdout.write(log.read().decode("utf-8", "replace"))
            sys.stdout.flush()
            at = log.tell()


def _log_of(config: Config, name: str) -> Path:
    found = {one["service"]: one for one in (status(config) or {}).get("services", ())}
    one = found.get(name) or found.get(f"/{name.strip('/')}")
    if one is None:
        raise ShipError(f"nothing serves as {name}")
    return config.layout.service_log(one["container"])


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
