"""Git that goes to repositories out there: its options, its environment, its errors as a line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import field, frozen

from buildpacks.remote import GIT, HARDENED
from containers.interface import ContainerError, Limits
from containers.spawn import Completed, run
from hooks.errors import Unreachable
from hooks.layout import Layout
from hooks.say import clean
from receiver.headquarters.source import source_of_operator
from receiver.headquarters.ssh import options, parted

MOST = 8 << 20  # bytes that a git may print
_LONGEST = 240  # characters of a reason
_CHANGED = "HOST IDENTIFICATION HAS CHANGED"
_RECORDED = re.compile(r"Offending .* key in (\S.*:[0-9]+)")
_IN_OUR_WORDS = (
    (r"No \S+ host key is known", "it shows another kind of host key than the one recorded"),
    (r"Host key verification failed", "its host key is not the one recorded"),
    (r"Permission denied \(", "it lets in none of the ship's keys"),
    (r"could not read Username", "repository not found, or not to be read without a login"),
    (r"(?i)repository .*not found|does not appear to be a git repo", "repository not found"),
    (r"The requested URL returned error: 404", "repository not found"),
)


def argv(url: str, *words: str) -> list[str]:
    """The command line of a git that talks to `url`, and to nothing else than https and ssh.

    A path on the ship may be read when `url` is one; it may be another user's: the operator
    named it.
    """
    return [*GIT, *_for_paths(url), *words]


def upload_pack(url: str) -> list[str]:
    """The option by which git reads a path on the ship that is another user's."""
    return ["--upload-pack=git -c safe.directory=* upload-pack"] if is_path(url) else []


def is_path(url: str) -> bool:
    return url.startswith("/")


def _for_paths(url: str) -> list[str]:
    return ["-c", "protocol.file.allow=always"] if is_path(url) else []


def environment(
    layout: Layout, url: str, path: str, extra: Mapping[str, str], by: Sequence[str] = ()
) -> dict[str, str]:
    """Git's environment for `url`. `path` is `PATH`; `extra` certificates and proxies; `by` more
    options of ssh."""
    login = parted(url)
    ssh = ["ssh", *options(layout, login[0] if login else None), *by]
    return {
        "PATH": path,
        "HOME": "/nonexistent",
        **extra,
        **HARDENED,
        "GIT_SSH_COMMAND": shlex.join(ssh),
        "GIT_SSH_VARIANT": "ssh",
        "GIT_OPTIONAL_LOCKS": "0",
    }


@frozen
class RemoteGit:
    """Runs git against one repository out there."""

    reactor: Any
    layout: Layout
    path: str
    extra: Mapping[str, str] = field(factory=dict)

    async def __call__(
        self, url: str, words: Sequence[str], *, seconds: float, by: Sequence[str] = ()
    ) -> bytes:
        """What `git WORDS` prints. `url` is what the words talk to, `by` more options of ssh.

        `Refused` when that is no URL that is followed, `Unreachable` when git fails or takes too
        long.
        """
        source_of_operator(url, "the repository")
        env = environment(self.layout, url, self.path, self.extra, by)
        limits = Limits(seconds=seconds, output=MOST)
        try:
            done = await run(
                self.reactor, argv(url, *words), env=env, cwd=Path("/"),
                limits=limits, keep=MOST, merge=False,
            )  # fmt: skip
        except ContainerError as error:
            raise Unreachable(f"cannot read {url}: {error}") from error
        if not done.exit.ok:
            raise Unreachable(f"cannot read {url}: {_reason(done, seconds)}")
        return done.output


def _reason(done: Completed, seconds: float) -> str:
    if done.exit.reason:
        late = "longer" in done.exit.reason
        return f"no answer within {seconds:g} s" if late else done.exit.reason
    return reason(done.errors.decode("utf-8", "replace")) or str(done.exit)


def reason(said: str) -> str:
    """Git's and ssh's words as one line, without what commands a terminal or may be a password."""
    if _CHANGED in said:
        where = _RECORDED.search(said)
        recorded = f"; the one that is known stands in {where[1]}" if where else ""
        return clean(f"its host key has changed{recorded}")
    for pattern, ours in _IN_OUR_WORDS:
        if re.search(pattern, said):
            return ours
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith(("fatal: ", "error: "))]
    return _one_line((fatal or lines or [""])[-1])


def _one_line(line: str) -> str:
    bare = re.sub(r"^(fatal|error): (unable to access '[^']*': )?", "", line)
    return clean(re.sub(r"//[^/@\s]*@", "//", bare))[:_LONGEST]
