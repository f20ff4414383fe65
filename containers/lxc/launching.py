"""LXC's tools at work: a container is begun, for a command or a service, or joined."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, TimeoutError

from containers import files, marks, record, sandbox, spawn, stopping
from containers.boxing import DEFAULT_USER
from containers.collect import fire
from containers.interface import Beside, Container, ContainerError, Exit, Limits, Output
from containers.lxc import cgroups, config, gate, made, network, wrapping
from containers.lxc.config import Cage, Files
from containers.lxc.idmap import INSIDE
from containers.watching import shielded

TOOLS = Path("/usr/bin")
HOME, TMP = "/app", "/tmp"  # noqa: S108 - inside, its own
UP_SECONDS = 60.0
END = 5.0  # seconds for LXC's init to kill what does not listen to TERM, which it does after one
# Without newuidmap on its PATH, LXC writes the map itself: root needs nobody's leave.
NOWHERE = "/nonexistent"
MB = 2**20
_COMPLAINT = re.compile(r"(?m)^.* - \S+ - (.+)$")


async def execute(
    reactor: Any,
    root: Path,
    directory: Path,
    cage: Cage,
    argv: Sequence[str],
    env: Mapping[str, str],
    output: Output,
    mark: str,
) -> Exit:
    """Run one command in a container that ends with it. Raises `ContainerError`."""
    script = wrapping.script(_environment(env))
    _lay(cage)
    with gate.kept(reactor, cage) as told:
        done = await spawn.run(
            reactor,
            _begun(root, cage, argv),
            env=_marked(directory, mark),
            cwd=Path("/"),
            stdin=script,
            output=output,
            limits=Limits(seconds=cage.limits.seconds, output=cage.limits.output),
            keep=0,
            grace=END,
        )
    if not done.exit.ok and not done.exit.reason:
        fire(told, "")
        _require_up(cage, await told)
    return ended(cage.files, record.sandboxed_exit(done.exit), alone=True)


async def launch(
    reactor: Any,
    root: Path,
    directory: Path,
    cage: Cage,
    argv: Sequence[str],
    env: Mapping[str, str],
    log: Path,
    mark: str,
) -> spawn.Child:
    """Begin a service, whose limits are in force when this returns. It outlives the ship.

    Raises `ContainerError` if it cannot be begun.
    """
    _lay(cage)
    with ExitStack() as stack:
        told = stack.enter_context(gate.kept(reactor, cage))
        script = spawn.in_memory(wrapping.script(_environment(env)))
        stack.callback(os.close, script)
        out = files.open_log(log, DEFAULT_USER)
        stack.callback(os.close, out)
        child = spawn.launch(
            reactor,
            _begun(root, cage, argv),
            env=_marked(directory, mark),
            cwd=Path("/"),
            stdin=script,
            stdout=out,
        )
        try:
            _require_up(cage, await _said(reactor, child, told))
        except BaseException:
            await shielded(child.put_down(END))
            raise
    return child


async def attach(
    reactor: Any,
    root: Path,
    container: Container,
    argv: Sequence[str],
    env: Mapping[str, str],
    output: Output,
    limits: Limits,
    mark: str,
) -> Exit:
    """Run one command in a container whose service runs. Ends what the command left behind."""
    marking = _marked(container.directory, mark)
    try:
        done = await spawn.run(
            reactor,
            [*entrance(root, container, _given(marking)), "/bin/sh", "-s", "--", *argv],
            env=marking,
            cwd=Path("/"),
            stdin=sandbox.script(_environment(env), cwd=HOME, without=("container",)),
            output=output,
            limits=Limits(seconds=limits.seconds, output=limits.output),
            keep=0,
        )
    finally:
        await shielded(stopping.kill_run(reactor, mark))
    return record.sandboxed_exit(done.exit)


def entrance(root: Path, container: Container, options: Sequence[str] = ()) -> list[str]:
    """The argv that joins a container whose service runs, as the service's user."""
    config = Files(container.directory / made.SERVICE).config
    words = [str(TOOLS / "lxc-attach"), "-P", str(root), "-n", container.name, "-f", str(config)]
    return [*words, "--clear-env", "-u", str(INSIDE.uid), "-g", str(INSIDE.gid), *options, "--"]


def beside(root: Path, container: Container, env: Mapping[str, str], mark: str) -> Beside:
    """A place for a command that is spawned by somebody else."""
    marking = _marked(container.directory, mark)
    return Beside(
        entrance(root, container, _given(marking)),
        marking,
        sandbox.exported(_environment(env), ("container",)),
        terminal=True,
    )


def _given(marking: Mapping[str, str]) -> list[str]:
    """Options by which a command has the marks: by them a process is found that has left its
    family."""
    return [word for name in marks.NAMES for word in ("-v", f"{name}={marking[name]}")]


def ended(place: Files, exit: Exit, *, alone: bool = False) -> Exit:
    """`exit`, with the reason if it was for want of memory.

    A command that was `alone` failed by whatever was killed beside it; a service may have done
    without, and ended for another reason long after.
    """
    with suppress(FileNotFoundError):
        killed = cgroups.oom_kills(place.oom.read_text())
        by_it = exit.signal == signal.SIGKILL or (alone and not exit.ok)
        if killed and by_it and not exit.reason:
            return evolve(exit, reason="out of memory: " + place.memory.read_text())
    return exit


async def _said(reactor: Any, child: spawn.Child, told: Deferred[str]) -> str:
    """What came of a start; nothing if it ended without a word."""
    over = child.ended()
    over.addCallbacks(lambda _: fire(told, ""), lambda _: None)
    try:
        return await told.addTimeout(UP_SECONDS, reactor)
    except TimeoutError:
        return f"it did not come up within {UP_SECONDS:g} s"
    finally:
        over.cancel()


def _lay(cage: Cage) -> None:
    """Write what LXC and the container itself read of this start."""
    place = cage.files
    for old in (place.up, place.go, place.log, place.oom):
        old.unlink(missing_ok=True)
    name = config.hostname(cage.name)
    for path, text in (
        (place.hostname, f"{name}\n"),
        (place.hosts, network.hosts(cage.plan, cage.address, name)),
        (place.memory, _memory(cage.limits)),
        (place.config, config.text(cage)),
    ):
        path.write_text(text)
        path.chmod(0o644)


def _memory(limits: Limits) -> str:
    """For who wonders why it was out of it."""
    if limits.memory is None:
        return "the host has no more"
    return f"it may have {limits.memory // MB} MB (STARPHLEET_MEMORY)"


def _begun(root: Path, cage: Cage, argv: Sequence[str]) -> list[str]:
    words = [str(TOOLS / "lxc-execute"), "-P", str(root), "-n", cage.name]
    words += ["-f", str(cage.files.config), "-o", str(cage.files.log), "-l", "ERROR"]
    return [*words, "--", "/bin/sh", "-s", "--", *argv]


def _marked(directory: Path, mark: str) -> dict[str, str]:
    return {"PATH": NOWHERE, **marks.marking(directory, mark)}


def _environment(env: Mapping[str, str]) -> dict[str, str]:
    return sandbox.environment(env, home=HOME, tmp=TMP, path=())


def _require_up(cage: Cage, said: str) -> None:
    """Raises `ContainerError` with why the ship did not let it run, or LXC, when it is not up."""
    if said == config.UP:
        return
    complaints = []
    with suppress(FileNotFoundError):
        complaints = _COMPLAINT.findall(cage.files.log.read_text(errors="replace"))
    why = said or (complaints[0] if complaints else "lxc-execute gave no reason")
    raise ContainerError(f"cannot start {cage.name}: {why}")
