"""`shipscripts/` of the headquarters: what runs on the ship itself, as the ship's own user."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from attrs import define, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from containers.interface import ContainerError, Limits
from containers.spawn import Completed, run
from containers.watching import in_thread
from hooks.repository import Blob
from hooks.say import clean

SECONDS = 60.0  # that one script may take
KEPT = 65536  # bytes of its output that are logged, the last ones
_BELOW = "shipscripts/"
_logger = Logger()

Log = Callable[[str], None]


def scripts(files: Mapping[str, Blob]) -> tuple[str, ...]:
    """Which files of a headquarters are ship scripts, in the order in which they run."""
    return tuple(
        name
        for name, blob in sorted(files.items())
        if name.startswith(_BELOW) and blob.regular and blob.executable
    )


def scripts_digest(files: Mapping[str, Blob]) -> str:
    """Changes when anything below `shipscripts/` does: a script may read what lies beside it."""
    below = [one for one in sorted(files.items()) if one[0].startswith(_BELOW)]
    lines = (f"{name}\0{blob.mode} {blob.oid}\n" for name, blob in below)
    return sha256("".join(lines).encode()).hexdigest()


async def run_shipscripts(
    reactor: Any, tree: Path, names: Sequence[str], *, env: Mapping[str, str], log: Log
) -> None:
    """Run the scripts `names` of the headquarters in `tree`, one after the other.

    Each is in its own directory, with exactly `env`, for a minute at most; what it leaves in the
    background ends with it. Failures are logged, and the next one runs.
    """
    for name in names:
        try:
            script = await in_thread(reactor, _runnable, tree, name)
            if script is None:
                log(f"{name}: it is not a file of the headquarters; not run")
                continue
            limits = Limits(seconds=SECONDS)
            done = await run(
                reactor, [str(script)], env=env, cwd=script.parent, limits=limits, keep=KEPT
            )
        except ContainerError as error:
            log(f"{name}: {error}")
        else:
            for line in _said(name, done):
                log(line)


def _runnable(tree: Path, name: str) -> Path | None:
    """The file, unless the way to it leads over a link: an earlier script may have laid one."""
    path = tree.resolve() / name
    whole = path.resolve() == path and path.is_file() and os.access(path, os.X_OK)
    return path if whole else None


def _said(name: str, done: Completed) -> list[str]:
    lines = [clean(line) for line in done.output.decode("utf-8", "replace").splitlines()]
    ended = [] if done.exit.ok else [f"failed: {done.exit.reason or done.exit}"]
    return [f"{name}: {line}" for line in [*lines, *ended]]


@frozen
class _Wanted:
    """One run, and why."""

    why: str
    tree: Path
    names: tuple[str, ...]
    env: Mapping[str, str]


@define(eq=False)
class Shipscripts:
    """Runs them, never twice at a time. `stop` ends the one that runs."""

    reactor: Any
    log: Log
    _going: Deferred[None] | None = None
    _next: _Wanted | None = None

    def run(self, why: str, tree: Path, names: Sequence[str], env: Mapping[str, str]) -> None:
        """Begin to run `names`. While some run, it is once more afterwards, as asked last.

        `tree` must stay while `going`.
        """
        self._next = _Wanted(why, tree, tuple(names), env)
        if self._going is None:
            going: Deferred[None] = Deferred.fromCoroutine(self._run())
            self._going = going
            going.addErrback(self._unforeseen)
            going.addBoth(self._ended)

    @property
    def going(self) -> bool:
        """Whether a script runs, or one is still to run."""
        return self._going is not None

    def stop(self) -> None:
        self._next = None
        if self._going is not None:
            self._going.cancel()

    async def _run(self) -> None:
        while self._next is not None:
            one, self._next = self._next, None
            if one.names:
                self.log(f"{len(one.names)} ship scripts run: {one.why}")
            await run_shipscripts(self.reactor, one.tree, one.names, env=one.env, log=self.log)

    def _unforeseen(self, failure: Any) -> None:
        if not failure.check(CancelledError):
            _logger.failure("ship scripts ended", failure)

    def _ended(self, _: Any) -> None:
        self._going = None
