"""What was fetched from the repositories that are followed: exactly the commits that were seen."""

from __future__ import annotations

import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Collection
from hashlib import sha256
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import DeferredLock

from containers.watching import in_thread
from hooks.errors import Refused, ShipError, Unreachable
from hooks.layout import Layout
from hooks.naming import commit_id
from hooks.repository import BARE_ENVIRONMENT, Git, Repository
from hooks.say import clean
from hooks.standing import Source
from receiver.headquarters.asking import nobodys
from receiver.headquarters.git import RemoteGit, upload_pack
from receiver.headquarters.refs import is_commit

SECONDS = 600.0  # that one fetch may take
KEPT = 14 * 86400.0  # seconds that a commit is kept that nobody needs
SEEN = "refs/seen/"
_SHA256 = ("repositoryformatversion = 1", "[extensions]\n\tobjectFormat = sha256\n")
_EVERYTHING = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
_LONGEST = 200  # characters of an author or a subject


@define
class Sources:
    """One bare repository for each URL, in which a commit that is marked as seen is whole.

    `git` works on it; `remote` fetches; `own` knows the URLs of this ship's own repositories.
    """

    reactor: Any
    layout: Layout
    git: Git
    remote: RemoteGit
    own: Callable[[str], Repository | None] = nobodys
    seconds: float = field(default=SECONDS, kw_only=True)
    _locks: dict[str, DeferredLock] = field(factory=lambda: defaultdict(DeferredLock), init=False)
    _tidied: set[str] = field(factory=set, init=False)

    async def fetch(self, source: Source, commit: str) -> Repository:
        """A repository with the whole tree of `commit`, which `source` named when it was asked.

        Nothing is fetched that is there. `Unreachable` when it cannot be had (any more).
        """
        commit_id(commit)
        if mine := self.own(source.url):
            if await mine.tree(commit) is None:
                raise Unreachable(f"cannot read {source.url}: it has no commit {commit[:12]}")
            return mine
        async with self._locks[source.url]:
            repository = await self._opened(source.url, len(commit))
            if await repository.tip(SEEN + commit) is None:
                await self._get(repository, source, commit)
            return repository

    def kept(self, url: str) -> Repository:
        """Where what was fetched from `url` is, if anything was; nothing is fetched."""
        return self.own(url) or Repository(self._path(url), self.git)

    async def with_history(self, source: Source, commit: str) -> Repository:
        """A repository with the whole history of `commit`, which was fetched before."""
        repository = await self.fetch(source, commit)
        if (repository.path / "shallow").exists() and self.own(source.url) is None:
            async with self._locks[source.url]:
                await self._get_everything(repository, source.url)
        return repository

    async def resolve(self, source: Source) -> str:
        """The commit that a short id means. `Refused` when that is none, or may be several."""
        if mine := self.own(source.url):
            return await _meant(mine, source)
        async with self._locks[source.url]:
            repository = await self._opened(source.url)
            try:
                await self._get_everything(repository, source.url)
            except Unreachable:
                await self._start_again(repository)
                raise
            commit = await _meant(repository, source)
            await self._mark(repository, commit)
            return commit

    async def sweep(self, urls: Collection[str], keep: Collection[str] = ()) -> None:
        """Remove what is of none of `urls`, and after two weeks every commit that is not in `keep`.

        git packs what has become much.
        """
        wanted = {self._path(url).name: url for url in urls}
        for path in await in_thread(self.reactor, sorted, self.layout.sources.iterdir()):
            url = wanted.get(path.name)
            if url is None:
                await in_thread(self.reactor, _remove, path)
            else:
                async with self._locks[url]:
                    await self._clean(Repository(path, self.git), keep)
        for url in [url for url, lock in self._locks.items() if not lock.locked]:
            if url not in urls:
                del self._locks[url]
                self._tidied.discard(url)

    async def author(self, repository: Repository, commit: str) -> tuple[str, str]:
        """Who made `commit`, and its first line; harmless to print."""
        shown = ["log", "-1", "--no-show-signature", "--format=%an%x00%s", commit]
        _, out = await self._local(repository, *shown)
        name, _, subject = out.decode("utf-8", "replace").strip("\n").partition("\0")
        return clean(name)[:_LONGEST] or "nobody", clean(subject)[:_LONGEST]

    def _path(self, url: str) -> Path:
        return self.layout.sources / f"{sha256(url.encode()).hexdigest()[:24]}.git"

    async def _opened(self, url: str, digits: int = 40) -> Repository:
        """The repository for `url`, made if need be, without what a killed git left in it."""
        repository = Repository(self._path(url), self.git)
        if not repository.exists():
            await in_thread(self.reactor, _make, repository, digits)
        if url not in self._tidied:
            await in_thread(self.reactor, repository.tidy)
            self._tidied.add(url)
        return repository

    async def _get(self, repository: Repository, source: Source, commit: str) -> None:
        """Fetch `commit`: alone by its id, else with what its ref names, else with everything."""
        named = [] if is_commit(source.ref) else [source.ref or "HEAD"]
        ways: list[tuple[str, ...]] = [
            ("--depth=1", commit),
            *(("--depth=1", name) for name in named),
        ]
        ways += [("--no-tags", name) for name in named] or [("--no-tags", *_EVERYTHING)]
        reason = ""
        for way in ways:
            try:
                await self._fetch(repository, source.url, *way)
            except Unreachable as error:
                reason = reason or str(error)
                continue
            if await repository.tree(commit) is not None:
                await self._mark(repository, commit)
                return
        raise Unreachable(
            reason or f"cannot read {source.url}: {commit[:12]} is not there any more"
        )

    async def _get_everything(self, repository: Repository, url: str) -> None:
        unshallow = ["--unshallow"] if (repository.path / "shallow").exists() else []
        await self._fetch(repository, url, "--prune", *unshallow, *_EVERYTHING)

    async def _fetch(self, repository: Repository, url: str, *words: str) -> None:
        """git fetch of what `words` (options, then refs) say."""
        options = [word for word in words if word.startswith("--")]
        refs = [word for word in words if not word.startswith("--")]
        fetch = ["fetch", "--quiet", "--no-write-fetch-head", "--no-recurse-submodules"]
        line = ["--git-dir", str(repository.path), *fetch, *upload_pack(url), *options]
        await self.remote(url, [*line, "--end-of-options", url, *refs], seconds=self.seconds)

    async def _mark(self, repository: Repository, commit: str) -> None:
        status, _ = await self._local(repository, "update-ref", SEEN + commit, commit)
        if status != 0:
            raise ShipError(f"{commit[:12]} could not be kept")

    async def _start_again(self, repository: Repository) -> None:
        await in_thread(self.reactor, _remove, repository.path)

    async def _clean(self, repository: Repository, keep: Collection[str]) -> None:
        """Let go of commits that were fetched long ago and that nobody needs."""
        shown = ["for-each-ref", "--format=%(refname)", SEEN]
        _, out = await self._local(repository, *shown)
        for ref in out.decode().split():
            commit = ref.removeprefix(SEEN)
            mark = repository.path / ref
            old = not mark.exists() or mark.stat().st_mtime < time.time() - KEPT
            if commit not in keep and old:
                await repository.forget(ref)
        await repository.pack()

    async def _local(self, repository: Repository, *words: str) -> tuple[int, bytes]:
        argv = ["git", "--git-dir", str(repository.path), *words]
        return await self.git(argv, env=BARE_ENVIRONMENT)


def _remove(path: Path) -> None:
    """By another name first: half of a repository would be taken for one."""
    going = path.with_name(f".going-{path.name.removeprefix('.going-')}")
    if going != path:
        shutil.rmtree(going, ignore_errors=True)
        path.rename(going)
    shutil.rmtree(going, ignore_errors=True)


def _make(repository: Repository, digits: int) -> None:
    """An empty repository for object ids of so many hex digits."""
    repository.ensure()
    if digits > 40:
        config = repository.path / "config"
        text = config.read_text().replace("repositoryformatversion = 0", _SHA256[0])
        config.write_text(text + _SHA256[1])


async def _meant(repository: Repository, source: Source) -> str:
    """The commit that the short id of `source` means."""
    argv = ["git", "--git-dir", str(repository.path), "rev-parse", "--verify", "--quiet"]
    asked = [*argv, "--end-of-options", f"{source.ref}^{{commit}}"]
    status, out = await repository.git(asked, env=BARE_ENVIRONMENT)
    if status != 0:
        raise Refused(f"{source.url} has no branch, tag or one commit {source.ref}")
    return commit_id(out.decode().strip())
