"""A ship that is nothing but its SSH server, in a process of its own, and real clients for it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import paramiko
import psutil
from attrs import evolve

PLAIN_PATH = {"PATH": "/usr/bin:/bin"}
CLIENT_ENV = {**PLAIN_PATH, "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}


def until(condition: Callable[[], object], what: str, seconds: float = 15) -> None:
    """Wait for a condition, or fail saying what did not come."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"after {seconds} s still not: {what}")
        time.sleep(0.01)


def make_key(path: Path, kind: str = "ed25519", bits: int = 0) -> Path:
    size = ("-b", str(bits)) if bits else ()
    subprocess.run(
        ("ssh-keygen", "-q", "-t", kind, *size, "-N", "", "-C", "", "-f", str(path)), check=True
    )
    return path


class Ship:
    """The server process, with alice's key in its directory, and how clients reach it. `prefix` is
    an argv to put in front of it."""

    def __init__(self, *, prefix: tuple[str, ...] = (), **settings: object) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="ssh-ship-"))
        self.keys = self.root / "authorized_keys"
        self.keys.mkdir()
        self.alice = self.admit("alice")
        self.log = self.root / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                (*prefix, sys.executable, __file__, str(self.root), json.dumps(settings)),
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "LEAK": "of the ship's own environment"},
            )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.watched = psutil.Process(self.process.pid)

    def admit(self, owner: str, kind: str = "ed25519", bits: int = 0, *, below: str = "") -> Path:
        """A new key of `owner`'s, who may log in with it; the private half's path. `below` is the
        directory of a rank."""
        path = make_key(self.root / f"{owner}-{kind}{bits or ''}", kind, bits)
        (self.keys / below).mkdir(exist_ok=True)
        with (self.keys / below / f"{owner}.pub").open("a") as file:
            file.write(path.with_name(path.name + ".pub").read_text())
        return path

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        shutil.rmtree(self.root)

    def idle_descriptors(self) -> int:
        """How many it has open while running and without clients."""
        self.run("who")
        until(lambda: len(self.watched.net_connections()) == 1, "only the listening port is left")
        count: int = self.watched.num_fds()
        return count

    def ssh(self, *options: str, key: Path | None = None, port: int = 0) -> tuple[str, ...]:
        """The client's argv, up to the options; a destination and a command are to follow."""
        return (
            "ssh",
            *("-F", "none", "-p", str(port or self.port), "-i", str(key or self.alice)),
            *("-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"),
            *("-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR"),
            *("-o", f"UserKnownHostsFile={self.root / 'known_hosts'}"),
            *options,
        )

    def run(
        self,
        command: str,
        *options: str,
        stdin: bytes = b"",
        key: Path | None = None,
        account: str = "git",
        port: int = 0,
        timeout: float = 30,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command by ssh; an empty one asks for a shell."""
        argv = (
            *self.ssh(*options, key=key, port=port),
            f"{account}@127.0.0.1",
            *((command,) * bool(command)),
        )
        return subprocess.run(
            argv, input=stdin, capture_output=True, timeout=timeout, env=CLIENT_ENV, check=False
        )

    @contextlib.contextmanager
    def paramiko(
        self, account: str = "git", *, key: Path | None = None
    ) -> Iterator[paramiko.Transport]:
        """A client that can be told to misbehave, logged in as alice if not as another."""
        transport = paramiko.Transport(("127.0.0.1", self.port))
        try:
            private = paramiko.Ed25519Key.from_private_key_file(str(key or self.alice))
            transport.connect(username=account, pkey=private)
            yield transport
        finally:
            transport.close()

    def git(self, *argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.org"}
        who |= {name.replace("AUTHOR", "COMMITTER"): value for name, value in who.items()}
        env = {**CLIENT_ENV, **who, "GIT_SSH_COMMAND": " ".join(self.ssh())}
        return subprocess.run(
            ("git", *argv), cwd=cwd, env=env, capture_output=True, text=True, check=False
        )


def at_home_in(directory: Path) -> None:
    """Let admirals who are the ship's own user be at home there, where no shell finds files that
    say what else it is to do: that may be much, and a shell that is killed meanwhile keep others
    from it."""
    from receiver import admiral

    person = admiral.person

    def at_home() -> admiral.Person:
        who = person()
        return who if who.prefix else evolve(who, home=directory)

    admiral.person = at_home


def serve(root: Path, settings: dict[str, Any]) -> None:
    """The server's process."""
    from twisted.internet import reactor as default_reactor
    from twisted.logger import globalLogBeginner, textFileLogObserver

    from hooks.layout import Layout
    from receiver import admiral
    from receiver.audit import Audit
    from receiver.ssh import child, transport
    from receiver.ssh.interface import Account, Command, Login, Rank, Request, Words
    from receiver.ssh.server import ssh_factory
    from receiver.verbs import Starphleet

    reactor = cast(Any, default_reactor)
    transport.REKEY_BYTES = settings.pop("rekey_bytes", transport.REKEY_BYTES)
    transport.REKEY_SECONDS = settings.pop("rekey_seconds", transport.REKEY_SECONDS)
    child.GRACE = settings.pop("grace", child.GRACE)
    admiral.SFTP_SERVERS = tuple(settings.pop("sftp_servers", admiral.SFTP_SERVERS))
    at_home_in(root)

    def closed(login: Login, request: Request) -> Words:
        return Words(f"Hello {login.key.owner}: nothing is here\n")

    def git(login: Login, request: Request) -> Command | Words:
        verb, _, rest = (request.command or "").partition(" ")
        env = PLAIN_PATH | dict(request.env)
        if request.command is None:
            return Words(f"Hello {login.key.owner}.\nPush with git.\n", 0)
        if verb == "who":
            return Words(f"{login.account} {login.key.owner} {login.peer}\n", 0)
        if verb == "words":
            return Words("x" * int(rest), 7)
        if verb in ("git-receive-pack", "git-upload-pack"):
            name = rest.strip("'").lstrip("/")
            return Command(("git", verb.removeprefix("git-"), name), env, root)
        if verb == "sh":
            return Command(("/bin/sh", "-c", rest), env, root)
        if verb == "env":
            return Command(("/usr/bin/env",), env, root)
        raise RuntimeError(f"a room that breaks: {verb}")

    def captain(login: Login, request: Request) -> Words:
        return Words("a captain\n", 0)

    starphleet = Starphleet(Layout(root), {"STARPHLEET_SSH_PORT": "2022"})
    factory = ssh_factory(
        reactor,
        host_key=root / "host_key",
        keys=(root / "authorized_keys", root / "admirals"),
        rooms={
            "git": Account(git),
            "captain": Account(captain, Rank.CAPTAIN),
            "admiral": Account(admiral.AdmiralRoom(starphleet), Rank.ADMIRAL, whole=True),
            "update": Account(closed, Rank.ADMIRAL),
        },
        record=Audit(root / "audit.log"),
        **settings,
    )
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    port = reactor.listenTCP(0, factory, backlog=200, interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    reactor.run()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), json.loads(sys.argv[2]))
