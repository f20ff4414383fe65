"""Buildpacks from elsewhere: what BUILDPACK_URL may say, and fetching what it names."""

from __future__ import annotations

import hashlib
import re
import stat
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from attrs import frozen

from buildpacks.build import Outcome, Output
from buildpacks.output import Head, Tail
from buildpacks.packs import BuildError, Pack

HOST = r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?"
USER = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
PORT = r"(?::[0-9]{1,5})?"
PATH = r"[A-Za-z0-9._~+%-]+(?:/[A-Za-z0-9._~+%-]+)*/?"
URL = re.compile(
    rf"https://{HOST}{PORT}/{PATH}"
    rf"|ssh://(?:{USER}@)?{HOST}{PORT}/{PATH}"
    rf"|{USER}@{HOST}:(?![-/]){PATH}"
)
REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+-]{0,199}")
COMMIT = re.compile(r"[0-9a-f]{40}")

KEEP_SECONDS = 24 * 3600
GIT = (
    "git",
    *("-c", "protocol.allow=never"),
    *("-c", "protocol.https.allow=always"),
    *("-c", "protocol.ssh.allow=always"),
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.fsmonitor=false"),
    *("-c", "submodule.recurse=false"),
    *("-c", "fetch.fsckObjects=true"),
    *("-c", "advice.detachedHead=false"),
    *("-c", "gc.auto=0"),
)
HARDENED = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "LC_ALL": "C.UTF-8",
}

Run = Callable[[Sequence[str], Mapping[str, str], Output], Awaitable[Outcome]]
"""Runs a command on the ship itself, with exactly this environment and a time limit."""


def parse_buildpack_url(text: str) -> tuple[str, str]:
    """Split `url#ref` (ref '' if none). Only https and ssh. Raises `BuildError` in words."""
    url, mark, ref = text.strip().partition("#")
    if not URL.fullmatch(url) or any(part in (".", "..") for part in url.split("/")):
        raise BuildError(f"BUILDPACK_URL {_shown(url)}: {_why(url)}")
    if (mark or ref) and not good_ref(ref):
        raise BuildError(f"BUILDPACK_URL: {_shown(ref)} is not a branch, a tag or a full commit id")
    return url, ref


def _shown(text: str) -> str:
    """What was given, without what may be a password."""
    return repr(re.sub(r"//[^/@]*@", "//...@", text)[:100])


def _why(url: str) -> str:
    if re.match(r"https://[^/]*@", url):
        return "a user or password in an https URL would end up in logs; use ssh with a key"
    if re.match(r"(https|ssh)://|[^/]+@[^/]+:", url):
        return "is not a well-formed URL (letters, digits and ._~+%- between slashes, no '..')"
    return "only https://HOST/PATH, ssh://USER@HOST/PATH and USER@HOST:PATH are fetched"


def good_ref(ref: str) -> bool:
    """Whether `ref` is a name that git takes for a branch or tag, and nothing stranger."""
    parts = ref.split("/")
    return bool(
        REF.fullmatch(ref)
        and ".." not in ref
        and all(part and part[0] not in ".-" for part in parts)
        and not any(part.endswith((".", ".lock")) for part in parts)
    )


@frozen
class _Git:
    """git on the ship, with a built environment and the options that make a clone harmless."""

    run: Run
    env: Mapping[str, str]

    async def __call__(self, *argv: str, what: str) -> str:
        """The command's output (64 KiB at most); `BuildError` says `what` failed, and why."""
        head, tail = Head(65536), Tail(3)

        def both(chunk: bytes) -> None:
            head.feed(chunk)
            tail.feed(chunk)

        outcome = await self.run([*GIT, *argv], {**self.env, **HARDENED}, both)
        if not outcome.ok:
            said = outcome.reason or next(iter(reversed(tail.lines())), str(outcome))
            raise BuildError(f"{what}: {said}", tail.lines())
        return head.data.decode("utf-8", "replace")


async def fetch(url: str, ref: str, into: Path, run: Run, env: Mapping[str, str]) -> Pack:
    """The buildpack at `url` (as `parse_buildpack_url` gave it) and `ref`, as it is there now.

    Kept below the directory `into`, one directory per url, ref and commit that never changes
    once it is there, so that builds and refreshes may overlap. `env` is git's environment
    (`PATH`, `GIT_SSH_COMMAND`, certificates, proxies). Raises `BuildError`.
    """
    git = _Git(run, env)
    name = re.split("[/:]", re.sub(r"(/|\.git)+$", "", url))[-1]
    what = f"buildpack {name}{'#' if ref else ''}{ref}"
    key = hashlib.sha256(f"{url}#{ref}".encode()).hexdigest()[:24]
    commit = ref if COMMIT.fullmatch(ref) else await _resolve(git, url, ref, what)
    place = into / f"{key}-{commit}"
    if not place.is_dir():
        await _clone(git, url, commit, place, what)
        await _remove(git, stale(into, key, place))
    return Pack(name, place)


async def _resolve(git: _Git, url: str, ref: str, what: str) -> str:
    """The commit that a branch or tag (HEAD if '') names there, branches first."""
    patterns = ["HEAD"]
    if ref:
        patterns = [f"refs/heads/{ref}", f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}"]
    listed = await git(
        "ls-remote", "--quiet", "--end-of-options", url, *patterns, what=f"{what} cannot be read"
    )
    matches = map(re.compile(r"([0-9a-f]{40})\t(\S+)").fullmatch, listed.splitlines())
    found = {match[2]: match[1] for match in matches if match}
    for name in patterns:
        if name in found:
            return found[name]
    raise BuildError(f"{what}: there is no such branch or tag" if ref else f"{what}: is empty")


async def _clone(git: _Git, url: str, commit: str, place: Path, what: str) -> None:
    """Check the commit out beside `place`, look at it, and rename it there."""
    fresh = place.parent / f"new-{uuid.uuid4().hex}"
    failed = f"{what} cannot be fetched"
    try:
        await git("init", "--quiet", "--template=", "--end-of-options", str(fresh), what=failed)
        inside = ("-C", str(fresh))
        shallow = ("--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules")
        await git(*inside, "fetch", *shallow, "--end-of-options", url, commit, what=failed)
        await git(*inside, "checkout", "--quiet", "--detach", commit, what=failed)
        for program in ("bin/detect", "bin/compile"):
            if not executable(fresh, program):
                raise BuildError(f"{what}: not a buildpack, it has no executable {program}")
        settle(fresh, place)
    finally:
        await _remove(git, [fresh])


def settle(fresh: Path, place: Path) -> None:
    """Rename `fresh` to `place`, unless another fetch of the same commit was quicker."""
    if not place.is_dir():
        fresh.rename(place)


def executable(root: Path, name: str) -> bool:
    """Whether `name` is a program file in `root`, also by a symlink that stays in there."""
    try:
        real = (root / name).resolve(strict=True)
        mode = real.stat().st_mode
    except (OSError, RuntimeError):
        return False
    return real.is_relative_to(root.resolve()) and stat.S_ISREG(mode) and bool(mode & 0o111)


def stale(into: Path, key: str, current: Path) -> list[Path]:
    """What earlier refreshes left; a day is longer than any build that may still use it."""
    old = time.time() - KEEP_SECONDS
    found = [*into.glob(f"{key}-*"), *into.glob("new-*")]
    return [path for path in found if path != current and path.stat().st_mtime < old]


async def _remove(git: _Git, paths: Sequence[Path]) -> None:
    there = [str(path) for path in paths if path.exists()]
    if there:
        await git.run(["rm", "-rf", "--", *there], git.env, lambda _: None)
