"""The one module that spawns ordinary processes: each in a session of its own, watched by pidfd.

`run` is for a command that ends; `launch` for one that stays. The reactor thread pays only the
time from `vfork` to `exec` (about a millisecond); an end is an event of the reactor's.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import evolve, frozen
from twisted.internet.defer import Deferred

from containers.collect import Bound, Tail, fire
from containers.interface import ContainerError, Exit, Limits, Output
from containers.proc import group_exists, named, open_processes, process_group
from containers.watching import Reader, all_ended, in_thread, readable, shielded, within

GRACE = 2.0  # seconds between TERM and KILL: git removes its lock files on TERM
UNBOUNDED = Limits()


@frozen
class Completed:
    """How a command ended, and the last `keep` bytes that it printed.

    `output` is stdout and stderr merged; with `merge=False` stdout alone, and `errors` is stderr.
    """

    exit: Exit
    output: bytes
    errors: bytes = b""


async def run(
    reactor: Any,
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    stdin: bytes = b"",
    output: Output | None = None,
    limits: Limits = UNBOUNDED,
    keep: int = 65536,
    merge: bool = True,
    grace: float = GRACE,
    inherit: Sequence[int] = (),
    spare: bool = False,
) -> Completed:
    """Run `argv` to its end with exactly the environment `env`; no shell.

    `output` takes what is printed as it comes (with `merge=False`: stdout only). A limit, or
    cancellation, ends the process group: TERM, and KILL after `grace` seconds. When the command
    itself ends, what is left of its group is killed too, so that nothing outlives the return;
    with `spare` it is not: the command was to leave a daemon.
    `limits.output` counts stdout and stderr together; what is beyond it is not passed on.
    Raises `ContainerError` if the command cannot be spawned at all, and what `output` raises.
    """
    done: Deferred[str] = Deferred()
    bound = Bound(limits.output, done)
    out, err = Tail(keep, bound, output), Tail(keep, bound, None)
    child, pipes = _with_pipes(reactor, [*limited(limits), *argv], env, cwd, stdin, merge, inherit)
    readers = [
        Reader(reactor, fd, tail.take, done.errback)
        for fd, tail in zip(pipes, (out, err), strict=False)
    ]
    child.spares = spare
    reason = await _outcome(reactor, child, readers, done, limits.seconds, grace)
    exit = evolve(child.exit, reason=reason or bound.reason)
    return Completed(exit, bytes(out.kept), bytes(err.kept))


def launch(
    reactor: Any,
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
    stderr: int = subprocess.STDOUT,
    inherit: Sequence[int] = (),
) -> Child:
    """Spawn a process that may outlive the ship, in a session of its own.

    It gets the descriptors named and those in `inherit` (under the same numbers), no others;
    the caller closes its own copies. Raises `ContainerError`.
    """
    try:
        process = subprocess.Popen(
            list(argv),
            env=dict(env),
            cwd=cwd,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=tuple(inherit),
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        where = f" in {cwd}" if cwd is not None and not cwd.is_dir() else ""
        raise ContainerError(f"cannot run {argv[0]}{where}: {why}") from error
    return Child(reactor, process)


def limited(limits: Limits) -> list[str]:
    """The argv prefix that sets resource limits before the command is executed.

    Memory is private data (`RLIMIT_DATA`): a limit of the address space would stop V8 from
    starting. Each bounds one process (`processes`: those of one user in one user namespace), and
    none can be more than the ship's own hard limit.
    """
    options = (
        ("data", limits.memory, resource.RLIMIT_DATA),
        ("nproc", limits.processes, resource.RLIMIT_NPROC),
        ("nofile", limits.files, resource.RLIMIT_NOFILE),
    )
    given = [
        f"--{name}={_at_most_hard(value, kind)}"
        for name, value, kind in options
        if value is not None
    ]
    return ["/usr/bin/prlimit", "--core=0", *given, "--"] if given else []


def _at_most_hard(value: int, kind: int) -> int:
    hard = resource.getrlimit(kind)[1]
    return value if hard == resource.RLIM_INFINITY else min(value, hard)


class Child:
    """A spawned process that leads its own session and group.

    With `spares` set, what is left of the group when the leader ends by itself goes on.
    """

    def __init__(self, reactor: Any, process: subprocess.Popen[bytes]) -> None:
        self._reactor = reactor
        self._process = process
        self._pidfd = os.pidfd_open(process.pid)
        self.pid = process.pid
        self.spares = False
        self.process = named(process.pid)

    @property
    def exit(self) -> Exit:
        """How it ended; only after `close` or `put_down`."""
        return _exit_of(self._process.returncode)

    def ended(self) -> Deferred[None]:
        """Fires when it has ended. It is not reaped by that, so its pid still means it."""
        if self._process.returncode is not None:
            fired: Deferred[None] = Deferred()
            fired.callback(None)
            return fired
        return readable(self._reactor, self._pidfd)

    def signal_group(self, number: signal.Signals) -> None:
        """Signal all of its process group; nothing once it is reaped."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    async def put_down(self, grace: float) -> None:
        """End the group: TERM, KILL after `grace` seconds; then as `close`."""
        if grace > 0:
            self.signal_group(signal.SIGTERM)
            await within(self._reactor, self.ended(), grace)
        await self.close()

    async def close(self) -> None:
        """Kill what is left of the group, wait until all of it is gone, and reap the leader."""
        if not self.spares:
            self.signal_group(signal.SIGKILL)
        await self.ended()
        if self._process.returncode is not None:
            return
        self._process.wait()
        os.close(self._pidfd)
        if not self.spares and group_exists(self.pid):
            members = await in_thread(self._reactor, process_group, self.pid)
            await all_ended(self._reactor, open_processes(members))


def _with_pipes(
    reactor: Any,
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: Path | None,
    stdin: bytes,
    merge: bool,
    inherit: Sequence[int],
) -> tuple[Child, list[int]]:
    """Launch with stdout (and stderr) in pipes; answers the descriptors to read them from."""
    pipes = [os.pipe() for _ in range(1 if merge else 2)]
    given = in_memory(stdin) if stdin else subprocess.DEVNULL
    try:
        child = launch(
            reactor,
            argv,
            env=env,
            cwd=cwd,
            stdin=given,
            stdout=pipes[0][1],
            stderr=subprocess.STDOUT if merge else pipes[1][1],
            inherit=inherit,
        )
    except BaseException:
        for reading, _ in pipes:
            os.close(reading)
        raise
    finally:
        for _, writing in pipes:
            os.close(writing)
        if given >= 0:
            os.close(given)
    return child, [reading for reading, _ in pipes]


def in_memory(data: bytes) -> int:
    """A descriptor to read `data` from, which is nowhere on disk and needs nobody to feed it."""
    fd = os.memfd_create("given")
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def run_at_start(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    seconds: float,
    stdin: int = subprocess.DEVNULL,
    inherit: Sequence[int] = (),
    spare: bool = False,
) -> Completed:
    """As `run`, but blocking: only for a short look at the host before the reactor runs."""
    try:
        done = subprocess.run(
            list(argv),
            env=dict(env),
            stdin=stdin,
            pass_fds=tuple(inherit),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ContainerError(f"cannot run {argv[0]}: {error}") from error
    return Completed(_exit_of(done.returncode), done.stdout)


def _exit_of(returncode: int) -> Exit:
    return Exit(signal=-returncode) if returncode < 0 else Exit(status=returncode)


async def _outcome(
    reactor: Any,
    child: Child,
    readers: Sequence[Reader],
    done: Deferred[str],
    seconds: float | None,
    grace: float,
) -> str:
    """Wait for the command's end, or end it; answers why it was ended, "" if it was not."""
    ended = child.ended()
    ended.addCallbacks(lambda _: fire(done, ""), lambda _: None)
    timer = None
    if seconds is not None:
        timer = reactor.callLater(seconds, fire, done, f"ran longer than {seconds:g} s")
    reason = None
    try:
        reason = await done
    finally:
        ended.cancel()
        if timer is not None and timer.active():
            timer.cancel()
        try:
            await shielded(child.close() if reason == "" else child.put_down(grace))
            for reader in readers:
                reader.drain()
        finally:
            for reader in readers:
                reader.close()
    return reason
