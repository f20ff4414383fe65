"""The embedded runtime: a release is a directory, its service a process group in a sandbox."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any

from attrs import evolve

from containers import boxing, command, files, marks, record, sandbox, spawn, stopping
from containers.command import Command
from containers.interface import (
    WISH,
    Address,
    Beside,
    Container,
    ContainerError,
    Exit,
    Limits,
    Mount,
    Output,
    Say,
    Wish,
    unsaid,
)
from containers.ports import Ports
from containers.proc import is_alive, open_process
from containers.record import Record
from containers.sandbox import User
from containers.service import Service
from containers.sharing import share
from containers.watching import in_thread, readable, shielded

HOST = "127.0.0.1"
ROOT = Path("/")
NOT_HERE = "that takes real containers: a ship with STARPHLEET_RUNTIME=lxc"


class ProcessRuntime:
    """Containers are directories `root/NAME`; see `interface.Runtime` for what each method does.

    With bubblewrap a command sees the host's system (`/usr` and chosen files of `/etc`) read-only,
    its own `/app` and `/tmp`, what is mounted for it, `also_readable` (interpreters that live
    elsewhere, at the same path), and its own processes; nothing else of the host's files and
    processes. The network is the host's, with every port and abstract socket on it. Without
    bubblewrap (`sandboxed` is False, `reason` says why) there is no isolation but the user's.

    Limits are those of `setrlimit`: memory and open files bound each process, not their sum;
    processes are counted for each command in the sandbox, and for the whole user without it or
    where user namespaces are forbidden. There is no quota of memory, CPU or disk.

    If the ship is root, commands run as `user` (numeric ids, 20000 if not given). Otherwise they
    run as the ship's own user. `path` goes before the system's directories in PATH.
    Making one of these blocks for some 10 ms, and raises `ContainerError`: `sandbox=True` insists.
    """

    name = "process"
    freezes = False
    dropped: Sequence[str] = ()

    def __init__(
        self,
        reactor: Any,
        root: Path,
        *,
        ports: range,
        sandbox: bool | None = None,
        user: User | None = None,
        path: Sequence[str] = (),
        also_readable: Sequence[Path] = (),
    ) -> None:
        root.mkdir(parents=True, exist_ok=True)
        root.chmod(0o711)
        self.root = root.resolve()
        self._reactor = reactor
        self._box, self.reason = boxing.choose(self.root, sandbox, user, also_readable)
        self._path = tuple(path)
        self._token = secrets.token_hex(8)
        self._runs = 0
        self._ports = Ports(ports)
        self._services: dict[str, Service] = {}
        self._exits: dict[str, Exit] = {}
        for name in files.names(self.root):
            known = record.read(self.root / name)
            if known is not None:
                self._ports.claim(name, known.address.port)

    @property
    def sandboxed(self) -> bool:
        return self._box.sandboxed

    async def containerize(self, name: str, wish: Wish = WISH, say: Say = unsaid) -> Container:
        """As the interface says; refuses wishes for a base, or for limits that need cgroups."""
        limits = {"STARPHLEET_CPUS": wish.cpus, "STARPHLEET_DISK": wish.disk}
        for asked in (setting for setting, limit in limits.items() if limit is not None):
            raise ContainerError(
                f"{asked}: the process runtime cannot limit that; a ship with "
                "STARPHLEET_RUNTIME=lxc can"
            )
        if wish.base:
            raise ContainerError(
                f"STARPHLEET_BASE={wish.base}: the process runtime has no base containers; "
                "a ship with STARPHLEET_RUNTIME=lxc has"
            )
        container = files.container_of(self.root, name)
        try:
            files.make(container, self._box.user)
        except OSError as error:
            raise ContainerError(f"cannot make container {name}: {error.strerror}") from error
        return container

    def find(self, name: str) -> Container | None:
        container = files.container_of(self.root, name)
        return container if container.directory.is_dir() else None

    def names(self) -> set[str]:
        return files.names(self.root)

    def seen_at(self, container: Container, mount: Mount) -> str:
        return mount.at if self.sandboxed else str(mount.source)

    def app_at(self, container: Container) -> str:
        return sandbox.APP if self.sandboxed else str(container.app)

    def own(self, container: Container, also: Sequence[Path] = ()) -> None:
        """As the interface says; takes as long as there are files, so call it in a thread."""
        if self._box.user is not None:
            files.own(container, also, self._box.user)

    def share(self, directory: Path) -> bool:
        if self._box.user is None:
            return True
        return share(directory, {self._box.user.uid})

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
        """As the interface says; there is no root inside."""
        with self._command(container, argv, env, limits, mounts) as ready:
            try:
                done = await spawn.run(
                    self._reactor,
                    ready.argv,
                    env=ready.env,
                    cwd=ROOT,
                    stdin=ready.script,
                    output=output,
                    limits=Limits(seconds=limits.seconds, output=limits.output),
                    keep=0,
                    grace=0 if self.sandboxed else spawn.GRACE,
                    inherit=ready.inherit,
                )
            finally:
                if not self.sandboxed:
                    await shielded(self._kill_run(ready.mark))
        return record.sandboxed_exit(done.exit) if self.sandboxed else done.exit

    async def start(
        self,
        container: Container,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        log: Path,
        limits: Limits,
        mounts: Sequence[Mount] = (),
        address: Address | None = None,
    ) -> Address:
        """As the interface says. Another free port is given if that of `address` is taken.

        What is left of an earlier service of the container is killed first.
        """
        if container.name in self._services:
            raise ContainerError(f"{container.name} is already running")
        earlier = record.read(container.directory)
        if earlier is not None:
            await self._kill_run(earlier.mark)
        port = self._ports.reserve(container.name, address.port if address else None)
        given = Address(HOST, port)
        try:
            env = {**env, "PORT": str(port)}
            with self._command(container, argv, env, limits, mounts, service=True) as ready:
                self._launch(container, ready, given, log)
        except (ContainerError, OSError) as error:
            self._ports.release(container.name)
            raise ContainerError(f"cannot start {container.name}: {error}") from error
        return given

    def adopt(self, container: Container) -> Address | None:
        known = record.read(container.directory)
        if known is None or container.name in self._services:
            return known.address if known else None
        leader = known.leader or marks.leader_of_run(known.mark)
        if leader is None or not is_alive(leader):
            return None
        self._ports.claim(container.name, known.address.port)
        self._serve(container, evolve(known, leader=leader), None)
        return known.address

    async def exited(self, container: Container) -> Exit:
        service = self._services.get(container.name)
        if service is not None:
            return await service.ended()
        return self._exits.get(container.name) or record.recorded_exit(container.directory)

    def listening(self, container: Container) -> list[int]:
        return marks.ports_of_container(container.directory)

    async def stop(self, container: Container, *, grace: float) -> None:
        service = self._services.get(container.name)
        known = service.known if service else record.read(container.directory)
        if known is None:
            return
        try:
            if service is not None and grace > 0:
                service.stopping = True
                await stopping.ask(self._reactor, known, grace, sandboxed=self.sandboxed)
        finally:
            await shielded(self._put_away(container, known.mark, service))

    async def freeze(self, container: Container, frozen: bool) -> None:
        raise ContainerError(NOT_HERE)

    async def destroy(self, container: Container) -> None:
        await shielded(self._destroy(container))

    async def sweep(self, keep: set[str]) -> None:
        known = {name: record.read(self.root / name) for name in keep}
        services = {(self.root / name, one.mark) for name, one in known.items() if one}

        def unwanted(mark: marks.Marked) -> bool:
            old = not mark.run.startswith((self._token, marks.VISIT))
            ours = mark.directory.parent == self.root and old
            return ours and (mark.directory, mark.run) not in services

        await stopping.kill_all(self._reactor, lambda: marks.members(unwanted))
        for name in self.names() - keep:
            await self.destroy(files.container_of(self.root, name))
        for name in keep & self.names():
            await in_thread(self._reactor, files.remove_halves, self.root, name)

    async def expose(self, ports: Mapping[int, Address]) -> None:
        """Services are on the host's network: they listen on their ports themselves."""

    async def beside(
        self,
        container: Container,
        *,
        env: Mapping[str, str],
        limits: Limits,
        mounts: Sequence[Mount] = (),
    ) -> Beside:
        self._runs += 1
        mark = f"{marks.VISIT}{self._token}-{self._runs}"
        return command.beside(self._box, container, mark, env, self._path, limits, mounts)

    async def backup(self, container: Container, file: Path) -> None:
        raise ContainerError(NOT_HERE)

    async def restore(self, name: str, source: str, say: Say) -> None:
        raise ContainerError(NOT_HERE)

    async def uphold(self) -> None:
        """There is nothing that containers share."""

    async def tidy(self) -> list[str]:
        return []

    def let_go(self) -> None:
        for service in self._services.values():
            service.stopping = True

    async def leave(self) -> None:
        """There is nothing that containers share."""

    def _command(
        self,
        container: Container,
        argv: Sequence[str],
        env: Mapping[str, str],
        limits: Limits,
        mounts: Sequence[Mount],
        *,
        service: bool = False,
    ) -> AbstractContextManager[Command]:
        self._runs += 1
        return command.command(
            self._box,
            container,
            argv,
            mark=f"{self._token}-{self._runs}",
            env=env,
            path=self._path,
            limits=limits,
            mounts=mounts,
            service=service,
        )

    def _launch(self, container: Container, ready: Command, given: Address, log: Path) -> None:
        """Spawn the service between two notes about it: the second one names its process."""
        known = Record(given, ready.mark)
        with ExitStack() as stack:
            log_fd = files.open_log(log, self._box.user)
            stack.callback(os.close, log_fd)
            script_fd = spawn.in_memory(ready.script)
            stack.callback(os.close, script_fd)
            record.write(container.directory, known)
            child = spawn.launch(
                self._reactor,
                ready.argv,
                env=ready.env,
                cwd=ROOT,
                stdin=script_fd,
                stdout=log_fd,
                inherit=ready.inherit,
            )
        self._serve(container, evolve(known, leader=child.process), child)

    def _serve(self, container: Container, known: Record, child: spawn.Child | None) -> None:
        name = container.name

        def over(exit: Exit) -> None:
            self._services.pop(name, None)
            self._exits[name] = exit

        self._exits.pop(name, None)
        self._services[name] = Service(
            known,
            gone=self._gone(known, child),
            close=lambda: self._close(container, child),
            over=over,
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
            gone = readable(self._reactor, pidfd)
            os.close(pidfd)
            await gone

    async def _close(self, container: Container, child: spawn.Child | None) -> Exit:
        """Reap it, kill what is left of its group; its exit is what bubblewrap wrote down."""
        if child is not None:
            await child.close()
        told = record.recorded_exit(container.directory)
        return told if child is None or told != Exit() else child.exit

    async def _put_away(self, container: Container, run: str, service: Service | None) -> None:
        """Kill what is left of a service and forget that it was started."""
        await self._kill_run(run)
        await self._finish(container, service)
        known = record.read(container.directory)
        if known is None or known.mark == run:  # else it was started again meanwhile
            record.forget(container.directory)
            self._ports.release(container.name)

    async def _finish(self, container: Container, service: Service | None) -> None:
        if service is not None and self._services.get(container.name) is service:
            await service.finish()

    async def _kill_run(self, run: str) -> None:
        await stopping.kill_all(self._reactor, lambda: marks.members_of_run(run))

    async def _destroy(self, container: Container) -> None:
        directory = container.directory
        service = self._services.get(container.name)
        await stopping.kill_all(self._reactor, lambda: marks.members_of_container(directory))
        await self._finish(container, service)
        self._exits.pop(container.name, None)
        self._ports.release(container.name)
        try:
            await in_thread(self._reactor, files.remove_container, container)
        except OSError as error:
            raise ContainerError(f"cannot remove {container.name}: {error}") from error
