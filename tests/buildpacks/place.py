"""Places to build and run in, for the tests: a plain directory, and the same behind bubblewrap."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import uv
from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from buildpacks.build import Outcome, build
from buildpacks.launch import launch_argv, launch_script, write_env_dir
from buildpacks.packs import PROVIDED, Built, Pack
from buildpacks.procfile import parse_procfile, web_command

APPS = Path(__file__).parent
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PASSED = (
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("UV_INDEX_URL", "UV_DEFAULT_INDEX", "PIP_INDEX_URL", "NPM_CONFIG_REGISTRY"),
)


class Reactor(IReactorProcess, IReactorTime):
    """What is used of the reactor here."""


def environment() -> dict[str, str]:
    """What the pipeline gives a build: nothing of the ship's but certificates and the index."""
    env = {name: os.environ[name] for name in PASSED if name in os.environ}
    if CERTIFICATES.exists():
        names = ("SSL_CERT_FILE", "PIP_CERT", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE")
        env |= dict.fromkeys(names, str(CERTIFICATES))
    return env


class Child(ProcessProtocol):
    """A process whose output goes to `output` and whose end fires `ended` with an `Outcome`."""

    def __init__(self, output: Callable[[bytes], None]) -> None:
        self.output = output
        self.ended: Deferred[Outcome] = Deferred()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        self.output(data)

    def errReceived(self, data: bytes) -> None:
        self.output(data)

    def processEnded(self, reason: Failure) -> None:
        status = 0 if reason.check(ProcessDone) else getattr(reason.value, "exitCode", None)
        self.ended.callback(Outcome(status))


@frozen
class Place:
    """An app laid into a directory of its own: a `Site`, and where its service is started.

    `cache` is shared by the tests of one process, as by the deploys of one service.
    """

    reactor: Reactor
    directory: Path
    cache_directory: Path

    @classmethod
    def of(cls, reactor: Reactor, fixture: str, directory: Path, cache: Path) -> Place:
        """The app at `fixture` below this folder ('' for an empty one), in `directory`."""
        place = cls(reactor, directory, cache)
        directory.mkdir(parents=True)
        cache.mkdir(parents=True, exist_ok=True)
        if fixture:
            shutil.copytree(APPS / fixture, directory / "app")
        else:
            (directory / "app").mkdir()
        (directory / "tools").mkdir()
        (directory / "tools" / "uv").symlink_to(uv.find_uv_bin())
        return place

    @property
    def files(self) -> Path:
        return self.directory / "app"

    @property
    def app(self) -> str:
        return str(self.files)

    @property
    def cache(self) -> str:
        return str(self.cache_directory)

    @property
    def env_dir(self) -> str:
        return str(self.directory / "env")

    @property
    def tools(self) -> str:
        return str(self.directory / "tools")

    def pack(self, pack: Pack) -> str:
        return str(pack.directory)

    def seen(self, argv: Sequence[str], env: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
        """The argv and environment that the ship itself would run."""
        base = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": self.app, "LANG": "C.UTF-8"}
        return list(argv), {**base, **env}

    def spawn(
        self, argv: Sequence[str], env: Mapping[str, str], output: Callable[[bytes], None]
    ) -> Child:
        child = Child(output)
        argv, env = self.seen(argv, env)
        program = shutil.which(argv[0], path=env["PATH"]) or argv[0]
        self.reactor.spawnProcess(child, program, argv, env, self.app)
        return child

    async def run(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        output: Callable[[bytes], None],
        *,
        online: bool = True,
    ) -> Outcome:
        return await self.spawn(argv, env, output).ended


@frozen
class Sandbox(Place):
    """The same behind bubblewrap: the app at /app, the packs at /buildpacks, no more of the ship
    than its system, read-only."""

    @property
    def app(self) -> str:
        return "/app"

    @property
    def cache(self) -> str:
        return "/cache"

    @property
    def env_dir(self) -> str:
        return "/env"

    @property
    def tools(self) -> str:
        return "/tools"

    def pack(self, pack: Pack) -> str:
        return f"/buildpacks/{pack.at}"

    def spawn(
        self, argv: Sequence[str], env: Mapping[str, str], output: Callable[[bytes], None]
    ) -> Child:
        child = Child(output)
        argv, env = self.seen(argv, env)
        self.reactor.spawnProcess(child, "/usr/bin/setsid", ["setsid", *argv], env, "/")
        return child

    def seen(self, argv: Sequence[str], env: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
        argv, env = super().seen(argv, env)
        env_dir = self.directory / "env"
        env_dir.mkdir(exist_ok=True)
        binds = [(self.files, "/app"), (self.cache_directory, "/cache")]
        reads = [
            *((Path(name), name) for name in ("/usr", "/etc/ssl", "/etc/alternatives")),
            *((Path(name), name) for name in ("/etc/resolv.conf", "/etc/hosts", "/etc/passwd")),
            *((Path(name), name) for name in ("/etc/nsswitch.conf", "/etc/ruby", "/var/lib/gems")),
            (PROVIDED[0].mount, "/buildpacks"),
            (Path(uv.find_uv_bin()), "/tools/uv"),
            (env_dir, "/env"),
            (self.directory / "launch", "/launch"),
        ]
        links = [("usr/bin", "/bin"), ("usr/lib", "/lib"), ("usr/lib64", "/lib64")]
        return [
            *("bwrap", "--unshare-user", "--unshare-pid", "--die-with-parent", "--new-session"),
            *("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"),
            *(word for source, at in links for word in ("--symlink", source, at)),
            *(word for source, at in reads for word in ("--ro-bind-try", str(source), at)),
            *(word for source, at in binds for word in ("--bind", str(source), at)),
            *("--uid", "1000", "--gid", "1000", "--chdir", "/app", "--", *argv),
        ], env


@define
class Log:
    """Everything that was said and printed, as one text."""

    data: bytes = b""
    said: list[str] = field(factory=list)

    def feed(self, chunk: bytes) -> None:
        self.data += chunk

    @property
    def text(self) -> str:
        return "\n".join(self.said) + "\n" + self.data.decode("utf-8", "replace")


async def compiled(
    place: Place,
    log: Log,
    *,
    variables: Mapping[str, str] | None = None,
    chosen: Pack | None = None,
) -> Built:
    """Build the place's app by the provided packs, as the pipeline would."""
    env_dir = place.directory / "env"
    shutil.rmtree(env_dir, ignore_errors=True)
    write_env_dir(env_dir, variables or {})
    env = {**environment(), "STARPHLEET_TOOLS": place.tools}
    return await build(
        place, PROVIDED, chosen=chosen, env=env, say=log.said.append, output=log.feed
    )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@frozen
class Service:
    """A started app: its port, and the process that was started."""

    place: Place
    port: int
    child: Child
    log: Log

    @property
    def pid(self) -> int:
        assert self.child.transport is not None
        pid: int = self.child.transport.pid
        return pid

    async def get(self, path: str = "/", *headers: str) -> str:
        """The answer to a GET, head and body, waiting until the service listens."""
        for _ in range(300):
            answer = Log()
            given = [word for header in headers for word in ("-H", header)]
            url = f"http://127.0.0.1:{self.port}{path}"
            curl = ["curl", "-si", "--path-as-is", "--noproxy", "*", "-m", "5", *given, url]
            outcome = await Place.run(self.place, curl, {}, answer.feed)
            if outcome.ok:
                return answer.data.decode("utf-8", "replace").replace("\r", "")
            if self.child.ended.called:
                raise AssertionError(f"the service ended:\n{self.log.text}")
            await deferLater(self.place.reactor, 0.05)
        raise AssertionError(f"no answer from {url}:\n{self.log.text}")

    async def stop(self) -> Outcome:
        """TERM to all its processes, as the runtime stops it; the first one's end."""
        if not self.child.ended.called:
            os.killpg(self.pid, signal.SIGTERM)
        return await self.child.ended


def start(place: Place, built: Built) -> Service:
    """Start the web command of what was built, on a free port."""
    procfile = place.files / "Procfile"
    commands = parse_procfile(procfile.read_text()) if procfile.exists() else None
    script = launch_script(web_command(commands, built), built.config_vars, app=place.app)
    (place.directory / "launch").write_text(script)
    seen = "/launch" if isinstance(place, Sandbox) else str(place.directory / "launch")
    port, log = free_port(), Log()
    child = place.spawn(["setsid", *launch_argv(seen)], {"PORT": str(port)}, log.feed)
    return Service(place, port, child, log)
