"""The LXC runtime: unprivileged containers with a network and limits of their own."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from containers import files, marks, proc, record, spawn, stopping
from containers.boxing import DEFAULT_USER
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
from containers.lxc import cgroups, disks, made, network
from containers.lxc.backup import backup
from containers.lxc.bases import Bases
from containers.lxc.caging import Cages
from containers.lxc.commands import RUN, Commands
from containers.lxc.config import Files, Stack
from containers.lxc.disks import bound
from containers.lxc.ending import ask, kill
from containers.lxc.ground import Ground, closed_to_others, unreachable
from containers.lxc.idmap import ROOT_OUTSIDE
from containers.lxc.kinds import restored
from containers.lxc.launching import attach, beside, ended, launch
from containers.lxc.made import Made
from containers.lxc.net import Net
from containers.lxc.pool import Pool
from containers.proc import open_processes
from containers.record import Record
from containers.service import Service
from containers.sharing import share
from containers.watching import all_ended, in_thread, shielded

PORT = 3000  # of a service that is told no other
PROXIES = ("http_proxy", "https_proxy", "no_proxy")
BASES_AGE = 7 * 86400.0  # seconds that a base is kept that nobody asks for
ADDRESS = "address"  # a container's own until it is destroyed: a route may lead there all the time


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
        self.ground = Ground(home.resolve())
        self.ground.prepare()
        for place in (self.root, self.ground.directory):
            if closed := closed_to_others(place):
                raise ContainerError(unreachable(closed))
        tag = network.tag_of(self.root)
        self.plan = network.plan(
            tag,
            self.ground.network(wanted, tag),
            front=front,
            tests_reach_ship=tests_reach_ship,
            ipv6=network.has_ipv6(),
            mtu=network.uplink_mtu(),
        )
        self.cgroups = cgroups.of_this_host(tag)
        self._reactor = reactor
        self._main = main
        self._budget = budget
        self._token = secrets.token_hex(8)
        self._runs = 0
        self._net = Net(reactor, self.plan)
        self._pool = Pool(self.plan)
        self._cages = Cages(self.plan, self.cgroups, self.ground)
        proxies = {name: value for name, value in env.items() if name.lower() in PROXIES}
        self._commands = Commands(
            reactor, self.root, self._net, self._pool, self._cages, proxies, self._mark
        )
        self.bases = Bases(
            reactor, self.ground.bases, script=script, provision=self._commands.provision, env=env,
            most=build_disk, least=free_disk,
        )  # fmt: skip
        self._services: dict[str, Service] = {}
        self._exits: dict[str, Exit] = {}
        self._starting: dict[str, DeferredLock] = {}
        for name in files.names(self.root):
            address = _address_of(self.root / name)
            if address is not None:
                self._pool.claim(name, address)

    async def containerize(self, name: str, wish: Wish = WISH, say: Say = unsaid) -> Container:
        container = made.container_of(self.root, name)
        if container.directory.is_dir():
            return container
        base = self.bases.named(wish.base or self._main, wish.scripts)
        layers = await self.bases.layers(base, say)
        try:
            made.make(container, Made((self.ground.layer, *layers), wish.ordered, wish.disk))
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
        _check(container, argv)
        if Files(container.directory / made.SERVICE).config.exists():
            self._require_entrance(container)
            if root:
                raise ContainerError(f"{container.name} was started: nothing runs as root there")
            await self.freeze(container, False)
            return await attach(
                self._reactor, self.root, container, argv, env, output, limits, self._mark()
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
        starting = self._starting.setdefault(container.name, DeferredLock())
        await starting.acquire()
        try:
            return await self._start(container, argv, env, log, limits, mounts, address)
        except OSError as error:
            raise ContainerError(f"cannot start {container.name}: {error}") from error
        finally:
            starting.release()

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
        name = container.name
        _check(container, argv)
        if name in self._services:
            raise ContainerError(f"{name} is already running")
        of = made.read(container)
        in_thread(self._reactor, self.cgroups.stir)  # beside what comes before LXC
        await self._net.up()
        await self._kill(name)
        if of.disk is not None:
            await bound(self._reactor, container.directory, of.disk)
        port = _port(env.get("PORT", ""))
        wanted = IPv4Address(address.host) if address else _address_of(container.directory)
        given = self._pool.reserve(name, self.plan.zone(ordered=of.ordered), wanted)
        directory = container.directory
        built, released = (made.upper(directory / part) for part in (made.BUILD, made.RELEASE))
        stack = Stack((built, *of.layers), released)
        known = Record(Address(str(given), port), self._mark())
        try:
            cage = self._cages.cage(
                name, Files(directory / made.SERVICE), stack, limits, mounts, given, port=port
            )
            made.cover(container)
            (directory / ADDRESS).write_text(f"{given}\n")
            record.write(directory, known)
            await self._net.clear(given)
            await self._net.open(given)
            child = await launch(
                self._reactor, self.root, directory, cage, argv, {**env, "PORT": str(port)}, log,
                known.mark,
            )  # fmt: skip
        except BaseException:
            await shielded(self._kill(name))
            record.forget(container.directory)
            raise
        self._serve(container, known, child)
        return known.address

    def adopt(self, container: Container) -> Address | None:
        known = record.read(container.directory)
        if known is None or container.name in self._services:
            return known.address if known else None
        # A ship killed during the start leaves an init that waits for ever for its hook.
        found = self.cgroups.members(container.name)
        if not any(one.inside == cgroups.SHELL for one in found):
            return None
        self.cgroups.freeze(container.name, False)
        self._pool.claim(container.name, IPv4Address(known.address.host))
        self._serve(container, known, None)
        return known.address

    async def exited(self, container: Container) -> Exit:
        service = self._services.get(container.name)
        if service is not None:
            return await service.ended()
        return self._exits.get(container.name) or Exit()

    def listening(self, container: Container) -> list[int]:
        init = self.cgroups.init(container.name)
        return proc.listening(init.pid) if init else []

    async def stop(self, container: Container, *, grace: float) -> None:
        name = container.name
        await self._settled(name)
        service = self._services.get(name)
        known = service.known if service else record.read(container.directory)
        if known is None:
            return
        try:
            if service is not None and grace > 0:
                service.stopping = True
                await ask(self._reactor, self.cgroups, name, grace)
        finally:
            try:
                await shielded(self._put_away(container, known.mark, service))
            except ContainerError:
                if service is not None:  # it lives: its end is still to be told
                    service.stopping = False
                raise

    async def _settled(self, name: str) -> None:
        """Wait until nobody is starting it."""
        starting = self._starting.get(name)
        if starting is not None:
            await starting.run(lambda: None)

    async def freeze(self, container: Container, frozen: bool) -> None:
        await in_thread(self._reactor, self.cgroups.freeze, container.name, frozen)

    async def destroy(self, container: Container) -> None:
        await shielded(self._destroy(container))

    async def sweep(self, keep: set[str]) -> None:
        await self._net.up()
        known = {name: record.read(self.root / name) for name in keep}
        services = {(self.root / name, one.mark) for name, one in known.items() if one}
        # Beside one another: the monitor of a dead one may have to be waited for.
        strays = self.cgroups.names() - keep - self._commands.names()
        for ending in [Deferred.fromCoroutine(self._kill(name)) for name in strays]:
            await ending

        def unwanted(mark: marks.Marked) -> bool:
            old = not mark.run.startswith((self._token, marks.VISIT))
            ours = mark.directory.parent == self.root and old
            return ours and (mark.directory, mark.run) not in services

        await stopping.kill_all(self._reactor, lambda: marks.members(unwanted))
        await self._net.clear_strays(self._pool.owned)
        for name in keep & self.names():
            if self.cgroups.init(name) is None:
                await self._leave_address(made.container_of(self.root, name))
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
        self._require_entrance(container)
        await self.freeze(container, False)
        return beside(self.root, container, env, f"{marks.VISIT}{self._mark()}")

    def _require_entrance(self, container: Container) -> None:
        if self.cgroups.init(container.name) is None:
            raise ContainerError(f"{container.name} does not run")
        if not self.cgroups.monitors(container.name):
            raise ContainerError(
                f"nobody can join {container.name}, for LXC's monitor of it was killed: "
                "restart the service"
            )

    async def backup(self, container: Container, file: Path) -> None:
        """As the interface says. What is written meanwhile may be in it or not."""
        of, directory = made.read(container), container.directory
        own = [made.upper(directory / part) for part in (made.RELEASE, made.BUILD)]
        await backup(self._reactor, [*own, *of.layers], file)

    async def restore(self, name: str, source: str, say: Say) -> None:
        await self.bases.layers(restored(name, source), say)

    async def uphold(self) -> None:
        if self._services:
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
        for service in self._services.values():
            service.stopping = True

    async def leave(self) -> None:
        await self._net.down()
        self.cgroups.leave()

    def _serve(self, container: Container, known: Record, child: spawn.Child | None) -> None:
        name = container.name

        def over(exit: Exit) -> None:
            if self._services.get(name) is service:
                del self._services[name]
                self._exits[name] = exit

        self._exits.pop(name, None)
        service = self._services[name] = Service(
            known,
            gone=self._gone(name, child),
            close=lambda: self._close(container, child),
            over=over,
        )

    async def _gone(self, name: str, child: spawn.Child | None) -> None:
        """Wait for the end of a container: of its monitor, or of its init if that is killed."""
        if child is not None:
            await child.ended()
        while (init := self.cgroups.init(name)) is not None:
            await all_ended(self._reactor, open_processes([init]))

    async def _close(self, container: Container, child: spawn.Child | None) -> Exit:
        """Put away what is left of a container that has ended."""
        await self._kill(container.name)
        await self._leave_address(container)
        if child is None:
            return Exit()
        await child.close()
        place = Files(container.directory / made.SERVICE)
        return ended(place, record.sandboxed_exit(child.exit))

    async def _put_away(self, container: Container, run: str, service: Service | None) -> None:
        """End what is left of a service and forget that it was started."""
        await self._kill(container.name)
        await self._leave_address(container)
        await self._finish(container, service)
        known = record.read(container.directory)
        if known is None or known.mark == run:  # else it was started again meanwhile
            record.forget(container.directory)

    async def _leave_address(self, container: Container) -> None:
        address = _address_of(container.directory)
        if address is not None:
            await self._net.close(address)

    async def _kill(self, name: str) -> None:
        await kill(self._reactor, self.cgroups, name)

    async def _destroy(self, container: Container) -> None:
        name, directory = container.name, container.directory
        await self._settled(name)
        service = self._services.get(name)
        for running in (name, f"{name}{RUN}"):
            await self._kill(running)
        await stopping.kill_all(self._reactor, lambda: marks.members_of_container(directory))
        await self._finish(container, service)
        self._exits.pop(name, None)
        self._commands.forget(name)
        self._starting.pop(name, None)
        if (address := _address_of(directory)) is not None:
            await self._net.open(address)
        self._pool.release(name)
        try:
            for there in (directory, directory.with_name(files.GOING + name)):
                await disks.unmount(self._reactor, there / made.RELEASE)
            await in_thread(self._reactor, files.remove_container, container)
        except OSError as error:
            raise ContainerError(f"cannot remove {name}: {error}") from error

    async def _finish(self, container: Container, service: Service | None) -> None:
        if service is not None and self._services.get(container.name) is service:
            await service.finish()

    def _mark(self) -> str:
        self._runs += 1
        return f"{self._token}-{self._runs}"


def _check(container: Container, argv: Sequence[str]) -> None:
    if not argv:
        raise ContainerError(f"container {container.name}: there is no command to run")
    if not container.app.is_dir():
        raise ContainerError(f"there is no container {container.name}")


def _address_of(directory: Path) -> IPv4Address | None:
    with suppress(OSError, ValueError):
        return IPv4Address((directory / ADDRESS).read_text().strip())
    return None


def _port(text: str) -> int:
    """The port that a service is told, by its environment's PORT. Raises `ContainerError`."""
    if not text:
        return PORT
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise ContainerError(f"PORT: {ascii(text)[:20]} is not a port, 1 to 65535")
    return int(text)
