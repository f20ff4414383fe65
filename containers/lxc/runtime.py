"""The LXC runtime: unprivileged containers with a network and limits of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from containers import files, proc
from containers.boxing import DEFAULT_USER
from containers.command import require
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
from containers.lxc import caging, disks, made
from containers.lxc.backup import backup
from containers.lxc.bases import Bases
from containers.lxc.commands import Commands
from containers.lxc.config import Files
from containers.lxc.ending import kill
from containers.lxc.idmap import ROOT_OUTSIDE
from containers.lxc.kinds import restored
from containers.lxc.made import Made
from containers.lxc.net import Net
from containers.lxc.pool import Pool
from containers.lxc.services import LxcServices
from containers.marks import Runs
from containers.sharing import share
from containers.watching import in_thread, shielded

PROXIES = ("http_proxy", "https_proxy", "no_proxy")
BASES_AGE = 7 * 86400.0  # seconds that a base is kept that nobody asks for


class LxcRuntime:
    """Containers are directories `root/NAME`; see `interface.Runtime` for what each method does.

    A container is an overlay of what its service writes, what was built, and its base. Its users
    are nobody's on the host (`idmap`), it has no capability, a filter of system calls, limits that
    are checked before it runs, and an address of its own, see `network`. `home` is for what all
    containers share, bases foremost; `env` is what downloads of bases need; `front` is where the
    ship's front door is; `main` names the base of who wishes for none; bases that nobody uses are
    kept up to `budget` bytes; the making of one may take `build_disk` bytes and leaves `free_disk`.
    Only for root. Raises `ContainerError` for what this host lacks.
    """

    name = "lxc"
    freezes = True
    dropped: Sequence[str] = ()
    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        root: Path,
        *,
        home: Path,
        script: Path,
        env: Mapping[str, str],
        front: tuple[IPv4Address, int],
        wanted: IPv4Network | None = None,
        tests_reach_ship: bool = False,
        main: str = "",
        budget: int = 20 << 30,
        build_disk: int | None = None,
        free_disk: int = 0,
    ) -> None:
        root.mkdir(parents=True, exist_ok=True)
        root.chmod(0o711)
        self.root = root.resolve()
        self._cages = caging.of_this_host(
            self.root, home.resolve(), front=front, wanted=wanted, tests_reach_ship=tests_reach_ship
        )
        self.plan, self.cgroups = self._cages.plan, self._cages.cgroups
        self._reactor = reactor
        self._main = main
        self._budget = budget
        self._net = Net(reactor, self.plan)
        proxies = {name: value for name, value in env.items() if name.lower() in PROXIES}
        shared = (reactor, self.root, Runs(), self._net, Pool(self.plan), self._cages)
        self._commands = Commands(*shared, proxies)
        self.bases = Bases(
            reactor, self._cages.ground.bases, script=script, provision=self._commands.provision,
            env=env, most=build_disk, least=free_disk,
        )  # fmt: skip
        self._services = LxcServices(*shared)
        self._services.claim_addresses(self.names())

    async def containerize(self, name: str, wish: Wish = WISH, say: Say = unsaid) -> Container:
        container = made.container_of(self.root, name)
        if container.directory.is_dir():
            return container
        base = self.bases.named(wish.base or self._main, wish.scripts)
        layers = await self.bases.layers(base, say)
        try:
            made.make(container, Made((self._cages.ground.layer, *layers), wish.ordered, wish.disk))
        except OSError as error:
            raise ContainerError(f"cannot make container {name}: {error.strerror}") from error
        return container

    def find(self, name: str) -> Container | None:
        container = made.container_of(self.root, name)
        return container if container.directory.is_dir() else None

    def names(self) -> set[str]:
        return files.names(self.root)

    def seen_at(self, container: Container, mount: Mount) -> str:
        return mount.at

    def app_at(self, container: Container) -> str:
        return "/app"

    def own(self, container: Container, also: Sequence[Path] = ()) -> None:
        """As the interface says; takes as long as there are files, so call it in a thread."""
        files.own(container, also, DEFAULT_USER)

    def share(self, directory: Path) -> bool:
        return share(directory, {DEFAULT_USER.uid, ROOT_OUTSIDE.uid})

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
        """As the interface says: alone, or beside the service, with its limits, once there is one.
        A service that is down has no place to run anything in."""
        require(container, argv)
        if Files(container.directory / made.SERVICE).config.exists():
            return await self._services.run(
                container, argv, env=env, output=output, limits=limits, root=root
            )
        return await self._commands.run(
            container, argv, env=env, output=output, limits=limits, mounts=mounts, root=root,
            online=online,
        )  # fmt: skip

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
        """As the interface says. Another address is given if that of `address` is taken.

        `env` may name the PORT. What is left of an earlier service of the container is killed.
        """
        return await self._services.start(container, argv, env, log, limits, mounts, address)

    def adopt(self, container: Container) -> Address | None:
        return self._services.adopt(container)

    async def exited(self, container: Container) -> Exit:
        return await self._services.exited(container)

    def listening(self, container: Container) -> list[int]:
        init = self.cgroups.init(container.name)
        return proc.listening(init.pid) if init else []

    async def stop(self, container: Container, *, grace: float) -> None:
        await self._services.stop(container, grace=grace)

    async def freeze(self, container: Container, frozen: bool) -> None:
        await self._services.freeze(container, frozen)

    async def destroy(self, container: Container) -> None:
        await shielded(self._destroy(container))

    async def sweep(self, keep: set[str]) -> None:
        await self._net.up()
        # Beside one another: the monitor of a dead one may have to be waited for.
        strays = self.cgroups.names() - keep - self._commands.names()
        await gatherResults([Deferred.fromCoroutine(self._kill_stray(name)) for name in strays])
        await self._services.sweep(keep & self.names())
        for name in self.names() - keep:
            await self.destroy(made.container_of(self.root, name))
        for name in keep & self.names():
            await in_thread(self._reactor, files.remove_halves, self.root, name)

    async def expose(self, ports: Mapping[int, Address]) -> None:
        await self._net.expose({port: IPv4Address(one.host) for port, one in ports.items()})

    async def beside(
        self,
        container: Container,
        *,
        env: Mapping[str, str],
        limits: Limits,
        mounts: Sequence[Mount] = (),
    ) -> Beside:
        """As the interface says: in the limits of the service, with what it sees."""
        return await self._services.beside(container, env)

    async def backup(self, container: Container, file: Path) -> None:
        """As the interface says. What is written meanwhile may be in it or not."""
        of, directory = made.read(container), container.directory
        own = [made.upper(directory / part) for part in (made.RELEASE, made.BUILD)]
        await backup(self._reactor, [*own, *of.layers], file)

    async def restore(self, name: str, source: str, say: Say) -> None:
        await self.bases.layers(restored(name, source), say)

    async def uphold(self) -> None:
        if self._services.names():
            await self._net.up()
        found = await self._net.dropped()
        for line in found:
            if line not in self.dropped:
                self._log.warn("{line}", line=line)
        self.dropped = found

    async def tidy(self) -> list[str]:
        used = made.used_layers(self.root, sorted(self.names()))
        return await self.bases.collect(used, age=BASES_AGE, budget=self._budget)

    def let_go(self) -> None:
        self._services.let_go()

    async def leave(self) -> None:
        await self._net.down()
        self.cgroups.leave()

    async def _kill_stray(self, name: str) -> None:
        """One that will not die is logged: all others are not to wait for it."""
        try:
            await kill(self._reactor, self.cgroups, name)
        except ContainerError:
            self._log.failure("{name} is nobody's, and does not end", name=name)

    async def _destroy(self, container: Container) -> None:
        name, directory = container.name, container.directory
        await self._services.clear(container)
        self._commands.forget(name)
        try:
            for there in (directory, directory.with_name(files.GOING + name)):
                await disks.unmount(self._reactor, there / made.RELEASE)
            await in_thread(self._reactor, files.remove_container, container)
        except OSError as error:
            raise ContainerError(f"cannot remove {name}: {error}") from error
