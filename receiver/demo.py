"""The demonstration: a ship on this machine, and a sample app pushed to it by real git and ssh."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from pathlib import Path

from hooks.errors import ShipError
from hooks.settings import git_address, url
from receiver import keyring, local
from receiver.config import Config

SAMPLE = Path(__file__).parent / "sample"
NAME = "ahoy"


def demo(config: Config) -> int:
    """Start the ship if need be, commit to the sample and push it; the exit status is git's."""
    local.up(config)
    print("\n".join(local.welcome(config)), flush=True)
    ssh = _key(config)
    work = _sample(config.layout.demo / NAME)
    address = f"{git_address(config.settings)}/{NAME}"
    print(f"\n$ git push {address} master", flush=True)
    env = os.environ | {"GIT_SSH_COMMAND": ssh}
    pushed = subprocess.run(["git", "push", address, "master"], cwd=work, env=env, check=False)
    if pushed.returncode == 0:
        print("\n".join(_what_next(config, ssh)))
    return pushed.returncode


def _key(config: Config) -> str:
    """Let the demonstration's own key and this user's keys in; the ssh command for the former."""
    home = config.layout.demo
    home.mkdir(mode=0o700, exist_ok=True)
    key = home / "id_ed25519"
    if not key.exists():
        _do(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "demo", "-f", str(key)], home)
    keys = config.layout.authorized_keys
    keyring.add(keys, "demo", key.with_suffix(".pub").read_text())
    for public in sorted(Path("~/.ssh").expanduser().glob("id_*.pub")):
        owner = f"{os.environ.get('USER') or 'me'}-{public.stem.removeprefix('id_')}"
        if not (keys / owner).exists():
            try:
                keyring.add(keys, owner, public.read_text())
            except ShipError:
                continue  # a key of a kind that the ship does not take
    known = home / "known_hosts"
    return " ".join(
        [
            "ssh -F none -o IdentitiesOnly=yes -o BatchMode=yes",
            f"-o StrictHostKeyChecking=accept-new -o UserKnownHostsFile={shlex.quote(str(known))}",
            f"-i {shlex.quote(str(key))}",
        ]
    )


def _sample(work: Path) -> Path:
    """A repository with the sample and one more commit than last time."""
    if not (work / ".git").exists():
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(SAMPLE, work, ignore=shutil.ignore_patterns("__pycache__"))
        _do(["git", "init", "--quiet", "-b", "master"], work)
    now = time.strftime("%H:%M:%S")
    (work / "greeting.txt").write_text(f"Committed at {now}.\n")
    _do(["git", "add", "--all"], work)
    me = ["-c", "user.name=demo", "-c", "user.email=demo@localhost", "-c", "commit.gpgsign=false"]
    _do(["git", *me, "commit", "--quiet", "-m", f"Ahoy at {now}"], work)
    return work


def _what_next(config: Config, ssh: str) -> list[str]:
    return [
        "",
        "The ship goes on; `.venv/bin/starphleet down` stops it, `status` shows what it serves.",
        "To push an app of your own, in its repository:",
        "",
        f"    git remote add ship {git_address(config.settings)}/NAME",
        f"    git config core.sshCommand {shlex.quote(ssh)}",
        "    git push ship master",
        "",
        f"{url(config.settings, NAME)}",
    ]


def _do(argv: list[str], cwd: Path) -> None:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ShipError(f"{argv[0]} {argv[1]}: {(done.stderr or done.stdout).strip()[-200:]}")
