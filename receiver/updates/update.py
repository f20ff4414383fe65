"""A newer Starphleet: found, installed beside the one that runs, checked, and made the ship."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from uv import find_uv_bin

from buildpacks.remote import GIT, HARDENED
from containers.interface import ContainerError, Limits
from containers.spawn import Completed, run
from containers.watching import in_thread
from hooks.errors import Refused, ShipError, Unreachable
from hooks.layout import Layout
from hooks.repository import Repository
from hooks.say import Say, clean
from hooks.settings import MB
from hooks.standing import Source
from receiver.config import Config
from receiver.headquarters.git import RemoteGit, upload_pack
from receiver.headquarters.refs import answers, asked, is_commit, listed
from receiver.headquarters.source import source_of_operator
from receiver.headquarters.sources import SEEN, Sources
from receiver.updates.versions import Version, Versions, commit_in, own_commit
from receiver.updates.wheels import forget

ROOM = 512 * MB  # that a version may take
ASK_SECONDS = 60.0
INSTALL_SECONDS = 900.0
CHECK_SECONDS = 120.0
WITH_US = ("/usr/bin/setpriv", "--pdeathsig", "KILL", "--")  # whoever is killed, all ends
PYTHON = os.path.realpath(sys.executable)  # the host's, whatever stands before it
UNSET = (
    "where Starphleet comes from is not set: STARPHLEET_REMOTE=URL#REF in the ship's settings "
    "or in .starphleet of the headquarters"
)

Ask = Callable[[Config], Mapping[str, Any] | None]
"""What runs here: `commit` and `remote`, or `None` for nothing. Blocks."""
HandOver = Callable[[Config, Path, Callable[[str], None]], None]
"""Let the Starphleet of an interpreter be the ship; `ShipError` says why it is not. Blocks."""


@frozen
class Updated:
    """How an update ended: the commit that is here now, the one `before`, which may be the same or
    "" for none that is known, where it is from, and after how many seconds."""

    commit: str
    before: str
    remote: str
    seconds: float


@define(eq=False)
class Update:
    """Call it to update; `ShipError` says why not, and then all is as it was."""

    reactor: Any
    config: Config
    versions: Versions
    running: Ask
    hand_over: HandOver
    listen: Callable[[str], None]
    _say: Say = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._say = Say(self.listen)

    async def __call__(self) -> Updated:
        began = time.monotonic()
        with self.versions.alone():
            await in_thread(self.reactor, self.versions.remove_halves)
            running = await in_thread(self.reactor, self.running, self.config)
            source = self._source(running)
            commit = await self._newest(source)
            now = running["commit"] if running else self._chosen()
            if commit == now:
                self._say.header(f"Starphleet {commit[:7]} of {source} is the newest, and is here")
                return Updated(commit, now, str(source), time.monotonic() - began)
            self._say.header(f"Starphleet {commit[:7]} of {source}; here is {now[:7] or 'another'}")
            version = self.versions.named(commit)
            await self._install(source, commit, version)
            await self._check(version)
            await self._switch(version, running)
            await self._tidy([version, self.versions.named(now or commit)])
        took = time.monotonic() - began
        self._say.header(f"This is Starphleet {commit[:7]}, after {took:.1f} s")
        return Updated(commit, now, str(source), took)

    def _source(self, running: Mapping[str, Any] | None) -> Source:
        remote = self.config.remote or (running or {}).get("remote", "")
        if not remote:
            raise Refused(UNSET)
        return source_of_operator(remote, "STARPHLEET_REMOTE")

    def _chosen(self) -> str:
        """The commit that the next ship here would be; "" if that cannot be said."""
        chosen = self.versions.chosen()
        return own_commit() if chosen is None else commit_in(chosen.source)

    @property
    def _sources(self) -> Sources:
        layout = Layout(self.versions.directory / ".fetched")
        layout.sources.mkdir(parents=True, exist_ok=True)
        return Sources(self.reactor, layout, self._git, self._remote)

    @property
    def _remote(self) -> RemoteGit:
        config = self.config
        return RemoteGit(self.reactor, config.layout, config.path, config.git_env)

    async def _newest(self, source: Source) -> str:
        """The commit that `source` names now. `Unreachable` when nobody can say."""
        if is_commit(source.ref):
            return source.ref
        names = asked([source.ref])
        names += [f"{name}^{{}}" for name in names]
        words = ["ls-remote", "--quiet", *upload_pack(source.url), "--end-of-options", source.url]
        said = await self._remote(source.url, [*words, *names], seconds=ASK_SECONDS)
        commit = answers([source.ref], listed(said.decode("utf-8", "replace")))[source.ref]
        if commit is None and not source.ref:
            raise Refused(f"{source.url} is empty")
        return commit or await self._sources.resolve(source)

    async def _install(self, source: Source, commit: str, version: Version) -> None:
        if self.versions.is_whole(version):
            self._say.line(f"It is in {version.directory} already")
            return
        self.versions.require_room(ROOM + self.config.settings.free_disk)
        with self._step("Fetching it"):
            repository = await self._sources.fetch(source, commit)
        with self.versions.growing(version):
            await self._lay(repository, commit, version)
            with self._step(f"Installing it in {version.directory}"):
                await self._furnish(version)

    async def _lay(self, repository: Repository, commit: str, version: Version) -> None:
        """The source of `commit`, as a clone."""
        kind = ["--object-format=sha256"] if len(commit) > 40 else []
        at = ["-C", str(version.source)]
        there = str(repository.path)
        for words in (
            ["init", "--quiet", *kind, str(version.source)],
            [*at, "fetch", "--quiet", "--depth=1", there, f"{SEEN}{commit}"],
            [*at, "checkout", "--quiet", "--detach", "FETCH_HEAD"],
        ):
            argv = [*GIT, "-c", "protocol.file.allow=always", *words]
            await self._do(argv, {"PATH": self.config.path, **HARDENED}, INSTALL_SECONDS)
        if not (version.source / "constraints.txt").is_file():
            raise Refused(f"{commit[:12]} is no Starphleet: it has no constraints.txt")

    async def _furnish(self, version: Version) -> None:
        """Its own interpreter with all that it needs: what was fetched before, if that will do."""
        uv, env, python = find_uv_bin(), self._registry, PYTHON
        await self._do([uv, "venv", "--quiet", "--python", python, str(version.venv)], env, 60.0)
        source = version.source
        argv = [
            *(uv, "pip", "install", "--python", str(version.interpreter)),
            *("--constraint", str(source / "constraints.txt"), "--editable", str(source)),
        ]
        offline = await self._run([*argv, "--quiet", "--offline"], env, INSTALL_SECONDS, quiet=True)
        if not offline.exit.ok:
            await self._do(argv, env, INSTALL_SECONDS)

    @property
    def _registry(self) -> dict[str, str]:
        """The environment of the installer."""
        given = self.config.installing
        pip = {"UV_DEFAULT_INDEX": given["PIP_INDEX_URL"]} if "PIP_INDEX_URL" in given else {}
        return {
            "PATH": self.config.path,
            "HOME": str(self.versions.directory),
            "UV_CACHE_DIR": str(self.versions.directory / ".cache"),
            **pip,
            **given,
            "UV_NO_PROGRESS": "1",
            "UV_PYTHON_DOWNLOADS": "never",
        }

    async def _check(self, version: Version) -> None:
        with self._step("Checking it"):
            argv = [str(version.interpreter), "-P", "-m", "receiver.cli", "check"]
            try:
                await self._do(argv, self.config.environ, CHECK_SECONDS)
            except ShipError as error:
                await in_thread(self.reactor, self.versions.discard, version)
                raise ShipError(f"it cannot be the ship: {error}; nothing was changed") from error

    async def _switch(self, version: Version, running: Mapping[str, Any] | None) -> None:
        if running is None:
            self.versions.choose(version)
            self._say.line("No ship runs here; starphleet up starts this one")
            return
        with self._step("Switching to it; what serves goes on"):
            try:
                python = version.interpreter
                await in_thread(self.reactor, self.hand_over, self.config, python, self.listen)
            except Unreachable:  # who is the ship now, nobody has said
                raise
            except ShipError as error:
                here = running["commit"][:7]
                raise ShipError(f"{error}; this ship is {here} as before") from error

    async def _tidy(self, keep: Sequence[Version]) -> None:
        for gone in await in_thread(self.reactor, self.versions.prune, keep):
            self._say.line(f"{gone.directory.name} is removed")
        cache = self.versions.directory / ".cache"
        if self._registry["UV_CACHE_DIR"] != str(cache) or not cache.is_dir():
            return  # the operator's own
        there = await in_thread(self.reactor, self.versions.whole)
        count = await in_thread(self.reactor, forget, cache, there)
        if count:
            argv = [find_uv_bin(), "cache", "prune", "--offline"]
            await self._run(argv, self._registry, 60.0, quiet=True)
            self._say.line(f"Packages that no version has are removed: {count}")

    @contextmanager
    def _step(self, what: str) -> Iterator[None]:
        self._say.header(what)
        began = time.monotonic()
        yield
        self._say.line(f"{time.monotonic() - began:.1f} s")

    async def _git(
        self, argv: Sequence[str], *, env: Mapping[str, str], stdin: bytes = b""
    ) -> tuple[int, bytes]:
        done = await run(
            self.reactor, argv, env={**env, **self.config.git_env}, stdin=stdin, merge=False
        )
        return (done.exit.status if done.exit.status is not None else 128), done.output

    async def _do(self, argv: Sequence[str], env: Mapping[str, str], seconds: float) -> None:
        """Run a command and show what it says; `ShipError` is its last line, when it fails."""
        done = await self._run(argv, env, seconds)
        if not done.exit.ok:
            said = done.output.decode("utf-8", "replace").strip().splitlines()
            last = said[-1].removeprefix("starphleet: ") if said else f"{argv[0]}: {done.exit}"
            raise ShipError(clean(done.exit.reason or last))

    async def _run(
        self, argv: Sequence[str], env: Mapping[str, str], seconds: float, *, quiet: bool = False
    ) -> Completed:
        limits = Limits(seconds=seconds)
        shown = None if quiet else self._say.output
        try:
            return await run(self.reactor, [*WITH_US, *argv], env=env, output=shown, limits=limits)
        except ContainerError as error:
            raise ShipError(str(error)) from error
