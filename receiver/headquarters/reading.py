"""A headquarters, read from one commit: files in, standing orders out."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from attrs import define, evolve, frozen
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.logger import Logger

from containers.interface import ContainerError
from containers.watching import in_thread
from hooks.errors import Refused
from hooks.repository import Blob, Repository
from hooks.standing import File, Source, StandingOrders
from proxy.certificates import pairs
from proxy.protection import LdapServer, Sign
from receiver.headquarters.commands import check_path, remote_source, standing
from receiver.headquarters.evaluate import Evaluated, Evaluator
from receiver.headquarters.files import (
    LARGEST,
    at,
    beta_groups,
    content,
    directories,
    is_document,
    own_files,
    regular,
    within,
)
from receiver.headquarters.fitness import ldap_server
from receiver.headquarters.headquarters import WITHHELD, Headquarters

T = TypeVar("T")

_log = Logger()


@define(eq=False)
class Reader:
    """Reads a headquarters with the evaluator's box. `ship_files` are the ship's own settings for
    services; `given` are variables that every file finds, and that are not exported by that;
    `devmode` is what the ship itself says of that."""

    evaluator: Evaluator
    ship_files: Path
    given: Mapping[str, str]
    devmode: bool | None = None

    async def read(
        self, repository: Repository, source: Source, commit: str, tree: Path, scratch: Path
    ) -> Headquarters:
        """What `commit` says. Its files are written to the directory `tree`.

        `Refused` when what stands for everything is wrong; what concerns one directory is in
        `refused` of the result.
        """
        files = await repository.listing(commit)
        await repository.lay(commit, tree, scratch)
        data = await _contents(repository, files)
        given = {**self.given, "HEADQUARTERS_REMOTE": source.url}
        environment, said = await self._environment(tree, files, given)
        reading = _Reading(self, source, tree, files, data, given, environment)
        orders, signs, refused = await reading.orders()
        remotes, not_remotes = await reading.remotes()
        servers, not_servers = await reading.ldap_servers()
        tls = pairs(within("ssl", data), time.time())
        return Headquarters(
            source=source,
            commit=commit,
            tree=tree,
            environment=environment,
            said=(*said, *(f"ssl/{text}" for text in tls.warnings.values())),
            orders=orders,
            remotes=remotes,
            refused={**_below("ssl", tls.refused), **not_servers, **not_remotes, **refused},
            files=files,
            keys=within("authorized_keys", data),
            known_hosts=data.get("known_hosts", b""),
            bases=within("containers", data),
            beta_groups=beta_groups(data),
            ldap_servers=servers,
            signs=signs,
            certificates=tls.certificates,
        )

    async def _environment(
        self, tree: Path, files: Mapping[str, Blob], given: Mapping[str, str]
    ) -> tuple[dict[str, str], tuple[str, ...]]:
        """Of `.starphleet`, then each file of the ship's own, the later ones stronger: what they
        export, and what they print."""
        own = await in_thread(self.evaluator.reactor, _files_of, self.ship_files)
        if ".starphleet" in files:
            regular(".starphleet", files)
            own = [(tree, ".starphleet"), *own]
        environment: dict[str, str] = {}
        said: list[str] = []
        for directory, name in own:
            done = await self.evaluate(directory, name, environment, given)
            environment = done.environment
            said += [f"{name}: {text}" for text in done.said]
        return environment, tuple(said)

    async def evaluate(
        self, tree: Path, file: str, environment: Mapping[str, str], given: Mapping[str, str]
    ) -> Evaluated:
        try:
            return await self.evaluator(tree, file, environment, given)
        except ContainerError as error:
            raise Refused(f"{file}: {error}") from error


@frozen
class _Reading:
    """One commit on its way from files to values."""

    reader: Reader
    source: Source
    tree: Path
    files: Mapping[str, Blob]
    data: Mapping[str, bytes]
    given: Mapping[str, str]
    environment: Mapping[str, str]

    async def orders(
        self,
    ) -> tuple[dict[str, StandingOrders], dict[str, Sign], dict[str, str]]:
        read, refused = await _each(directories("orders", self.files), self._orders)
        orders = {path: one for path, one in read.items() if isinstance(one, StandingOrders)}
        leading = {path: one for path, one in read.items() if isinstance(one, Sign)}
        alone, shared = apart(orders)
        signs, astray = _leading(leading, orders)
        refused = {**refused, **shared, **astray}
        return alone, signs, {at(path, "orders"): why for path, why in refused.items()}

    async def remotes(self) -> tuple[dict[str, Source], dict[str, str]]:
        found, refused = await _each(directories("remote", self.files), self._remote)
        return found, {at(path, "remote"): why for path, why in refused.items()}

    async def ldap_servers(self) -> tuple[dict[str, LdapServer], dict[str, str]]:
        there = (PurePosixPath(name) for name in self.files)
        names = [str(file) for file in there if str(file.parent) == "ldap_servers"]
        found, refused = await _each([n for n in names if not is_document(n)], self._ldap)
        return {PurePosixPath(name).name: server for name, server in found.items()}, refused

    async def _orders(self, path: str) -> StandingOrders | Sign:
        check_path(path)
        evaluated = await self._evaluated(at(path, "orders"))
        own = own_files(path, self.files)
        for name in own:
            if name == ".htpasswd" or name.endswith(".acl"):
                regular(at(path, name), self.files)
        files = {name: self._file(at(path, name)) for name in own if at(path, name) in self.data}
        digest = content(own, evaluated.calls)
        ordered = standing(
            path,
            evaluated,
            files,
            digest,
            headquarters=self.source,
            devmode=self.reader.devmode,
        )
        if isinstance(ordered, Sign):
            return ordered
        mine = {name: v for name, v in ordered.environment.items() if name not in WITHHELD}
        return evolve(
            ordered,
            environment=mine,
            bases=within("containers", self.data),
            warnings=(*ordered.warnings, *(f"{at(path, 'orders')}: {t}" for t in evaluated.said)),
        )

    async def _remote(self, path: str) -> Source:
        evaluated = await self._evaluated(at(path, "remote"))
        return remote_source(path, evaluated, headquarters=self.source)

    async def _ldap(self, name: str) -> LdapServer:
        return ldap_server(name, (await self._evaluated(name)).environment)

    async def _evaluated(self, name: str) -> Evaluated:
        regular(name, self.files)
        return await self.reader.evaluate(self.tree, name, self.environment, self.given)

    def _file(self, name: str) -> File:
        return File(self.data[name], self.files[name].executable)


def apart(
    orders: Mapping[str, StandingOrders],
) -> tuple[dict[str, StandingOrders], dict[str, str]]:
    """`orders` without those that want a host name or a port that an earlier one has."""
    alone, refused, taken = {}, {}, dict[str, str]()
    for path, one in sorted(orders.items()):
        front = one.front
        ports = [f"port {port}" for port in (*front.exposed, front.published) if port is not None]
        wanted = [*one.place.hosts, *(host for host, _ in front.redirects), *ports]
        lost = [name for name in wanted if name in taken]
        if lost:
            refused[path] = f"{at(path, 'orders')}: {at(taken[lost[0]], 'orders')} has {lost[0]}"
        else:
            alone[path] = one
            taken.update(dict.fromkeys(wanted, path))
    return alone, refused


def _leading(
    signs: Mapping[str, Sign], orders: Mapping[str, StandingOrders]
) -> tuple[dict[str, Sign], dict[str, str]]:
    """`signs` without those that lead to a service that is not there."""
    there = {one.service for one in orders.values()}
    astray = {
        path: f"{at(path, 'orders')}: publish {sign.service}: there are no orders of that path"
        for path, sign in signs.items()
        if sign.service and sign.service not in there
    }
    return {path: sign for path, sign in signs.items() if path not in astray}, astray


def _below(directory: str, why: Mapping[str, str]) -> dict[str, str]:
    return {f"{directory}/{name}": f"{directory}/{text}" for name, text in why.items()}


def _files_of(directory: Path) -> list[tuple[Path, str]]:
    if not directory.is_dir():
        return []
    return [(directory, path.name) for path in sorted(directory.iterdir()) if path.is_file()]


async def _each(
    names: list[str], read: Callable[[str], Coroutine[Any, Any, T]]
) -> tuple[dict[str, T], dict[str, str]]:
    """What `read` makes of each, and why not of the others."""
    found: dict[str, T] = {}
    refused: dict[str, str] = {}

    async def one(name: str) -> None:
        try:
            found[name] = await read(name)
        except Refused as error:
            refused[name] = str(error)
        except CancelledError:
            raise
        except Exception:
            _log.failure("{name} could not be read", name=name)
            refused[name] = f"{name}: the ship made an error of its own; its log says which"

    await gatherResults([Deferred.fromCoroutine(one(name)) for name in names], consumeErrors=True)
    return found, refused


async def _contents(repository: Repository, files: Mapping[str, Blob]) -> dict[str, bytes]:
    """Every regular file that the ship may have to read."""
    read = {
        name: blob.oid
        for name, blob in files.items()
        if blob.regular and blob.size <= LARGEST and not name.startswith("overlay/")
    }
    blobs = await repository.contents(sorted(set(read.values())))
    return {name: blobs[oid] for name, oid in read.items()}
