"""Real git for the tests of this room."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest import TestCase

from hooks.repository import Repository

ME = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ann",
    "GIT_AUTHOR_EMAIL": "ann@example.com",
    "GIT_COMMITTER_NAME": "Ann",
    "GIT_COMMITTER_EMAIL": "ann@example.com",
}


async def git_at_once(
    argv: Sequence[str], *, env: Mapping[str, str], stdin: bytes = b""
) -> tuple[int, bytes]:
    """`hooks.repository.Git` without a reactor."""
    done = subprocess.run(  # noqa: ASYNC221 - there is no loop to hold up
        argv, env=dict(env), input=stdin, capture_output=True, check=False
    )
    return done.returncode, done.stdout


def scratch(case: TestCase) -> Path:
    """A directory that goes with the test."""
    path = Path(tempfile.mkdtemp())
    case.addCleanup(shutil.rmtree, path)
    return path


def git(where: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=where, env=ME, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def commit(where: Path, files: Mapping[str, str]) -> str:
    """Commit `files` in the work tree `where`, which is made if missing; the commit's id."""
    if not (where / ".git").exists():
        where.mkdir(parents=True, exist_ok=True)
        git(where, "init", "-q", "-b", "master")
    for name, text in files.items():
        (where / name).write_text(text)
    git(where, "add", "--all")
    git(where, "commit", "-q", "--allow-empty", "-m", "a change")
    return git(where, "rev-parse", "HEAD")


def bare(path: Path) -> Repository:
    """A repository as the ship makes it."""
    repository = Repository(path, git_at_once)
    repository.ensure()
    return repository
