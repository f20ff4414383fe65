"""The embedded runtime: a release is a directory, its service a process group in a sandbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from containers import boxing, files, marks, sandbox
from containers.command import Commands
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
from containers.marks import Runs
from containers.ports import Ports
from containers.process_services import ProcessServices
from containers.sandbox import User
from containers.sharing import share
from containers.watching import in_thread, shielded

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
        runs = Runs()
        self._commands = Commands(reactor, self._box, tuple(path), runs)
        self._services = ProcessServices(reactor, self.root, runs, self._commands, Ports(ports))
        self._services.claim_ports(self.names())

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
        return await self._commands.run(
            container, argv, env=env, output=output, limits=limits, mounts=mounts
        )

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
        return await self._services.start(container, argv, env, log, limits, mounts, address)

    def adopt(self, container: Container) -> Address | None:
        return self._services.adopt(container)

    async def exited(self, container: Container) -> Exit:
        return await self._services.exited(container)

    def listening(self, container: Container) -> list[int]:
        return marks.ports_of_container(container.directory)

    async def stop(self, container: Container, *, grace: float) -> None:
        await self._services.stop(container, grace=grace)

    async def freeze(self, container: Container, frozen: bool) -> None:
        raise ContainerError(NOT_HERE)

    async def destroy(self, container: Container) -> None:
        await shielded(self._destroy(container))

    async def sweep(self, keep: set[str]) -> None:
        await self._services.sweep(keep)
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
        return self._commands.beside(container, env, limits, mounts)

    async def backup(self, container: Container, file: Path) -> None:
        raise ContainerError(NOT_HERE)

    async def restore(self, name: str, source: str, say: Say) -> None:
        raise ContainerError(NOT_HERE)

    async def uphold(self) -> None:
        """There is nothing that containers share."""

    async def tidy(self) -> list[str]:
        return []

    def let_go(self) -> None:
        self._services.let_go()

    async def leave(self) -> None:
        """There is nothing that containers share."""

    async def _destroy(self, container: Container) -> None:
        await self._services.clear(container)
        try:
            await in_thread(self._reactor, files.remove_container, container)
        except OSError as error:
            raise ContainerError(f"cannot remove {container.name}: {error}") from error
