"""The daemon: wires the rooms together, brings back what served, and opens the doors."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from uv import find_uv_bin

import hooks
from containers.interface import Limits
from containers.spawn import run
from hooks.attendance import Attendance
from hooks.boot import boot
from hooks.building import Workshop
from hooks.errors import Refused, ShipError
from hooks.frontdoor import FrontDoor
from hooks.idling import Idling, listen
from hooks.layout import Layout
from hooks.ledger import Ledger, Serving
from hooks.queue import Queue
from hooks.rounds import rounds
from hooks.services import Services
from hooks.settings import git_address
from hooks.ship import Ship
from hooks.underway import Deploys
from proxy.nginx import Proxy
from receiver import keyring, webhooks
from receiver.audit import Audit
from receiver.commands import Commands
from receiver.config import Config
from receiver.headquarters.loop import Loop
from receiver.headquarters.ships import ship_name
from receiver.headquarters.wiring import located, put_together
from receiver.relay import Relay
from receiver.rooms import GitRoom, rooms
from receiver.runtimes import choose
from receiver.ssh.server import ssh_factory
from receiver.webhooks import Webhooks

if TYPE_CHECKING:
    from proxy.acme import Acme

DOOR_PULSE = 10.0  # seconds between two looks at certificates
MINUTE = 60.0
HOUR = 3600.0
GIT_SECONDS = 600.0
GIT_KEPT = 1 << 26  # bytes of output kept: a file read from a tree, ids of a shallow history

_log = Logger()


@contextmanager
def only_ship(layout: Layout) -> Iterator[None]:
    """Hold the root for one ship; `ShipError` when another has it. The file names our pid."""
    with layout.lock.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ShipError(f"a ship runs in {layout.root} already: starphleet status") from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


async def serve(reactor: Any, config: Config, stop: Deferred[bool]) -> None:
    """Run a ship until `stop` fires; then everything it started is stopped too, unless `stop`
    says that it is to go on."""
    config.layout.prepare()
    with only_ship(config.layout):
        ship = _ship(reactor, config)
        try:
            await _sail(reactor, config, ship, stop)
        finally:
            ship.ledger.close()


async def _sail(reactor: Any, config: Config, ship: Ship, stop: Deferred[bool]) -> None:
    deploys = Deploys(ship)
    parts = put_together(
        ship,
        deploys,
        path=config.path,
        git_env=config.git_env,
        ship_files=config.ship_files,
        pulse=config.pulse,
    )
    loop = parts.loop
    await boot(ship)
    hooks_of = Webhooks(partial(_hook_secret, config, loop), loop.hurry)
    hooked = webhooks.listen(reactor, ship.proxy.hooks, hooks_of)
    idling = Idling(ship, ship.settings.test_idle)
    waking = listen(reactor, ship.proxy.wake, idling)
    git_hooks = lay_hooks(config.layout)
    config.layout.socket.unlink(missing_ok=True)
    loop.set_out(located(config.layout.headquarters, config.headquarters))
    lasting = [
        _lasting(rounds(reactor, ship)),
        _lasting(ship.proxy.keep()),
        _lasting(loop.following.go()),
        _lasting(_every(reactor, HOUR, loop.sweep)),
        _lasting(_every(reactor, MINUTE, ship.services.uphold)),
        _lasting(_every(reactor, DOOR_PULSE, ship.door.renew)),
        _lasting(_every(reactor, min(MINUTE, idling.seconds / 4) or HOUR, idling.look)),
        _lasting(parts.aboard.watch_addresses()),
    ]
    relay = Relay(ship, deploys, loop, parts.hosting, Commands(ship, loop, parts.point_to))
    asked = reactor.listenUNIX(str(config.layout.socket), relay, mode=0o600)
    listening = _open_doors(reactor, config, ship, git_hooks)
    _log.info("the ship is up: {address}", address=git_address(config.settings))
    going_on = False
    try:
        going_on = await stop
    finally:
        _log.info("the ship stops{how}", how="; what it serves goes on" if going_on else "")
        await listening.stopListening()
        await asked.stopListening()
        await hooked.stopListening()
        await waking.stopListening()
        for one in lasting:
            one.cancel()
        loop.stop()
        parts.aboard.stop()
        await parts.asking.close()
        await deploys.stop()
        if not going_on:
            await ship.services.stand_down()
            await ship.proxy.stop()


def _open_doors(reactor: Any, config: Config, ship: Ship, git_hooks: Path) -> Any:
    """The port on which the SSH server listens."""
    room = GitRoom(
        layout=config.layout,
        repository=ship.repository,
        hooks=git_hooks,
        address=git_address(config.settings),
        free_disk=config.settings.free_disk,
        max_pack=config.max_pack,
        given=config.given,
    )
    factory = ssh_factory(
        reactor,
        host_key=config.layout.host_key,
        keys=(config.layout.authorized_keys, config.layout.admirals),
        rooms=rooms(room),
        login_timeout=config.login_timeout,
        per_address=config.logins_per_address,
        total=config.logins,
        record=Audit(config.layout.audit),
    )
    return reactor.listenTCP(config.settings.ssh_port, factory, backlog=256, interface=config.bind)


def _hook_secret(config: Config, loop: Loop) -> str:
    """What is set for this ship, else in `.starphleet` or the ship's own files."""
    given = loop.headquarters.environment if loop.headquarters else {}
    return config.hook_secret or given.get(webhooks.SECRET, "")


async def _every(reactor: Any, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """Do `work` until cancelled; once that it fails does not end it."""
    while True:
        await deferLater(reactor, seconds)
        try:
            await work()
        except CancelledError:
            raise
        except Exception:
            _log.failure("what is done every {seconds:g} s failed", seconds=seconds)


def _lasting(work: Coroutine[Any, Any, None]) -> Deferred[None]:
    """Work that goes on until it is cancelled."""
    going: Deferred[None] = Deferred.fromCoroutine(work)
    going.addErrback(_tell_unless_cancelled)
    return going


def _tell_unless_cancelled(failure: Failure) -> None:
    if failure.check(CancelledError) is None:
        _log.failure("work of the ship ended", failure)


def lay_hooks(layout: Layout) -> Path:
    """Git's hooks of this ship, outside every repository: the relay under its two names.

    Written at each start because the interpreter's path differs from machine to machine.
    """
    directory = layout.socket.parent / "hooks"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700)
    source = Path(hooks.__file__).parent / "git" / "relay.py"
    interpreter = Path(sys.executable).resolve()
    for name in ("pre-receive", "proc-receive", "hq-wait"):
        hook = directory / name
        hook.write_text(f"#!{interpreter} -IS\n{source.read_text()}")
        hook.chmod(0o700)
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


def _ship(reactor: Any, config: Config) -> Ship:
    layout = config.layout
    settings = evolve(config.settings, ship_name=ship_name(config.settings, layout.host_key))
    take_keys(config)

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
        return (done.exit.status if done.exit.status is not None else 128), done.output

    async def command(argv: Sequence[str], seconds: float) -> tuple[int, str]:
        done = await run(
            reactor, argv, env={"PATH": config.path}, limits=Limits(seconds=seconds), spare=True
        )
        status = done.exit.status if done.exit.status is not None else 128
        return status, done.output.decode("utf-8", "replace")

    tools = lay_tools(layout)
    runtime = choose(reactor, config)
    proxy = Proxy(
        reactor,
        layout.nginx,
        http_port=settings.http_port,
        https_port=settings.https_port,
        https_redirect=settings.https_redirect,
        hsts=settings.hsts,
        operator=layout.nginx_files,
        bind=config.bind,
        ship=settings.host,
        search=config.path,
        run=command,
    )
    ledger, queue = Ledger(reactor, layout.ledger), Queue(settings.deploys_at_once)

    async def now(service: str) -> Serving | None:
        return (await ledger.serving()).get(service)

    attendance = Attendance(reactor, layout, settings, runtime, now)
    services = Services(reactor, layout, settings, ledger, runtime, proxy, git, queue, attendance)
    return Ship(
        reactor=reactor,
        layout=layout,
        settings=settings,
        ledger=ledger,
        runtime=runtime,
        proxy=proxy,
        services=services,
        workshop=Workshop(
            reactor, runtime, layout, settings, tools, {"PATH": config.path, **config.git_env}
        ),
        git=git,
        queue=queue,
        door=FrontDoor(reactor, layout, settings, ledger, proxy, _acme(reactor, config, proxy)),
    )


def _acme(reactor: Any, config: Config, proxy: Proxy) -> Acme | None:
    """Who gets certificates, if the operator wants any."""
    if not config.acme:
        return None
    from proxy.acme import LETSENCRYPT, Acme  # it takes long to load, and few ships want it

    return Acme(
        reactor,
        config.layout.certificates / "acme",
        proxy.challenges,
        email=config.acme,
        server=config.acme_server or LETSENCRYPT,
        roots=config.acme_roots,
    )
