"""Services of LXC: each runs in a container of its name, which other commands may join."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address
from pathlib import Path

from attrs import define

from containers import record, spawn
from containers.interface import (
    Address,
    Beside,
    Container,
    ContainerError,
    Exit,
    Limits,
    Mount,
    Output,
)
from containers.lxc import cgroups, made
from containers.lxc.caging import Cages
from containers.lxc.commands import RUN
from containers.lxc.config import Cage, Files, Stack
from containers.lxc.disks import bound
from containers.lxc.ending import ask, kill
from containers.lxc.launching import attach, beside, ended, launch
from containers.lxc.net import Net
from containers.lxc.pool import Pool
from containers.proc import open_processes
from containers.record import Record
from containers.services import Services
from containers.watching import all_ended, in_thread, shielded

PORT = 3000  # of a service that is told no other


@define(eq=False)
class LxcServices(Services):
    """Each has an address from the first start until its container goes: a route may lead there
    all the time."""

    net: Net
    pool: Pool
    cages: Cages

    def claim_addresses(self, names: set[str]) -> None:
        """Give nobody else the addresses of these containers."""
        for name in names:
            address = made.address(self.root / name)
            if address is not None:
                self.pool.claim(name, address)

    def adopt(self, container: Container) -> Address | None:
        known = record.read(container.directory)
        if known is None or container.name in self._running:
            return known.address if known else None
        # A ship killed during the start leaves an init that waits for ever for its hook.
        found = self.cages.cgroups.members(container.name)
        if not any(one.inside == cgroups.SHELL for one in found):
            return None
        self.cages.cgroups.freeze(container.name, False)
        self.pool.claim(container.name, IPv4Address(known.address.host))
        self._serve(container, known, None)
        return known.address

    async def run(
        self,
        container: Container,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        output: Output,
        limits: Limits,
        root: bool,
    ) -> Exit:
        """Run a command beside a service. One that is down has no place to run anything in."""
        self._require_entrance(container)
        if root:
            raise ContainerError(f"{container.name} was started: nothing runs as root there")
        await self.freeze(container, False)
        return await attach(
            self.reactor, self.root, container, argv, env, output, limits, self.runs.mark()
        )

    async def beside(self, container: Container, env: Mapping[str, str]) -> Beside:
        """Where somebody else than the ship runs one."""
        self._require_entrance(container)
        await self.freeze(container, False)
        return beside(self.root, container, env, self.runs.visit())

    async def freeze(self, container: Container, frozen: bool) -> None:
        await in_thread(self.reactor, self.cages.cgroups.freeze, container.name, frozen)

    async def clear(self, container: Container) -> None:
        name = container.name
        await self._settled(name)
        for running in (name, f"{name}{RUN}"):
            await self._kill(running)
        await super().clear(container)
        if (address := made.address(container.directory)) is not None:
            await self.net.open(address)
        self.pool.release(name)

    async def sweep(self, keep: set[str]) -> None:
        await super().sweep(keep)
        await self.net.clear_strays(self.pool.owned)
        for name in keep:
            if self.cages.cgroups.init(name) is None:
                await self._leave_address(self.root / name)

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
        name, directory = container.name, container.directory
        of = made.read(container)
        in_thread(self.reactor, self.cages.cgroups.stir)  # beside what comes before LXC
        await self.net.up()
        await self._kill(name)
        if of.disk is not None:
            await bound(self.reactor, directory, of.disk)
        port = _port(env.get("PORT", ""))
        wanted = IPv4Address(address.host) if address else made.address(directory)
        given = self.pool.reserve(name, self.cages.plan.zone(ordered=of.ordered), wanted)
        known = Record(Address(str(given), port), self.runs.mark())
        stack = _stack(directory, of.layers)
        place = Files(directory / made.SERVICE)
        try:
            cage = self.cages.cage(name, place, stack, limits, mounts, given, port=port)
            child = await self._launch(container, known, cage, argv, env, log)
        except BaseException:
            await shielded(self._end(container, known.mark))
            self._forget(container)
            raise
        self._serve(container, known, child)
        return known.address

    async def _launch(
        self,
        container: Container,
        known: Record,
        cage: Cage,
        argv: Sequence[str],
        env: Mapping[str, str],
        log: Path,
    ) -> spawn.Child:
        """Begin it, noted before: a ship that is killed meanwhile leaves word of it."""
        directory = container.directory
        made.cover(container)
        made.keep_address(directory, cage.address)
        record.write(directory, known)
        await self.net.clear(cage.address)
        await self.net.open(cage.address)
        env = {**env, "PORT": str(cage.port)}
        return await launch(self.reactor, self.root, directory, cage, argv, env, log, known.mark)

    def _serve(self, container: Container, known: Record, child: spawn.Child | None) -> None:
        self._look_after(
            container,
            known,
            gone=self._gone(container.name, child),
            close=lambda: self._close(container, child),
        )

    async def _gone(self, name: str, child: spawn.Child | None) -> None:
        """Wait for the end of a container: of its monitor, or of its init if that is killed."""
        if child is not None:
            await child.ended()
        while (init := self.cages.cgroups.init(name)) is not None:
            await all_ended(self.reactor, open_processes([init]))

    async def _close(self, container: Container, child: spawn.Child | None) -> Exit:
        """Put away what is left of a container that has ended."""
        await self._kill(container.name)
        await self._leave_address(container.directory)
        if child is None:
            return Exit()
        await child.close()
        place = Files(container.directory / made.SERVICE)
        return ended(place, record.sandboxed_exit(child.exit))

    async def _ask(self, container: Container, known: Record, grace: float) -> None:
        await ask(self.reactor, self.cages.cgroups, container.name, grace)

    async def _end(self, container: Container, run: str) -> None:
        await self._kill(container.name)
        await self._leave_address(container.directory)

    async def _leave_address(self, directory: Path) -> None:
        address = made.address(directory)
        if address is not None:
            await self.net.close(address)

    async def _kill(self, name: str) -> None:
        await kill(self.reactor, self.cages.cgroups, name)

    def _require_entrance(self, container: Container) -> None:
        if self.cages.cgroups.init(container.name) is None:
            raise ContainerError(f"{container.name} does not run")
        if not self.cages.cgroups.monitors(container.name):
            raise ContainerError(
                f"nobody can join {container.name}, for LXC's monitor of it was killed: "
                "restart the service"
            )


def _stack(directory: Path, layers: Sequence[Path]) -> Stack:
    """What a service writes, on what was built, on its base."""
    built, released = (made.upper(directory / part) for part in (made.BUILD, made.RELEASE))
    return Stack((built, *layers), released)


def _port(text: str) -> int:
    """The port that a service is told, by its environment's PORT. Raises `ContainerError`."""
    if not text:
        return PORT
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise ContainerError(f"PORT: {ascii(text)[:20]} is not a port, 1 to 65535")
    return int(text)
