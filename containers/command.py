"""One command in a container, ready to be spawned: argv, descriptors, the script of its start."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

from containers import files, marks, record, sandbox, spawn, stopping
from containers.interface import Beside, Container, ContainerError, Exit, Limits, Mount, Output
from containers.marks import Runs
from containers.sandbox import Box
from containers.spawn import in_memory
from containers.watching import shielded

ROOT = Path("/")


@frozen
class Command:
    """What to spawn. `script` is to be its stdin; `env` holds only the mark, nothing secret."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    script: bytes
    inherit: tuple[int, ...]
    mark: str


@frozen
class Commands:
    """Commands in `box`, each a run of its own; `path` goes before the system's in PATH."""

    reactor: Any
    box: Box
    path: Sequence[str]
    runs: Runs

    async def run(
        self,
        container: Container,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        output: Output,
        limits: Limits,
        mounts: Sequence[Mount],
    ) -> Exit:
        """Run one to its end, as `interface.Runtime` says."""
        sandboxed = self.box.sandboxed
        with self.ready(container, argv, env, limits, mounts) as ready:
            try:
                done = await spawn.run(
                    self.reactor,
                    ready.argv,
                    env=ready.env,
                    cwd=ROOT,
                    stdin=ready.script,
                    output=output,
                    limits=Limits(seconds=limits.seconds, output=limits.output),
                    keep=0,
                    grace=0 if sandboxed else spawn.GRACE,
                    inherit=ready.inherit,
                )
            finally:
                if not sandboxed:
                    await shielded(stopping.kill_run(self.reactor, ready.mark))
        return record.sandboxed_exit(done.exit) if sandboxed else done.exit

    @contextmanager
    def ready(
        self,
        container: Container,
        argv: Sequence[str],
        env: Mapping[str, str],
        limits: Limits,
        mounts: Sequence[Mount],
        *,
        service: bool = False,
    ) -> Iterator[Command]:
        """A `Command` whose descriptors are open until the block is left. Raises `ContainerError`.

        That of a sandboxed `service` writes its exit status where `record` reads it.
        """
        require(container, argv)
        box, mark = self.box, self.runs.mark()
        _hand_over(box, mounts)
        marking = marks.marking(container.directory, mark)
        with ExitStack() as stack:
            inherit: list[int] = []

            def held(fd: int) -> int:
                stack.callback(os.close, fd)
                inherit.append(fd)
                return fd

            options_fd = None
            if box.sandboxed:
                status_fd = held(record.open_status(container.directory)) if service else None
                options = sandbox.view(box, container, mounts, status_fd)
                options_fd = held(in_memory(sandbox.as_arguments(options)))
            words = (*sandbox.outer(box, options_fd), *sandbox.chain(box, limits), *argv)
            yield Command(words, marking, self._script(container, env), tuple(inherit), mark)

    def beside(
        self,
        container: Container,
        env: Mapping[str, str],
        limits: Limits,
        mounts: Sequence[Mount],
    ) -> Beside:
        """A place for a command that is spawned by somebody else. Its view is in the argv: there is
        nothing secret in it."""
        box = self.box
        options = [*sandbox.view(box, container, mounts)] if box.sandboxed else []
        return Beside(
            (*([box.bwrap, *options, "--"] if box.bwrap else []), *sandbox.links(box, limits)),
            marks.marking(container.directory, self.runs.visit()),
            sandbox.exported(self._environment(container, env), _hidden(box)),
            terminal=False,
        )

    def _script(self, container: Container, env: Mapping[str, str]) -> bytes:
        """What the last link of the chain reads: where to go, and the command's environment."""
        cwd = sandbox.APP if self.box.sandboxed else str(container.app)
        whole = self._environment(container, env)
        return sandbox.script(whole, cwd=cwd, without=_hidden(self.box))

    def _environment(self, container: Container, env: Mapping[str, str]) -> dict[str, str]:
        home, tmp = str(container.app), str(container.directory / "tmp")
        if self.box.sandboxed:
            home, tmp = sandbox.APP, str(sandbox.TMP)
        return sandbox.environment(env, home=home, tmp=tmp, path=self.path)


def require(container: Container, argv: Sequence[str]) -> None:
    """Raises `ContainerError` where there is nothing to run, or nowhere."""
    if not argv:
        raise ContainerError(f"container {container.name}: there is no command to run")
    if not container.app.is_dir():
        raise ContainerError(f"there is no container {container.name}")


def _hidden(box: Box) -> Sequence[str]:
    """Variables that a command in the sandbox does not see."""
    return marks.NAMES if box.sandboxed else ()


def _hand_over(box: Box, mounts: Sequence[Mount]) -> None:
    """Let the container's user write into the directories that are mounted writable."""
    if box.user is None:
        return
    for mount in mounts:
        if mount.writable and not mount.theirs:
            try:
                files.own_top(mount.source, box.user)
            except OSError as error:
                raise ContainerError(f"mount {mount.source}: {error.strerror}") from error
