"""One command in a container, ready to be spawned: argv, descriptors, the script of its start."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from attrs import frozen

from containers import files, marks, record, sandbox
from containers.interface import Beside, Container, ContainerError, Limits, Mount
from containers.sandbox import Box
from containers.spawn import in_memory


@frozen
class Command:
    """What to spawn. `script` is to be its stdin; `env` holds only the mark, nothing secret."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    script: bytes
    inherit: tuple[int, ...]
    mark: str


@contextmanager
def command(
    box: Box,
    container: Container,
    argv: Sequence[str],
    *,
    mark: str,
    env: Mapping[str, str],
    path: Sequence[str],
    limits: Limits,
    mounts: Sequence[Mount],
    service: bool,
) -> Iterator[Command]:
    """A `Command` whose descriptors are open until the block is left. Raises `ContainerError`.

    That of a sandboxed `service` writes its exit status where `record` reads it.
    """
    if not argv:
        raise ContainerError(f"container {container.name}: there is no command to run")
    if not container.app.is_dir():
        raise ContainerError(f"there is no container {container.name}")
    _hand_over(box, mounts)
    marking = {marks.CONTAINER: str(container.directory), marks.RUN: mark}
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
        yield Command(words, marking, _script(box, container, env, path), tuple(inherit), mark)


def beside(
    box: Box,
    container: Container,
    mark: str,
    env: Mapping[str, str],
    path: Sequence[str],
    limits: Limits,
    mounts: Sequence[Mount],
) -> Beside:
    """A place for a command that is spawned by somebody else. Its view is in the argv: there is
    nothing secret in it."""
    options = [*sandbox.view(box, container, mounts)] if box.sandboxed else []
    return Beside(
        (*([box.bwrap, *options, "--"] if box.bwrap else []), *sandbox.links(box, limits)),
        {marks.CONTAINER: str(container.directory), marks.RUN: mark},
        sandbox.exported(_environment(box, container, env, path), _hidden(box)),
        terminal=False,
    )


def _script(box: Box, container: Container, env: Mapping[str, str], path: Sequence[str]) -> bytes:
    """What the last link of the chain reads: where to go, and the environment of the command."""
    cwd = sandbox.APP if box.sandboxed else str(container.app)
    whole = _environment(box, container, env, path)
    return sandbox.script(whole, cwd=cwd, without=_hidden(box))


def _hidden(box: Box) -> Sequence[str]:
    """Variables that a command in the sandbox does not see."""
    return marks.NAMES if box.sandboxed else ()


def _environment(
    box: Box, container: Container, env: Mapping[str, str], path: Sequence[str]
) -> dict[str, str]:
    if box.sandboxed:
        return sandbox.environment(env, home=sandbox.APP, tmp=str(sandbox.TMP), path=path)
    app, tmp = str(container.app), str(container.directory / "tmp")
    return sandbox.environment(env, home=app, tmp=tmp, path=path)


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
