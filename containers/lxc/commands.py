"""Commands of builds: each runs in a container that is there for it alone, and ends with it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import DeferredLock

from containers.interface import Container, ContainerError, Exit, Limits, Mount, Output, Say
from containers.lxc import made
from containers.lxc.caging import Cages
from containers.lxc.config import Files, Stack
from containers.lxc.ending import kill
from containers.lxc.launching import execute
from containers.lxc.net import Net
from containers.lxc.pool import Pool
from containers.lxc.progress import Lines
from containers.marks import Runs
from containers.watching import in_thread, shielded

SCRIPT = "/script"  # of a base, inside
BASE_LIMITS = Limits(processes=4096, seconds=3600.0, output=64 << 20)
RUN = "+run"  # what follows the name of a container in which a build runs; no name has a +


@define(eq=False)
class Commands:
    """Runs commands with what all containers of a ship have in common; below services in weight.

    Containers are below `root`. `env` is what scripts of bases get.
    """

    reactor: Any
    root: Path
    runs: Runs
    net: Net
    pool: Pool
    cages: Cages
    env: Mapping[str, str]
    _running: dict[str, DeferredLock] = field(factory=dict)

    def names(self) -> set[str]:
        """Of the containers in which one runs now."""
        return {f"{name}{RUN}" for name, lock in self._running.items() if lock.locked}

    def forget(self, name: str) -> None:
        """There is no container of that name any more."""
        self._running.pop(name, None)

    async def run(
        self,
        container: Container,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        output: Output,
        limits: Limits,
        mounts: Sequence[Mount] = (),
        root: bool = False,
        online: bool = True,
    ) -> Exit:
        """Run one on what was built of a container so far; one after another."""
        of, directory = made.read(container), container.directory
        built = made.upper(directory / made.BUILD)
        stack = Stack(of.layers, built, container.app, directory / "tmp")
        running = self._running.setdefault(container.name, DeferredLock())
        await running.acquire()
        try:
            return await self._execute(
                container.name, directory, stack, argv, env=env, output=output, limits=limits,
                mounts=mounts, root=root, ordered=of.ordered, online=online,
            )  # fmt: skip
        finally:
            running.release()

    async def provision(self, layers: Sequence[Path], upper: Path, script: bytes, say: Say) -> Exit:
        """Run the script of a base as root; what it changes is in `upper`, alone in its directory.

        A script without a first line of its own is one of bash's, as in the guides.
        """
        directory = upper.parent
        file = directory / "script"
        await in_thread(self.reactor, made.prepare_base, directory, file, script)
        interpreter = [] if script.startswith(b"#!") else ["/bin/bash"]
        stack = Stack((self.cages.ground.layer, *layers), upper)
        lines = Lines(say)
        try:
            return await self._execute(
                f"base-{self.runs.mark()}", directory, stack, [*interpreter, SCRIPT],
                env={**self.env, "HOME": "/root", "DEBIAN_FRONTEND": "noninteractive"},
                output=lines.take, limits=BASE_LIMITS, mounts=(Mount(file, SCRIPT),),
                root=True, ordered=True,
            )  # fmt: skip
        finally:
            os.chown(directory, 0, 0)

    async def _execute(
        self,
        name: str,
        directory: Path,
        stack: Stack,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        output: Output,
        limits: Limits,
        mounts: Sequence[Mount] = (),
        root: bool,
        ordered: bool,
        online: bool = True,
    ) -> Exit:
        await self.net.up()
        running = f"{name}{RUN}"
        address = self.pool.reserve(running, self.cages.plan.zone(ordered=ordered))
        place = Files(directory / made.COMMAND)
        try:
            cage = self.cages.cage(
                running, place, stack, limits, mounts, address, root=root, online=online
            )
            await self.net.clear(address)
            await self.net.open(address)
            exit = await execute(
                self.reactor, self.root, directory, cage, argv, env, output, self.runs.mark()
            )
            if online and not exit.ok:  # for want of what it could not fetch, it may be
                for line in await self.net.dropped():
                    output(f"\n{line}\n".encode())
            return exit
        except OSError as error:
            raise ContainerError(f"cannot run in {name}: {error}") from error
        finally:
            await shielded(kill(self.reactor, self.cages.cgroups, running))
            self.pool.release(running)
