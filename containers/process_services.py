"""Services of the embedded runtime: each is a process group, which is found again by its mark."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from attrs import define, evolve

from containers import files, marks, record, spawn, stopping
from containers.command import ROOT, Command, Commands
from containers.interface import Address, Container, ContainerError, Exit, Limits, Mount
from containers.ports import Ports
from containers.proc import is_alive, open_process
from containers.record import Record
from containers.services import Services
from containers.watching import readable

HOST = "127.0.0.1"


@define(eq=False)
class ProcessServices(Services):
    """Each has a port of the host's from its start until it is stopped or its container goes."""

    commands: Commands
    ports: Ports

    def claim_ports(self, names: Collection[str]) -> None:
        """Give nobody else the ports of services that may run in these containers."""
        for name in names:
            known = record.read(self.root / name)
            if known is not None:
                self.ports.claim(name, known.address.port)

    async def _start(
        self,
        container: Container,
        argv: Sequence[str],
        env: Mapping[str, str],
        log: Path,
        limits: Limits,
        mounts: Sequence[Mount],
        address: Address | None,
    ) -> Address:
        earlier = record.read(container.directory)
        if earlier is not None:
            await self._end(container, earlier.mark)
        port = self.ports.reserve(container.name, address.port if address else None)
        given = Address(HOST, port)
        try:
            env = {**env, "PORT": str(port)}
            with self.commands.ready(container, argv, env, limits, mounts, service=True) as ready:
                self._launch(container, ready, given, log)
        except (ContainerError, OSError) as error:
            self.ports.release(container.name)
            raise ContainerError(f"cannot start {container.name}: {error}") from error
        return given

    def adopt(self, container: Container) -> Address | None:
        known = record.read(container.directory)
        if known is None or container.name in self._running:
            return known.address if known else None
        leader = known.leader or marks.leader_of_run(known.mark)
        if leader is None or not is_alive(leader):
            return None
        self.ports.claim(container.name, known.address.port)
        self._serve(container, evolve(known, leader=leader), None)
        return known.address

    async def clear(self, container: Container) -> None:
        await super().clear(container)
        self.ports.release(container.name)

    def _launch(self, container: Container, ready: Command, given: Address, log: Path) -> None:
        """Spawn the service between two notes about it: the second one names its process."""
        known = Record(given, ready.mark)
        with ExitStack() as stack:
            log_fd = files.open_log(log, self.commands.box.user)
            stack.callback(os.close, log_fd)
            script_fd = spawn.in_memory(ready.script)
            stack.callback(os.close, script_fd)
            record.write(container.directory, known)
            child = spawn.launch(
                self.reactor,
                ready.argv,
                env=ready.env,
                cwd=ROOT,
                stdin=script_fd,
                stdout=log_fd,
                inherit=ready.inherit,
            )
        self._serve(container, evolve(known, leader=child.process), child)

    def _serve(self, container: Container, known: Record, child: spawn.Child | None) -> None:
        self._look_after(
            container,
            known,
            gone=self._gone(known, child),
            close=lambda: self._close(container, child),
        )
        # On a full disk the first note stays: by its mark the service is found all the same.
        with suppress(OSError):
            record.write(container.directory, known)

    async def _gone(self, known: Record, child: spawn.Child | None) -> None:
        """Wait for the end of the process that leads a service."""
        if child is not None:
            await child.ended()
            return
        pidfd = open_process(known.leader) if known.leader else None
        if pidfd is not None:
            gone = readable(self.reactor, pidfd)
            os.close(pidfd)
            await gone

    async def _close(self, container: Container, child: spawn.Child | None) -> Exit:
        """Reap it, kill what is left of its group; its exit is what bubblewrap wrote down."""
        if child is not None:
            await child.close()
        told = record.recorded_exit(container.directory)
        return told if child is None or told != Exit() else child.exit

    async def _ask(self, container: Container, known: Record, grace: float) -> None:
        sandboxed = self.commands.box.sandboxed
        await stopping.ask(self.reactor, known, grace, sandboxed=sandboxed)

    async def _end(self, container: Container, run: str) -> None:
        await stopping.kill_run(self.reactor, run)

    def _forget(self, container: Container) -> None:
        super()._forget(container)
        self.ports.release(container.name)
