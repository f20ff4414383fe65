"""`ships/NAME` in the headquarters: where a ship is to be reached, written by the ship itself."""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import psutil
from attrs import define, field, frozen
from twisted.internet.defer import DeferredLock
from twisted.internet.task import deferLater
from twisted.logger import Logger

from containers.interface import ContainerError, Limits
from containers.spawn import run
from hooks.errors import Refused, ShipError, Unreachable
from hooks.naming import branch_of
from hooks.repository import BARE_ENVIRONMENT, Repository
from hooks.settings import Settings
from hooks.standing import Source
from receiver.headquarters.asking import nobodys
from receiver.headquarters.git import RemoteGit, argv, environment, is_path, reason, upload_pack
from receiver.headquarters.refs import is_commit, listed
from receiver.headquarters.ssh import deploy_keys, parted
from receiver.ssh.keys import host_key

SECONDS = 60.0  # that one word with the headquarters' host may take
TRIES = 20  # pushes, where others are quicker each time
STILL = 3  # of them that fail although nobody else pushed
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0  # seconds, at most, between two pushes
AGAIN = 600.0  # seconds before what failed is tried again though nothing changed

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
_DEFAULT_BRANCH = re.compile(r"^ref: (\S+)\tHEAD$", re.MULTILINE)
_REJECTED = re.compile(r"^ ! \[(?:remote )?rejected\].*\((.+)\)$", re.MULTILINE)
_SAID_NO = re.compile(r"^(?:remote: )?(?:ERROR|error|fatal): (.+)$", re.MULTILINE)

# Where containers, machines and tunnels of this host hang: nobody elsewhere reaches the ship there,
# and they come and go with what it runs.
_VIRTUAL = re.compile(
    r"lo\d*|(?:br-|cali|cilium|cni|docker|dummy|flannel|ifb|lxc|lxdbr|podman|ship|tailscale|tap|tun"
    r"|vboxnet|veth|virbr|vmnet|vnet|weave|wg).*"
    r"|sp[0-9a-f]{6}(?:[ot]|[0-9a-f]{4})"  # a ship's own bridges, and what leads to its containers
)

Fetch = Callable[[Source, str], Awaitable[Repository]]


def ship_name(settings: Settings, key: Path) -> str:
    """The ship's name: the one that is set, else `ship-` and a fingerprint of its host key.

    A host name and a file name, always; `Refused` when what is set is none. `key` is the file of
    the host key, which is made when missing.
    """
    name = settings.ship_name
    if name and not _NAME.fullmatch(name):
        raise Refused(f"STARPHLEET_SHIP_NAME: {ascii(name)[:80]} is not a host name")
    return name or f"ship-{sha256(host_key(key).public().blob()).hexdigest()[:16]}"


def addresses() -> tuple[str, ...]:
    """The IP addresses of this host that others may reach, IPv4 first."""
    stats = psutil.net_if_stats()
    up = {name for name, one in stats.items() if one.isup}
    given = psutil.net_if_addrs()
    return reachable({name: [one.address for one in given[name]] for name in given if name in up})


def reachable(interfaces: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Those addresses of `interfaces` that count: any IPv4 of the network's, global IPv6."""
    real = [
        text for name in interfaces if not _VIRTUAL.fullmatch(name) for text in interfaces[name]
    ]
    found = {ip for text in real if (ip := _outward(text)) is not None}
    return tuple(str(ip) for ip in sorted(found, key=lambda ip: (ip.version, int(ip))))


def _outward(text: str) -> Any:
    try:
        ip = ip_address(text)
    except ValueError:  # of a link, as a MAC
        return None
    if ip.is_loopback or ip.is_link_local or ip.is_unspecified:
        return None
    return ip if ip.version == 4 or ip.is_global else None


@frozen
class Branch:
    """A branch of the headquarters: its full name, and the commit it was at."""

    ref: str
    tip: str


@define(eq=False)
class PushBack:
    """Writes this ship's entry. `fetch` gives a repository with a commit of the headquarters,
    `remote` goes out, `own` knows the URLs of this ship's own repositories."""

    name: str
    fetch: Fetch
    remote: RemoteGit
    own: Callable[[str], Repository | None] = nobodys
    _one_at_a_time: DeferredLock = field(factory=DeferredLock, init=False)
    _asked: object = field(default=None, init=False)
    _again: float = field(default=0.0, init=False)
    _told: set[str] = field(factory=set, init=False)
    _log: Logger = Logger()

    async def write(self, source: Source, tip: str, addresses: Sequence[str]) -> None:
        """Let `ships/NAME` of the headquarters, which is at `tip`, say `addresses`.

        Nothing happens where it does already, or the ship may not write. What fails is logged
        once for each reason, and left until something changed or ten minutes went by.
        """
        if not addresses or not self._may_write(source):
            return
        async with self._one_at_a_time:
            asked, now = (source, tip, tuple(addresses)), self.remote.reactor.seconds()
            if asked != self._asked or now >= self._again:
                done = await self._write(source, tip, _entry(addresses))
                self._asked, self._again = asked, now + (float("inf") if done else AGAIN)

    def _may_write(self, source: Source) -> bool:
        """A commit is where it is; https has no password of the ship's."""
        if is_commit(source.ref):
            return False
        if self.own(source.url) or is_path(source.url):
            return True
        keys = deploy_keys(self.remote.layout.private_keys)
        return parted(source.url) is not None and any(keys)

    async def _write(self, source: Source, tip: str, entry: bytes) -> bool:
        """Whether there is nothing more to do."""
        try:
            if await self._entry(await self.fetch(source, tip), tip) != entry:
                await self._insist(source, entry)
        except ShipError as error:
            why = str(error).removeprefix(f"cannot read {source.url}: ")
            if why not in self._told:
                self._told.add(why)
                self._log.warn("ships/{name} was not pushed: {why}", name=self.name, why=why)
            return False
        return True

    async def _insist(self, source: Source, entry: bytes) -> None:
        """Push; and where another was quicker, on top of what that one pushed."""
        still, before = 0, None
        for turn in range(TRIES):
            branch = await self._branch(source)
            if branch is None:  # a tag
                return
            still = still + 1 if branch == before else 1
            before = branch
            try:
                await self._add(source, branch, entry)
            except ShipError:
                if still == STILL or turn == TRIES - 1:
                    raise
                await self._pause(turn)
            else:
                return

    async def _pause(self, turn: int) -> None:
        most = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**turn)
        await deferLater(self.remote.reactor, random.uniform(0, most))  # noqa: S311 - no secret

    async def _add(self, source: Source, branch: Branch, entry: bytes) -> None:
        repository = await self.fetch(source, branch.tip)
        if await self._entry(repository, branch.tip) == entry:
            return
        commit = await self._commit(repository, branch.tip, entry)
        if self.own(source.url):
            await repository.move(branch.ref, commit, branch.tip)
        else:
            await self._push(repository, source.url, f"{commit}:{branch.ref}")
        self._log.info("ships/{name} is pushed", name=self.name)

    async def _branch(self, source: Source) -> Branch | None:
        """The branch that `source` means, as it is now; `None` if that is no branch."""
        mine = self.own(source.url)
        place = str(mine.path) if mine else source.url
        words = ["ls-remote", "--quiet", "--symref", *upload_pack(place), "--end-of-options", place]
        name = f"refs/heads/{source.ref}" if source.ref else "HEAD"
        said = (await self.remote(place, [*words, name], seconds=SECONDS)).decode(
            "utf-8", "replace"
        )
        default = _DEFAULT_BRANCH.search(said)
        if name == "HEAD" and default is None:
            return None
        ref = default[1] if name == "HEAD" and default else name
        tip = listed(said).get(name)
        branch_of(ref)
        return Branch(ref, tip) if tip else None

    async def _entry(self, repository: Repository, commit: str) -> bytes | None:
        """What the headquarters says of this ship at `commit`."""
        git = _Plumbing(repository, {})
        return await git.maybe("cat-file", "blob", f"{commit}:ships/{self.name}")

    async def _commit(self, repository: Repository, tip: str, entry: bytes) -> str:
        """A commit on top of `tip` that differs in the entry alone."""
        index = self.remote.layout.scratch / f"index.ships.{self.name}"
        git = _Plumbing(repository, {"GIT_INDEX_FILE": str(index), **_signature(self.name)})
        try:
            blob = await git("hash-object", "-w", "--stdin", stdin=entry)
            await git("read-tree", tip)
            cached = f"100644,{blob},ships/{self.name}"
            await git("update-index", "--add", "--cacheinfo", cached)
            tree = await git("write-tree")
            return await git("commit-tree", tree, "-p", tip, "-m", f"{self.name} config")
        finally:
            index.unlink(missing_ok=True)

    async def _push(self, repository: Repository, url: str, refspec: str) -> None:
        """Raises `Unreachable` when it is not taken.

        A path that is another user's is not written to, as git itself has it: its hooks would run
        as the ship, and its objects would be the ship's.
        """
        remote = self.remote
        words = ["--git-dir", str(repository.path), "push", "--quiet", "--end-of-options", url]
        env = environment(remote.layout, url, remote.path, remote.extra)
        limits = Limits(seconds=SECONDS)
        try:
            done = await run(
                remote.reactor, argv(url, *words, refspec), env=env, cwd=Path("/"), limits=limits
            )
        except ContainerError as error:
            raise Unreachable(str(error)) from error
        if not done.exit.ok:
            raise Unreachable(done.exit.reason or _why(done.output.decode("utf-8", "replace")))


@frozen
class _Plumbing:
    """git's low commands in one bare repository."""

    repository: Repository
    env: Mapping[str, str]

    async def __call__(self, *words: str, stdin: bytes = b"") -> str:
        """What `git WORDS` prints; `ShipError` when it fails."""
        said = await self.maybe(*words, stdin=stdin)
        if said is None:
            raise ShipError(f"git {words[0]} failed; is ships/ a directory in the headquarters?")
        return said.decode().strip()

    async def maybe(self, *words: str, stdin: bytes = b"") -> bytes | None:
        status, said = await self.repository.git(
            ["git", "--git-dir", str(self.repository.path), *words],
            env={**BARE_ENVIRONMENT, **self.env},
            stdin=stdin,
        )
        return said if status == 0 else None


def _entry(addresses: Sequence[str]) -> bytes:
    return "".join(f"{one}\n" for one in addresses).encode()


def _signature(name: str) -> dict[str, str]:
    who = {"NAME": f"{name} autopilot", "EMAIL": f"autopilot@{name}"}
    return {f"GIT_{role}_{k}": v for role in ("AUTHOR", "COMMITTER") for k, v in who.items()}


def _why(said: str) -> str:
    """Why a push was not taken: what the other side said of it, else what git says."""
    told = _REJECTED.search(said) or _SAID_NO.search(said)
    return reason(told[1] if told and "Permission denied (" not in said else said)
