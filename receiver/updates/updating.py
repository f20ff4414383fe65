"""`starphleet update` and `reload`: another process is the ship from then on."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from attrs import asdict
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from receiver import local
from receiver.config import Config
from receiver.updates.update import Update
from receiver.updates.versions import Versions, own_version


def reload(config: Config) -> None:
    """Let a new process be the ship, with the settings as they are now; what it serves, and who is
    logged in, goes on. `up` when none runs."""
    if local.status(config) is None:
        local.up(config)
        return
    chosen = Versions.of(config.layout).chosen()
    given = {k: v for k, v in config.environ.items() if k.startswith("STARPHLEET_")}
    interpreter = chosen.interpreter if chosen else Path(sys.executable)
    hand_over(config, interpreter, print, given)


def update(config: Config, *, as_json: bool = False) -> int:
    """Install the newest version and let it be the ship; the exit status. `as_json` prints how it
    ended on stdout, and what is done meanwhile on stderr."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # who watches may leave
    from twisted.internet import reactor as installed  # where it is needed, for it stays

    reactor: Any = installed
    ended: list[Any] = []
    say = partial(_say, error=as_json)
    work = Update(reactor, config, Versions.of(config.layout), version, hand_over, say)

    def end(result: Any) -> None:
        ended.append(result)
        if reactor.running:
            reactor.stop()

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(work()).addBoth(end))
    reactor.run()
    if not ended:
        raise KeyboardInterrupt
    if isinstance(ended[0], Failure):
        ended[0].raiseException()
    if as_json:
        _say(json.dumps(asdict(ended[0]), indent=2))
    return 0


def as_chosen(config: Config) -> None:
    """Become the ship of the current version, if that is another than this one. Else return."""
    chosen, own = Versions.of(config.layout).chosen(), own_version()
    if chosen is not None and (own is None or own.directory.resolve() != chosen.directory):
        argv = [str(chosen.interpreter), "-P", "-m", "receiver.cli", "ship"]
        sys.stdout.flush()
        os.execv(argv[0], argv)  # noqa: S606


def hand_over(
    config: Config,
    interpreter: Path,
    say: Callable[[str], None],
    given: Mapping[str, str] | None = None,
) -> None:
    """Let the Starphleet of `interpreter` be the ship, with settings `given` beside those that it
    has; `ShipError` says why it is not. Blocks."""
    question = {"hook": "handover", "interpreter": str(interpreter), "given": dict(given or {})}
    local.obeyed(config, question, say)


def version(config: Config) -> dict[str, Any] | None:
    """The `commit` that the ship runs and the `remote` that others come from; `None` when none
    runs. Blocks."""
    try:
        return next(local.answers(config, {"hook": "version"}, seconds=10.0))
    except (OSError, ValueError, StopIteration):
        return None


def _say(line: str, *, error: bool = False) -> None:
    with suppress(OSError):  # nobody watches any more
        print(line, flush=True, file=sys.stderr if error else sys.stdout)
