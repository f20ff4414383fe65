"""What the voyages start from: a ship in a process of its own, apps to push, git over OpenSSH."""

from __future__ import annotations

import http.client
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psutil
from attrs import define, field, frozen

from tests import EVERYTHING
from tests.containers.lxc import base, share_bases
from tests.ports import free_port
from tests.voyages import commands

ROOT = Path(__file__).parent.parent.parent
REAL = Path(__file__).parent / "apps_real"
DEADLINE = 60.0  # seconds that a condition may take to come true
MOST = 600.0  # seconds for one command of a client or an operator
current_runtime = "process"  # of the ships that are begun now


def until(condition: Callable[[], object], what: str, seconds: float = DEADLINE) -> None:
    """Wait until `condition` is true. What takes long to come, or to ask, is asked less often."""
    began = asked = time.monotonic()
    while not condition():
        answered = time.monotonic()
        if answered > began + seconds:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(max(0.02, answered - asked, min(0.1, (answered - began) / 20)))
        asked = time.monotonic()


def whole(load: int) -> int:
    """As many as that; in containers a fifth, unless everything is tested: what many at once do to
    the ship itself is seen without them."""
    return load if EVERYTHING or current_runtime == "process" else load // 5


@frozen
class Said:
    """How a command ended, and what it printed."""

    status: int
    text: str
    seconds: float

    @property
    def remote(self) -> list[str]:
        """What the ship said, line by line."""
        return [
            line.removeprefix("remote:").removeprefix(" ").rstrip()
            for line in self.text.splitlines()
            if line.startswith("remote:")
        ]

    @property
    def url(self) -> str:
        """The URL that stands alone on its line."""
        (found,) = [line for line in self.remote if re.fullmatch(r"http://\S+", line)]
        return found


@frozen
class Answer:
    status: int
    text: str
    headers: Mapping[str, str]


@define
class Harbour:
    """A ship below `home` and a client beside it. Leave it with everything ended and removed."""

    home: Path
    settings: dict[str, str] = field(factory=dict)
    ssh_port: int = field(factory=free_port)
    http_port: int = field(factory=free_port)
    runtime: str = field(factory=lambda: current_runtime)
    process: commands.Running | None = None

    def __enter__(self) -> Harbour:
        self.home.mkdir(exist_ok=True)
        self.home.chmod(0o711)
        self._let_through()
        if self.runtime == "lxc":
            self._take_base()
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True
        )
        self.starphleet("key", "add", "ann", f"{self.key}.pub")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process is None or self.process.poll() is not None:
            self.up()  # what a killed ship left serving is taken down by the next one
        self.down()
        shutil.rmtree(self.home, ignore_errors=True)

    def _take_base(self) -> None:
        """The base that services stand on is made once for all voyages."""
        base("full")
        (self.root / "lxc").mkdir(parents=True)
        share_bases(self.root / "lxc")

    @property
    def root(self) -> Path:
        return self.home / "ship"

    @property
    def key(self) -> Path:
        return self.home / "key"

    @property
    def env(self) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if "STARPHLEET" not in name},
            "STARPHLEET_ROOT": str(self.root),
            "STARPHLEET_SSH_PORT": str(self.ssh_port),
            "STARPHLEET_HTTP_PORT": str(self.http_port),
            "STARPHLEET_HTTPS_PORT": "0",
            "STARPHLEET_SERVICE_PORTS": self._service_ports(),
            "STARPHLEET_RUNTIME": self.runtime,
            **self.settings,
        }

    def built(self, name: str) -> Path:
        """The app of the one container of the service `name`."""
        (container,) = (self.root / "containers").glob(f"{name}-*")
        return container / ("build/upper/app" if self.runtime == "lxc" else "app")

    def starphleet(self, *arguments: str, check: bool = True) -> Said:
        """One `starphleet` command."""
        began = time.monotonic()
        status, text = commands.run(arguments, self.env, MOST)
        said = Said(status, text, time.monotonic() - began)
        return self._checked(["starphleet", *arguments], said, check=check)

    def up(self) -> None:
        """Start the ship in the foreground of a process of ours and wait until it answers."""
        with (self.home / "ship.log").open("ab") as log:
            self.process = commands.begin(["ship"], self.env, log.fileno())
        until(self._answers, "the ship answers")

    def down(self) -> None:
        """Stop it as `starphleet down` does."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(DEADLINE)

    def kill(self) -> None:
        """`kill -9` of the ship alone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    @property
    def log(self) -> str:
        return (self.home / "ship.log").read_text()

    @property
    def ship(self) -> psutil.Process:
        assert self.process is not None
        return psutil.Process(self.process.pid)

    @property
    def ssh(self) -> list[str]:
        return [
            "ssh", "-F", "none", "-i", str(self.key), "-p", str(self.ssh_port),
            "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
            "-o", f"UserKnownHostsFile={self.home / 'known_hosts'}", "-o", "LogLevel=ERROR",
        ]  # fmt: skip

    @property
    def git_env(self) -> dict[str, str]:
        return {
            **os.environ,
            "GIT_SSH_COMMAND": shlex.join(self.ssh),
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "Ann",
            "GIT_AUTHOR_EMAIL": "ann@example.com",
            "GIT_COMMITTER_NAME": "Ann",
            "GIT_COMMITTER_EMAIL": "ann@example.com",
            "GIT_TERMINAL_PROMPT": "0",
        }

    def remote(self, name: str) -> str:
        return f"git@localhost:{name}"

    def ssh_url(self, name: str) -> str:
        return f"ssh://git@localhost:{self.ssh_port}/{name}"

    def processes(self) -> list[list[str]]:
        """Command lines of everything below the ship."""
        found = []
        for process in self.ship.children(recursive=True):
            with suppress(psutil.Error):
                found.append(process.cmdline())
        return found

    def app(self, files: Mapping[str, str] | Path, where: str = "app") -> App:
        """A repository with one commit of `files`, given as texts or as a directory."""
        return App.new(self, self.home / where, files)

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        """GET by way of the loopback, whatever host the URL names."""
        host, _, rest = url.removeprefix("http://").partition("/")
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=30)
        try:
            connection.request("GET", f"/{rest}", headers={"Host": host, **(headers or {})})
            response = connection.getresponse()
            text = response.read().decode("utf-8", "replace")
            return Answer(response.status, text, dict(response.getheaders()))
        finally:
            connection.close()

    def _said(
        self,
        argv: list[str],
        cwd: Path,
        *,
        check: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> Said:
        began = time.monotonic()
        done = subprocess.run(
            argv,
            cwd=cwd,
            env=self.env if env is None else env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=MOST,
        )
        text = done.stdout.decode("utf-8", "replace")
        said = Said(done.returncode, text, time.monotonic() - began)
        return self._checked(argv, said, check=check)

    def _checked(self, argv: list[str], said: Said, *, check: bool) -> Said:
        if check and said.status != 0:
            raise AssertionError(
                f"{shlex.join(argv)}: {said.status}\n{said.text}\n{self._ship_log()}"
            )
        return said

    def _ship_log(self) -> str:
        path = self.home / "ship.log"
        return f"--- the ship's log\n{path.read_text()[-3000:]}" if path.exists() else ""

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the ship ended:\n{self._ship_log()}")
        try:
            with socket.socket(socket.AF_UNIX) as ship:
                ship.connect(str(self.root / "run" / "ship"))
            with socket.create_connection(("127.0.0.1", self.ssh_port), 1):
                return True
        except OSError:
            return False

    def _service_ports(self) -> str:
        """A range of its own for each worker of the tests, away from ephemeral ports."""
        worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        first = 20000 + 2000 * (worker % 6)
        return f"{first}-{first + 1999}"

    def _let_through(self) -> None:
        """A ship that is root runs services as another user, who must reach its root."""
        for parent in self.home.parents:
            if parent.stat().st_uid == os.getuid() and not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)


@frozen
class App:
    """A work tree with a repository, as a developer has one."""

    harbour: Harbour
    path: Path

    @classmethod
    def new(cls, harbour: Harbour, path: Path, files: Mapping[str, str] | Path) -> App:
        if isinstance(files, Path):
            shutil.copytree(files, path)
        else:
            path.mkdir(parents=True)
        app = cls(harbour, path)
        app.git("init", "-q", "-b", "master")
        app.commit(files if not isinstance(files, Path) else {})
        return app

    def git(self, *arguments: str, check: bool = True) -> Said:
        return self.harbour._said(
            ["git", *arguments], self.path, check=check, env=self.harbour.git_env
        )

    def commit(self, files: Mapping[str, str]) -> str:
        """Write `files`, commit everything, and give the commit's id."""
        for name, text in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "--all")
        self.git("commit", "-q", "--allow-empty", "-m", "a change")
        return self.git("rev-parse", "HEAD").text.strip()

    def push(self, name: str, refspec: str = "master", *options: str, check: bool = True) -> Said:
        """`git push` to the service `name` of the ship."""
        return self.git("push", *options, self.harbour.remote(name), refspec, check=check)

    def pushing(self, name: str, refspec: str = "master", *options: str) -> subprocess.Popen[bytes]:
        """A push that is underway."""
        return subprocess.Popen(
            ["git", "push", *options, self.harbour.remote(name), refspec],
            cwd=self.path,
            env=self.harbour.git_env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
