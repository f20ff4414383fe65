"""A ship's git, and real repositories on the loopback for it to ask and fetch from."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from containers.interface import Limits
from containers.spawn import run
from hooks.layout import Layout
from receiver.headquarters.git import RemoteGit
from tests.buildpacks.gitserver import GitServer

PATH = "/usr/local/bin:/usr/bin:/bin"
WHO = {
    **dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "A"),
    **dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "a@example.org"),
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "PATH": PATH,
}


def git(path: Path, *words: str) -> str:
    """What git says in `path`."""
    done = subprocess.run(
        ["git", "-C", str(path), *words], env=WHO, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


class Work:
    """A repository with one commit on the branch `first`."""

    def __init__(self, path: Path, *options: str, branch: str = "first") -> None:
        self.path = path
        path.mkdir(parents=True)
        git(path, "init", "-q", "-b", branch, *options)
        self.commit("one")

    def commit(self, subject: str = "more") -> str:
        (self.path / "file").write_text(subject)
        git(self.path, "add", "-A")
        git(self.path, "commit", "-q", "--allow-empty", "-m", subject)
        return self.tip()

    def tip(self, name: str = "HEAD") -> str:
        return git(self.path, "rev-parse", name)


async def local_git(
    argv: Sequence[str], *, env: Mapping[str, str], stdin: bytes = b""
) -> tuple[int, bytes]:
    limits = Limits(seconds=60)
    done = await run(reactor, argv, env=env, stdin=stdin, limits=limits, keep=1 << 20, merge=False)
    return (done.exit.status if done.exit.status is not None else 128), done.output


class GitCase(TestCase):
    """`home` with `origin/` in it, a ship's layout beside it, and the ship's git."""

    def setUp(self) -> None:
        self.home = Path(mkdtemp(prefix="hq-"))
        self.addCleanup(shutil.rmtree, self.home, True)
        self.origin = self.home / "origin"
        self.layout = Layout(self.home / "ship")
        self.layout.prepare()
        self.extra: dict[str, str] = {}
        self.work = Work(self.origin / "app")
        self.url = str(self.work.path)

    def remote(self) -> RemoteGit:
        return RemoteGit(reactor, self.layout, PATH, self.extra)

    def serve(self) -> GitServer:
        """An https server for `origin/`, which the ship's git trusts."""
        server = GitServer(self.origin)
        self.addCleanup(server.stop)
        self.extra["GIT_SSL_CAINFO"] = str(server.pem)
        return server

    def started(self, work: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(work)
