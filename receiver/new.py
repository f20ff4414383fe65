"""A headquarters to begin with: a repository of few, commented files that deploys a sample."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from hooks.errors import Refused, ShipError
from hooks.settings import git_address
from receiver.config import Config
from receiver.demo import SAMPLE

FILES = Path(__file__).parent / "new_headquarters"
SERVICE = "ahoy"
_ME = ("-c", "user.name=starphleet", "-c", "user.email=starphleet@localhost")


def headquarters(config: Config, directory: Path) -> list[str]:
    """Make a headquarters in `directory`, which must be new or empty; what to do next.

    Its branch `ahoy` is the sample's own code, `main` says that a ship is to follow that.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise Refused(f"{directory} is there already, and is no empty directory")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"{directory}: {error.strerror}") from None
    git(directory, "init", "--quiet", "-b", SERVICE)
    shutil.copytree(
        SAMPLE, directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
    )
    (directory / "greeting.txt").write_text("Deployed by a headquarters.\n")
    commit(directory, "A sample service")
    git(directory, "checkout", "--quiet", "--orphan", "main")
    git(directory, "rm", "-r", "--quiet", "--force", ".")
    shutil.copytree(FILES, directory, dirs_exist_ok=True)
    if config.public_key is not None:
        shutil.copy(config.public_key, directory / "authorized_keys")
    commit(directory, "A headquarters with one service")
    address = f"{git_address(config.settings)}/headquarters"
    git(directory, "remote", "add", "ship", address)
    return [
        f"{directory} is a headquarters; {SERVICE}/orders in it deploys a sample.",
        "",
        "Let the ship host it, which deploys it at once:",
        "",
        f"    cd {directory} && git push ship main {SERVICE}",
        "",
        "Or push both branches to a git host of yours, and say to each ship:",
        "",
        "    starphleet-headquarters URL",
    ]


def commit(directory: Path, message: str) -> None:
    git(directory, "add", "--all")
    git(directory, *_ME, "-c", "commit.gpgsign=false", "commit", "--quiet", "-m", message)


def git(directory: Path, *words: str) -> None:
    done = subprocess.run(
        ["git", *words], cwd=directory, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ShipError(f"git {words[0]}: {(done.stderr or done.stdout).strip()[-200:]}")
