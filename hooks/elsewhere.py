"""What a commit keeps elsewhere, submodules and files of Git LFS: fetched inside the build.

The build's own user runs git, without any key of the ship's, in its box: whatever a repository says
of where to fetch from can do there what a build can do anyhow.
"""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence

from attrs import frozen

from buildpacks.build import Outcome, Output
from buildpacks.output import Tail
from buildpacks.packs import BuildError
from buildpacks.remote import HARDENED
from hooks.errors import Unreachable
from hooks.orders import Orders
from hooks.repository import Blob, Repository, configured
from hooks.say import Say, clean

Run = Callable[[Sequence[str], Mapping[str, str], Output], Awaitable[Outcome]]
"""Runs a command where the build runs, with this environment."""

MOST = 200  # submodules of a commit
LARGEST = 1 << 16  # bytes of a .gitattributes that is read
_SUBMODULE = "160000"
_HTTPS = {**HARDENED, "GIT_ALLOW_PROTOCOL": "https", "GIT_LFS_SKIP_SMUDGE": "0"}
_ANYBODYS = {"safe.directory": "*"}
_LARGE_TOO = {"filter.lfs.process": "git-lfs filter-process", "filter.lfs.required": "true"}

# $1 the app, $2 where it is from ("" for nowhere that could be reached), $3… MODE,ID,PATH of each.
_SUBMODULES = """\
set -e
cd "$1"; origin=$2; shift 2
git init --quiet --template=
[ -z "$origin" ] || git remote add origin "$origin"
for entry; do git update-index --add --cacheinfo "$entry"; done
git submodule --quiet update --init --recursive --depth=1 ||
    git submodule --quiet update --init --recursive
find . -name .git -prune -exec rm -rf {} +
"""

# $1 the app, $2 as above, $3 where objects are kept from one build to the next.
_LARGE_FILES = """\
set -e
cd "$1"
git init --quiet --template=
git config lfs.storage "$3"
git config user.name ship
git config user.email ship
[ -z "$2" ] || git remote add origin "$2"
git add --all --force
git commit --quiet --message=all
git lfs install --local --skip-repo >/dev/null
git lfs pull
git lfs ls-files --long | cut -d' ' -f1 | sort >.git/needed
find "$3/objects" -type f | while read -r file; do
    grep -qx "${file##*/}" .git/needed || rm -f "$file"
done
rm -rf .git
"""


@frozen
class Elsewhere:
    """`submodules` are `MODE,ID,PATH` of each; `large` whether there are files of Git LFS, and
    `large_at` whether the commit says where."""

    submodules: tuple[str, ...]
    large: bool
    large_at: bool


async def elsewhere(repository: Repository, commit: str) -> Elsewhere:
    """What of `commit` is not in `repository`."""
    files = await repository.listing(commit)
    attributes = [
        blob.oid
        for name, blob in files.items()
        if name.rpartition("/")[2] == ".gitattributes" and blob.regular and blob.size < LARGEST
    ]
    told = (await repository.contents(attributes)).values() if attributes else ()
    return Elsewhere(
        submodules=_submodules(files),
        large=any(b"filter=lfs" in text for text in told),
        large_at=".lfsconfig" in files,
    )


def _submodules(files: Mapping[str, Blob]) -> tuple[str, ...]:
    """Those that `.gitmodules` may tell where to find; without it git leaves them empty."""
    if ".gitmodules" not in files:
        return ()
    found = [f"{b.mode},{b.oid},{name}" for name, b in files.items() if b.mode == _SUBMODULE]
    if len(found) > MOST:
        raise BuildError(f"there are {len(found)} submodules, at most {MOST} are fetched")
    return tuple(found)


def origin_of(orders: Orders) -> str:
    """Where the source is from, if a build can reach that: then what it names may be relative."""
    source = orders.standing.source if orders.standing is not None else None
    return source.url if source is not None and source.url.startswith("https://") else ""


@frozen
class Fetching:
    """`run` runs in the build, where the app is at `app` and its cache at `cache`; `env` is the
    build's, `search` the PATH on which git-lfs would be."""

    run: Run
    app: str
    cache: str
    env: Mapping[str, str]
    search: str
    say: Say

    async def fetch(self, wanted: Elsewhere, origin: str) -> None:
        """Complete the app with what is `wanted`. `Unreachable` when it cannot be had, `BuildError`
        when it will never be."""
        lfs = shutil.which("git-lfs", path=self.search) is not None
        if wanted.submodules:
            self.say.header(f"Fetching submodules: {len(wanted.submodules)}")
            settings = {**_ANYBODYS, **(_LARGE_TOO if lfs else {})}
            await self._sh(_SUBMODULES, "submodules", settings, origin, *wanted.submodules)
        if wanted.large and not lfs:
            self.say.header("Files of Git LFS stay pointers: there is no git-lfs on this ship")
        elif wanted.large:
            if not origin and not wanted.large_at:
                raise BuildError(
                    "files of Git LFS are fetched over https alone: say where they are in "
                    ".lfsconfig, [lfs] url = https://…"
                )
            self.say.header("Fetching files of Git LFS")
            await self._sh(_LARGE_FILES, "files of Git LFS", _ANYBODYS, origin, f"{self.cache}/lfs")

    async def _sh(self, script: str, what: str, settings: Mapping[str, str], *words: str) -> None:
        tail = Tail(8)
        env = {**self.env, **_HTTPS, **configured(settings)}
        ended = await self.run(["/bin/sh", "-c", script, "sh", self.app, *words], env, tail.feed)
        if ended.ok:
            return
        said = [clean(line) for line in tail.lines()]
        for line in said:
            self.say.line(line)
        why = next((line for line in reversed(said) if line.startswith("fatal:")), str(ended))
        if any("not allowed" in line for line in said):
            raise BuildError(f"{what}: only https is fetched in a build: {why}")
        raise Unreachable(f"{what} could not be fetched: {why}")
