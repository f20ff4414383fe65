"""Fits a ship out: its parts put together, and the files that they need laid."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve
from uv import find_uv_bin

import hooks
from containers.interface import Exit, Limits
from containers.spawn import run
from hooks.attendance import Attendance
from hooks.building import Workshop
from hooks.errors import Refused
from hooks.frontdoor import FrontDoor
from hooks.holding import Holding
from hooks.journal.journal import Journal
from hooks.keeping import Keeping
from hooks.layout import Layout
from hooks.leading import Leading
from hooks.ledger import Ledger
from hooks.limits import available_memory
from hooks.queue import Queue
from hooks.repository import Git
from hooks.retiring import Retiring
from hooks.services import Services
from hooks.settings import Settings, own_host, reached
from hooks.ship import Ship
from hooks.vitals import Vitals
from proxy.instance import Instance
from proxy.nginx import Proxy
from receiver import keyring
from receiver.config import Config
from receiver.headquarters.ships import ship_name
from receiver.runtimes import choose

if TYPE_CHECKING:
    from proxy.acme import Acme

GIT_SECONDS = 600.0
GIT_KEPT = 1 << 26  # bytes of output kept: a file read from a tree, ids of a shallow history


def lay_hooks(layout: Layout) -> Path:
    """Git's hooks of this ship, outside every repository: the relay under its two names.

    Written at each start because the interpreter's path differs from machine to machine.
    """
    directory = layout.socket.parent / "hooks"
    directory.mkdir(mode=0o700, exist_ok=True)
    source = Path(hooks.__file__).parent / "git" / "relay.py"
    interpreter = Path(sys.executable).resolve()
    for name in ("pre-receive", "proc-receive", "hq-wait"):
        growing = directory / f".{name}"  # a push that is under way finds the one or the other
        growing.write_text(f"#!{interpreter} -IS\n{source.read_text()}")
        growing.chmod(0o700)
        growing.replace(directory / name)
    return directory


def take_keys(config: Config) -> None:
    """Copy the key that git hosts know, and let the owner of the public one in; each once."""
    if config.private_key is not None:
        kept = config.layout.private_keys / config.private_key.name
        kept.touch(mode=0o600)
        kept.write_bytes(_read(config.private_key, "STARPHLEET_PRIVATE_KEY"))
    if config.public_key is not None:
        owner = config.public_key.name.removesuffix(".pub").partition("@")[0]
        text = _read(config.public_key, "STARPHLEET_PUBLIC_KEY").decode("utf-8", "replace")
        keyring.add(config.layout.authorized_keys, owner, text)


def _read(path: Path, setting: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Refused(f"{setting}: {path}: {error.strerror}") from None


def lay_tools(layout: Layout) -> Path:
    """A directory with the programs that builds need and a host need not have: uv."""
    source, target = Path(find_uv_bin()), layout.tools / "uv"
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:  # another file system
        shutil.copy2(source, target)
    return layout.tools


def fit_out(reactor: Any, config: Config) -> Ship:
    """The ship of this root, with all its parts; nothing of it has begun yet."""
    layout = config.layout
    settings = evolve(config.settings, ship_name=ship_name(config.settings, layout.host_key))
    take_keys(config)
    tools = lay_tools(layout)
    git, runtime = _git(reactor, config), choose(reactor, config)
    proxy = _proxy(reactor, config, settings)
    ledger = Ledger(reactor, layout.ledger)
    queue = Queue(settings.deploys_at_once, available_memory)
    journal = Journal(reactor, layout, settings)
    attendance = Attendance(reactor, layout, settings, runtime, ledger.now, journal)
    holding = Holding(reactor, runtime, proxy.traffic)
    retiring = Retiring(layout, settings, runtime, proxy.traffic, attendance, journal)
    leading = Leading(settings, ledger, runtime, proxy, holding)
    keeping = Keeping(
        reactor,
        layout,
        settings,
        ledger,
        runtime,
        attendance,
        journal,
        holding,
        leading,
    )
    services = Services(
        layout,
        settings,
        ledger,
        runtime,
        proxy,
        git,
        queue,
        attendance,
        holding,
        leading,
        keeping,
        retiring,
    )
    git_env = {"PATH": config.path, **config.git_env}
    return Ship(
        reactor=reactor,
        layout=layout,
        settings=settings,
        ledger=ledger,
        runtime=runtime,
        proxy=proxy,
        services=services,
        workshop=Workshop(reactor, runtime, layout, settings, tools, git_env),
        git=git,
        queue=queue,
        journal=journal,
        door=FrontDoor(reactor, layout, settings, ledger, proxy, _acme(reactor, config, proxy)),
        vitals=Vitals(reactor, layout.vitals, layout.root),
    )


def _git(reactor: Any, config: Config) -> Git:
    """Runs git for repositories of the ship."""

    async def git(
        argv: Sequence[str], *, env: Mapping[str, str], stdin: bytes = b""
    ) -> tuple[int, bytes]:
        done = await run(
            reactor,
            argv,
            env={**env, **config.git_env},
            stdin=stdin,
            limits=Limits(seconds=GIT_SECONDS),
            keep=GIT_KEPT,
            merge=False,
        )
        return _status(done.exit), done.output

    return git


def _proxy(reactor: Any, config: Config, settings: Settings) -> Proxy:
    async def command(argv: Sequence[str], seconds: float) -> tuple[int, str]:
        done = await run(
            reactor, argv, env={"PATH": config.path}, limits=Limits(seconds=seconds), spare=True
        )
        return _status(done.exit), done.output.decode("utf-8", "replace")

    instance = Instance(
        config.layout.nginx,
        settings.http_port,
        ship=settings.host,
        bind=config.bind,
        https_port=settings.https_port,
        https_redirect=settings.https_redirect,
        hsts=settings.hsts,
        reached=reached(settings),
        own_host=own_host(settings),
        proxies=settings.proxies,
    )
    return Proxy(
        reactor, instance, run=command, operator=config.layout.nginx_files, search=config.path
    )


def _status(exit: Exit) -> int:
    """As a shell has it, for one that ended by a signal or a limit too."""
    return exit.status if exit.status is not None else 128


def _acme(reactor: Any, config: Config, proxy: Proxy) -> Acme | None:
    """Who gets certificates, if the operator wants any."""
    if not config.acme:
        return None
    from proxy.acme import LETSENCRYPT, Acme  # it takes long to load, and few ships want it

    return Acme(
        reactor,
        config.layout.certificates / "acme",
        proxy.instance.challenges,
        email=config.acme,
        server=config.acme_server or LETSENCRYPT,
        roots=config.acme_roots,
    )
