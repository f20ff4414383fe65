"""A ship under way: from its first look at who has a key until all that it began has ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from typing import Any

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from hooks import idling, rounds
from hooks.boot import boot
from hooks.idling import Idling
from hooks.pulse import every
from hooks.settings import git_address
from hooks.ship import Ship
from hooks.underway import Deploys
from receiver import crew, webhooks
from receiver.audit import Audit
from receiver.commands import Commands
from receiver.config import Config
from receiver.crew import Muster
from receiver.fitting import lay_hooks
from receiver.headquarters.loop import Loop
from receiver.headquarters.wiring import Parts, located, put_together
from receiver.opening import Opening
from receiver.relay import Relay
from receiver.rooms import GitRoom, rooms
from receiver.ssh.keys import KeyDirectory
from receiver.ssh.server import ShipSSHFactory, ssh_factory
from receiver.succession.doors import Door
from receiver.succession.relief import WAITING, End, Relief, places
from receiver.succession.voyage import Voyage
from receiver.syslog.sending import Sender, senders
from receiver.updates.versions import own_commit
from receiver.web import assembly, site
from receiver.web.site import Pages
from receiver.web.sources import Sources
from receiver.webhooks import Webhooks

PULSE = 5.0  # seconds between two looks at what has expired
DOOR_PULSE = 10.0  # seconds between two looks at certificates
MINUTE = 60.0
HOUR = 3600.0
BACKLOG = 256  # of SSH connections

_log = Logger()


@frozen(eq=False)
class _Bridge:
    """What steers a ship: its deploys, its headquarters, who has a key, what may stand still."""

    voyage: Voyage
    ship: Ship
    ending: Deferred[End]
    deploys: Deploys
    headquarters: Parts
    muster: Muster
    idling: Idling

    @property
    def config(self) -> Config:
        return self.voyage.config

    @property
    def loop(self) -> Loop:
        return self.headquarters.loop


@frozen(eq=False)
class _Ways:
    """The ways in, and what answers there."""

    relay: Relay
    ssh: ShipSSHFactory
    pages: Pages
    doors: list[Door]


async def sail(voyage: Voyage, ship: Ship) -> End:
    """Be the ship until `voyage` ends that; then nothing of it goes on but what the end says."""
    bridge = _man(voyage, ship)
    # A port that somebody else has is told before nginx or a service is started in vain.
    voyage.doors.reserve(bridge.config.settings.ssh_port, BACKLOG, bridge.config.bind)
    await _come_back(bridge)
    bridge.loop.set_out(located(bridge.config.layout.headquarters, bridge.config.headquarters))
    work = [_lasting(one) for one in _work(bridge)]
    ways = _open(bridge)
    _log.info("the ship is up: {address}", address=git_address(bridge.config.settings))
    voyage.guests += [ways.relay, ways.ssh]
    end: End = False
    try:
        voyage.up(ship, bridge.ending)
        end = await bridge.ending
        return end
    finally:
        _log.info("the ship stops{how}", how="; what it serves goes on" if end else "")
        await _close(bridge, ways, end)
        for one in work:
            one.cancel()
        await _stop(bridge)
        await _let_go(ship, going_on=bool(end))


def _man(voyage: Voyage, ship: Ship) -> _Bridge:
    """Nothing of it has begun yet."""
    config, deploys = voyage.config, Deploys(ship)
    keys = KeyDirectory(config.layout.authorized_keys, config.layout.admirals)
    return _Bridge(
        voyage,
        ship,
        voyage.ending(),
        deploys,
        put_together(
            ship,
            deploys,
            path=config.path,
            git_env=config.git_env,
            ship_files=config.ship_files,
            pulse=config.pulse,
            overlay=config.overlay,
        ),
        Muster(voyage.reactor, keys, ship.proxy, ship.settings),
        Idling(ship, ship.settings.test_idle),
    )


async def _come_back(bridge: _Bridge) -> None:
    """What served serves again. Nothing new begins before it is clear which process is the ship."""
    await bridge.muster.look()
    if not bridge.voyage.alone:
        bridge.ship.queue.hold(WAITING)
    await boot(bridge.ship, tidily=bridge.voyage.alone)


def _work(bridge: _Bridge) -> Iterator[Coroutine[Any, Any, None]]:
    """What goes on until the ship ends."""
    ship = bridge.ship
    yield ship.proxy.keep()
    yield ship.vitals.keep()
    yield bridge.loop.following.go()
    yield bridge.loop.bringing.watch_work(bridge.loop.following)
    yield bridge.headquarters.aboard.watch_addresses()
    for seconds, again in _again(bridge):
        yield every(bridge.voyage.reactor, seconds, again)
    for sender in _senders(bridge.config, ship):
        yield sender.go()


def _again(bridge: _Bridge) -> Iterator[tuple[float, Callable[[], Awaitable[object]]]]:
    """What is done after so many seconds, each time."""
    ship, idle = bridge.ship, bridge.idling
    yield PULSE, partial(rounds.one_round, ship)
    yield HOUR, partial(rounds.housekeeping, ship)
    yield HOUR, bridge.loop.sweep
    yield MINUTE, ship.runtime.uphold
    yield DOOR_PULSE, ship.door.renew
    yield min(MINUTE, idle.seconds / 4) or HOUR, idle.look
    yield crew.PULSE, bridge.muster.look


def _open(bridge: _Bridge) -> _Ways:
    """To webhooks, to nginx that wakes, to git's hooks and `starphleet`, by SSH, to browsers."""
    config, ship, loop, doors = bridge.config, bridge.ship, bridge.loop, bridge.voyage.doors
    point_to, opening = bridge.headquarters.point_to, Opening(ship, bridge.muster)
    commands = Commands(ship, loop, point_to, opening, bridge.deploys)
    relay, ssh = _relay(bridge, commands), _ssh(bridge)
    pages = _pages(bridge, ssh)
    hooked = Webhooks(partial(_hook_secret, config, loop), loop.hurry)
    ways = _Ways(
        relay,
        ssh,
        pages,
        [
            webhooks.listen(doors, ship.proxy.instance.hooks, hooked),
            idling.listen(doors, ship.proxy.instance.wake, bridge.idling),
            doors.listenUNIX(str(config.layout.socket), relay, mode=0o600),
            doors.listenTCP(config.settings.ssh_port, ssh, BACKLOG, config.bind),
            site.listen(doors, ship.proxy.instance.pages, pages),
        ],
    )
    doors.let_go()
    return ways


async def _close(bridge: _Bridge, ways: _Ways, end: End) -> None:
    """Who asks when another process is the ship is sent there."""
    if not isinstance(end, bool):
        ways.relay.hand_over()
        bridge.ship.queue.dismiss()
    for door in ways.doors:
        await door.stopListening()
    ways.pages.close()


async def _stop(bridge: _Bridge) -> None:
    bridge.loop.stop()
    bridge.headquarters.aboard.stop()
    await bridge.headquarters.asking.close()
    await bridge.deploys.stop()
    await bridge.ship.queue.idle()  # a restart would start what is stopped by then


async def _let_go(ship: Ship, *, going_on: bool) -> None:
    """Of what serves, which another process adopts, or which ends."""
    if going_on:
        ship.services.let_go()
        await ship.proxy.leave()
    else:
        await ship.services.stand_down()
        await ship.proxy.stop()


def _relay(bridge: _Bridge, commands: Commands) -> Relay:
    config, ship, loop = bridge.config, bridge.ship, bridge.loop
    _, http = places(config.settings, config.bind)
    return Relay(
        ship,
        bridge.deploys,
        loop,
        bridge.headquarters.hosting,
        commands,
        Relief(ship, config.environ, http, bridge.ending),
        partial(_version, own_commit(), config, loop),
    )


def _ssh(bridge: _Bridge) -> ShipSSHFactory:
    config = bridge.config
    room = GitRoom(
        layout=config.layout,
        repository=bridge.ship.repository,
        hooks=lay_hooks(config.layout),
        address=git_address(config.settings),
        free_disk=config.settings.free_disk,
        max_pack=config.max_pack,
        given=config.given,
    )
    return ssh_factory(
        bridge.voyage.reactor,
        host_key=config.layout.host_key,
        keys=(config.layout.authorized_keys, config.layout.admirals),
        rooms=rooms(room, config.installing),
        login_timeout=config.login_timeout,
        per_address=config.logins_per_address,
        total=config.logins,
        record=Audit(config.layout.audit),
    )


def _pages(bridge: _Bridge, ssh: ShipSSHFactory) -> Pages:
    config, ship = bridge.config, bridge.ship
    return assembly.pages(
        Sources(bridge.voyage.reactor, ship, bridge.deploys, bridge.loop, ssh),
        peers=config.peers,
        peers_token=config.peers_token,
        metrics_token=config.metrics_token,
    )


def _version(commit: str, config: Config, loop: Loop) -> dict[str, Any]:
    """Which version this process is, and where others come from: what is set for this ship, else
    in `.starphleet`."""
    given = loop.headquarters.environment if loop.headquarters else {}
    return {"commit": commit, "remote": config.remote or given.get("STARPHLEET_REMOTE", "")}


def _senders(config: Config, ship: Ship) -> list[Sender]:
    """Who sends the journal on, a destination each."""
    if not config.syslog:
        return []
    name, roots, kept = ship.settings.ship_name, ship.settings.roots, ship.layout.journal
    return senders(ship.reactor, ship.journal, config.syslog, name, roots, kept)


def _hook_secret(config: Config, loop: Loop) -> str:
    """What is set for this ship, else in `.starphleet` or the ship's own files."""
    given = loop.headquarters.environment if loop.headquarters else {}
    return config.hook_secret or given.get(webhooks.SECRET, "")


def _lasting(work: Coroutine[Any, Any, None]) -> Deferred[None]:
    """Work that goes on until it is cancelled."""
    going: Deferred[None] = Deferred.fromCoroutine(work)
    going.addErrback(_tell_unless_cancelled)
    return going


def _tell_unless_cancelled(failure: Failure) -> None:
    if failure.check(CancelledError) is None:
        _log.failure("work of the ship ended", failure)
