"""One command in a container, ready to be spawned: argv, descriptors, the script of its start."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from attrs import frozen

from containers import files, marks, record, sandbox
from containers.interface import Container, ContainerError, Limits, Mount
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


def _script(box: Box, container: Container, env: Mapping[str, str], path: Sequence[str]) -> bytes:
    """What the last link of the chain reads: where to go, and the environment of the command."""
    if box.sandboxed:
        whole = sandbox.environment(env, home=sandbox.APP, tmp=str(sandbox.TMP), path=path)
        return sandbox.script(whole, cwd=sandbox.APP, without=marks.NAMES)
    app, tmp = str(container.app), str(container.directory / "tmp")
    return sandbox.script(sandbox.environment(env, home=app, tmp=tmp, path=path), cwd=app)


def _hand_over(box: Box, mounts: Sequence[Mount]) -> None:
    """Let the container's user write into the directories that are mounted writable."""
    if box.user is None:
        return
    for mount in mounts:
        if mount.writable:
            try:
                files.own_top(mount.source, box.user)
            except OSError as error:
                raise ContainerError(f"mount {mount.source}: {error.strerror}") from error
