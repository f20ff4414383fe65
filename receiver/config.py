"""Where settings come from: the environment, and a file of the same variables in the ship's root.

The only module that reads the environment. A variable that is set wins over the file.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Mapping
from pathlib import Path

import psutil
from attrs import evolve, field, frozen

from containers.interface import Limits
from hooks.environment import read_env_file
from hooks.layout import Layout
from hooks.limits import usual_memory
from hooks.push import read_duration
from hooks.settings import MB, Settings
from receiver.syslog.messages import Destination, destinations
from receiver.variables import Variables
from receiver.web.peering import read_peers

_INSTALLING = re.compile("(UV|PIP)_[A-Z_]+|SSL_CERT_(FILE|DIR)|(?i:(https?|no|all)_proxy)$")
_SECRET = re.compile("SECRET|TOKEN|PASSWORD|CREDENTIAL")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_PASSED_TO_BUILDS = (
    *_PROXIES,
    "UV_INDEX_URL", "UV_DEFAULT_INDEX", "PIP_INDEX_URL", "NPM_CONFIG_REGISTRY",
)  # fmt: skip
_ASKER = ("STARPHLEET_OWNER", "STARPHLEET_KEY")
_SYSTEM = Path("/var/starphleet")
_ROOTS = Path("/etc/ssl/certs/ca-certificates.crt")


@frozen
class Config:
    """Everything an operator may set. Ports are TCP ports, times seconds, sizes bytes."""

    layout: Layout
    settings: Settings
    bind: str
    login_timeout: float
    logins_per_address: int
    logins: int
    max_pack: int
    service_ports: range
    path: str
    terminal: str
    git_env: Mapping[str, str]
    headquarters: str
    private_key: Path | None
    public_key: Path | None
    ship_files: Path
    pulse: float | None
    """`None` when nothing is said: then the headquarters may."""
    overlay: bool
    runtime: str
    base: str
    network: str
    tests_reach_ship: bool
    acme: str
    acme_server: str
    acme_roots: Path | None
    peers: tuple[str, ...]
    peers_token: str = field(repr=False)
    metrics_token: str = field(repr=False)
    asker: tuple[str, str]
    """Who uses `starphleet`: the owner of a key and its fingerprint; "" for who is on the host."""
    syslog: tuple[Destination, ...]
    hook_secret: str = field(repr=False)
    given: Mapping[str, str] = field(repr=False)
    """What of it came from the environment, for a `starphleet` that the ship starts."""
    remote: str
    ec2_size: str
    notify: str
    """Where systemd wants to be told how the ship is, "" where it does not."""
    environ: Mapping[str, str] = field(repr=False)
    """All of the environment, for the next process of the ship."""
    installing: Mapping[str, str] = field(repr=False)
    """What of it an installer of packages goes by: registries, proxies, certificates."""


def load(environ: Mapping[str, str] | None = None) -> Config:
    """The configuration as it is now; `Refused` names the variable that is not right."""
    environ = os.environ if environ is None else environ
    layout = Layout(_root(environ))
    given = {**_file(_of_the_system(layout)), **_file(layout.settings), **environ}
    return _config(environ, given, layout)


def _config(environ: Mapping[str, str], given: Mapping[str, str], layout: Layout) -> Config:
    """Of the environment, and of what is `given` by it and by files."""
    read = Variables({name: value for name, value in given.items() if value != ""})
    settings = _settings(read, given, layout)
    return Config(
        layout=evolve(layout, working=read.directory("STARPHLEET_DEV", layout.working)),
        settings=settings,
        bind=read.address("STARPHLEET_BIND", _usual_bind(settings)),
        login_timeout=float(read.count("STARPHLEET_LOGIN_TIMEOUT", 60)),
        logins_per_address=read.count("STARPHLEET_LOGINS_PER_ADDRESS", 100),
        logins=read.count("STARPHLEET_LOGINS", 400),
        max_pack=read.size("STARPHLEET_MAX_PACK", 1024 * MB),
        service_ports=read.ports("STARPHLEET_SERVICE_PORTS", range(20000, 28000)),
        path=environ.get("PATH", "/usr/local/bin:/usr/bin:/bin"),
        terminal=environ.get("TERM", "dumb"),
        git_env=_git_env(given, settings.roots),
        headquarters=read.text("STARPHLEET_HEADQUARTERS", ""),
        private_key=read.file("STARPHLEET_PRIVATE_KEY"),
        public_key=read.file("STARPHLEET_PUBLIC_KEY"),
        ship_files=Path(read.text("STARPHLEET_SHIP_FILES", _ship_files(layout))),
        pulse=read.seconds_or_none("STARPHLEET_PULSE"),
        overlay=_overlay(read, layout),
        runtime=read.one_of("STARPHLEET_RUNTIME", ("process", "lxc")),
        base=read.text("STARPHLEET_BASE", ""),
        network=read.text("STARPHLEET_NETWORK", ""),
        tests_reach_ship=read.truth("STARPHLEET_TESTS_REACH_SHIP"),
        acme=read.mail("STARPHLEET_ACME"),
        acme_server=read.text("STARPHLEET_ACME_SERVER", ""),
        acme_roots=read.file("STARPHLEET_ACME_ROOTS"),
        peers=read_peers(read.text("STARPHLEET_PEERS", ""), "STARPHLEET_PEERS"),
        peers_token=read.token("STARPHLEET_PEERS_TOKEN"),
        metrics_token=read.token("STARPHLEET_METRICS_TOKEN"),
        asker=_asker(environ),
        syslog=destinations(read.text("STARPHLEET_SYSLOG", ""), "STARPHLEET_SYSLOG"),
        hook_secret=read.text("STARPHLEET_HOOK_SECRET", ""),
        given=_passed_on(environ),
        remote=read.text("STARPHLEET_REMOTE", ""),
        ec2_size=read.text("EC2_INSTANCE_SIZE", ""),
        notify=environ.get("NOTIFY_SOCKET", ""),
        environ=dict(environ),
        installing={name: value for name, value in given.items() if _INSTALLING.match(name)},
    )


def _git_env(given: Mapping[str, str], roots: Path | None) -> dict[str, str]:
    """Certificates and proxies for git."""
    authorities = {"GIT_SSL_CAINFO": str(roots)} if roots else {}
    return {**authorities, **{name: given[name] for name in _PROXIES if name in given}}


def _passed_on(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environ.items()
        if name.startswith("STARPHLEET_") and not _SECRET.search(name)
        if name not in _ASKER
    }


def _usual_bind(settings: Settings) -> str:
    return "127.0.0.1" if settings.host == "localhost" else "0.0.0.0"  # noqa: S104 - to be reached


def _settings(read: Variables, given: Mapping[str, str], layout: Layout) -> Settings:
    """What all rooms go by."""
    host = read.domain("STARPHLEET_HOST", "localhost")
    test_domain = read.domain("STARPHLEET_TEST_DOMAIN", "") or None
    ttl = read_duration(read.text("STARPHLEET_TEST_TTL", "24h"), "STARPHLEET_TEST_TTL")
    idle = read.text("STARPHLEET_TEST_IDLE", "30m")
    return Settings(
        host=host,
        ship_name=read.domain("STARPHLEET_SHIP_NAME", ""),
        http_port=read.port("STARPHLEET_HTTP_PORT", 8080),
        https_port=read.port_or_none("STARPHLEET_HTTPS_PORT", 8443),
        https_redirect=read.truth("STARPHLEET_HTTPS_REDIRECT"),
        hsts=read.count("STARPHLEET_HSTS", 0, least=0, most=10**9),
        proxies=read.networks("STARPHLEET_PROXIES"),
        ssh_port=read.port("STARPHLEET_SSH_PORT", 2222),
        test_domain=test_domain,
        test_ttl=ttl,
        test_idle=0.0 if idle == "0" else read_duration(idle, "STARPHLEET_TEST_IDLE"),
        drain_wait=float(read.count("STARPHLEET_DRAINSTOP_WAIT", 30, least=0)),
        deploys_at_once=read.count("STARPHLEET_DEPLOYS_AT_ONCE", max(2, os.cpu_count() or 2)),
        free_disk=read.size("STARPHLEET_FREE_DISK", 256 * MB),
        service_limits=_service_limits(read),
        build_limits=_build_limits(read),
        service_log=read.size("STARPHLEET_SERVICE_LOG", 16 * MB),
        logs=read.size("STARPHLEET_LOGS", 256 * MB),
        devmode=_devmode(given, layout),
        build_env={name: given[name] for name in _PASSED_TO_BUILDS if name in given},
        roots=_roots(given),
    )


def _service_limits(read: Variables) -> Limits:
    return Limits(
        memory=read.size("STARPHLEET_MEMORY", usual_memory(psutil.virtual_memory().total)),
        processes=read.count("STARPHLEET_PIDS", 256),
        cpus=read.share("STARPHLEET_CPUS"),
        disk=read.size_or_none("STARPHLEET_DISK"),
        files=_files(read),
    )


def _build_limits(read: Variables) -> Limits:
    return Limits(
        memory=read.size("STARPHLEET_BUILD_MEMORY", 4096 * MB),
        processes=read.count("STARPHLEET_BUILD_PIDS", 1024),
        disk=read.size("STARPHLEET_BUILD_DISK", 16384 * MB),
        files=_files(read),
        seconds=float(read.count("STARPHLEET_BUILD_TIMEOUT", 900)),
        output=read.size("STARPHLEET_BUILD_OUTPUT", 64 * MB),
    )


def _files(read: Variables) -> int:
    """How many one process may have open."""
    return read.count("MAX_OPEN_FILES", 4096)


def _asker(environ: Mapping[str, str]) -> tuple[str, str]:
    """As the ship said it for a session of its SSH server; on the host the account's name."""
    owner, key = (environ.get(name, "") for name in _ASKER)
    return (owner, key) if owner and key else (environ.get("SUDO_USER") or _account(), "")


def _account() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


@frozen
class Installer:
    """Who runs this: `name` of the account, also behind sudo, and the file of `keys` that it lets
    in by sshd, "" if there is none. `environ` is for uv: it goes by pip's registry too."""

    name: str
    is_root: bool
    keys: str
    environ: Mapping[str, str] = field(repr=False)


def installer(environ: Mapping[str, str] | None = None) -> Installer:
    environ = os.environ if environ is None else environ
    uid = os.geteuid()
    also = {"UV_DEFAULT_INDEX": environ["PIP_INDEX_URL"]} if "PIP_INDEX_URL" in environ else {}
    told = {**also, **environ}
    try:
        own = pwd.getpwnam(environ["SUDO_USER"]) if "SUDO_USER" in environ else pwd.getpwuid(uid)
    except KeyError:  # nobody that is listed
        return Installer("root", uid == 0, "", told)
    keys = Path(own.pw_dir) / ".ssh/authorized_keys"
    return Installer(own.pw_name, uid == 0, str(keys) if keys.is_file() else "", told)


def _of_the_system(layout: Layout) -> Path:
    """The settings of the system's ship, which are stronger in its root."""
    return Path("/etc/starphleet") if layout.root == _SYSTEM else layout.settings


def _ship_files(layout: Layout) -> str:
    """The system's place for a ship of the system, else one in the ship's root."""
    system = layout.root == _SYSTEM
    return "/etc/starphleet.d" if system else str(layout.root / "starphleet.d")


def _overlay(read: Variables, layout: Layout) -> bool:
    """Whether the headquarters may lay files over the host's: those of an installed ship."""
    if read.text("STARPHLEET_OVERLAY", ""):
        return read.truth("STARPHLEET_OVERLAY")
    return os.geteuid() == 0 and layout.installed.is_file()


def _root(environ: Mapping[str, str]) -> Path:
    """`STARPHLEET_ROOT`, else the system's place for root and the user's data directory."""
    named = environ.get("STARPHLEET_ROOT", "")
    if named:
        return Path(named).absolute()
    if os.geteuid() == 0:
        return _SYSTEM
    data = environ.get("XDG_DATA_HOME") or str(Path("~/.local/share").expanduser())
    return Path(data) / "starphleet"


def _file(path: Path) -> dict[str, str]:
    return read_env_file(path.read_text(), str(path)) if path.is_file() else {}


def _devmode(given: Mapping[str, str], layout: Layout) -> bool | None:
    """Whether this is a workstation; `None` when nothing on the ship says so or not."""
    if layout.live.exists():
        return False
    told = bool(given.get("DEVMODE_ENABLED")) or Path("/vagrant").is_dir()
    return True if told else None


def _roots(given: Mapping[str, str]) -> Path | None:
    """The certificate authorities of the host, for clients that would bring their own."""
    named = Path(given.get("SSL_CERT_FILE") or _ROOTS).absolute()
    return named if named.is_file() else None
