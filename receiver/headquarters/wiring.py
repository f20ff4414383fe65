"""The headquarters' side of a ship, put together."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from attrs import frozen

from containers.closed import Closed
from hooks.environment import DEFAULTS
from hooks.errors import Refused
from hooks.naming import repository_name
from hooks.repository import Repository
from hooks.settings import git_address
from hooks.ship import Ship
from hooks.standing import Source
from hooks.underway import Deploys
from receiver.headquarters.aboard import Aboard
from receiver.headquarters.asking import Asking
from receiver.headquarters.bringing import Bringing
from receiver.headquarters.evaluate import Evaluator
from receiver.headquarters.following import Following
from receiver.headquarters.git import RemoteGit
from receiver.headquarters.headquarters import pulse_of
from receiver.headquarters.hosting import NAME, Hosting
from receiver.headquarters.loop import Loop
from receiver.headquarters.reading import Reader
from receiver.headquarters.readings import Readings
from receiver.headquarters.ships import PushBack
from receiver.headquarters.shipscripts import Shipscripts
from receiver.headquarters.source import source_of_operator
from receiver.headquarters.sources import Sources


@frozen
class Parts:
    """What the daemon runs: the loop, what follows from it aboard, and the hosting of it here."""

    loop: Loop
    aboard: Aboard
    hosting: Hosting
    asking: Asking

    async def point_to(self, text: str) -> None:
        """Make `text` the headquarters; `ShipError` when it cannot be read: nothing changes."""
        source = source_of_operator(text, "the headquarters")
        if source.url != self.hosting.here.url:
            await readable(self.asking, self.loop.sources, source)
        self.loop.settle_on(source)


def put_together(
    ship: Ship,
    deploys: Deploys,
    *,
    path: str,
    git_env: Mapping[str, str],
    ship_files: Path,
    pulse: float | None,
    overlay: bool = False,
) -> Parts:
    """`path` is `PATH`, `git_env` certificates and proxies for git, `ship_files` the directory of
    the ship's own settings for services, `pulse` seconds, or `None` for the headquarters' word;
    with `overlay` its files are laid over the host's."""
    reactor, layout = ship.reactor, ship.layout
    here = Source(f"{git_address(ship.settings)}/{NAME}")
    own = own_repositories(ship)
    remote = RemoteGit(reactor, layout, path, git_env)
    sources = Sources(reactor, layout, ship.git, remote, own)
    asking = Asking(reactor, remote, own)
    push_back = PushBack(ship.settings.ship_name, sources.fetch, remote, own)
    aboard = _aboard(ship, push_back, path, here, overlay=overlay)
    bringing = Bringing(ship, deploys, sources)
    loop = Loop(ship, sources, _readings(ship, ship_files), bringing, aboard.adopt, pulse)
    loop.follow_with(
        Following(
            reactor,
            asking,
            pulse=pulse_of({}, pulse),
            moved=loop.moved,
            lost=loop.lost,
            resolve=sources.resolve,
        )
    )
    return Parts(loop, aboard, Hosting(ship, loop, here), asking)


def _aboard(ship: Ship, push_back: PushBack, path: str, here: Source, *, overlay: bool) -> Aboard:
    return Aboard(
        ship.reactor,
        ship.layout,
        ship.door,
        push_back,
        Shipscripts(ship.reactor, lambda line: ship.log.info("{line}", line=line)),
        {"PATH": path, "HOME": str(ship.layout.root), "SHIP_NAME": ship.settings.ship_name},
        here.url,
        overlay,
    )


def _readings(ship: Ship, ship_files: Path) -> Readings:
    reader = Reader(
        Evaluator(ship.reactor, Closed(ship.reactor, ship.layout.closed)),
        ship_files,
        {**DEFAULTS, "SHIP_NAME": ship.settings.ship_name},
        ship.settings.devmode,
    )
    return Readings(ship.reactor, ship.layout, reader)


def located(layout_file: Path, given: str) -> Source | None:
    """Where the headquarters is: what was set last, else what the environment gives."""
    text = layout_file.read_text() if layout_file.exists() else given
    return source_of_operator(text, "STARPHLEET_HEADQUARTERS") if text.strip() else None


async def readable(asking: Asking, sources: Sources, source: Source) -> None:
    """`ShipError` saying why `source` cannot be followed, if it cannot."""
    commit = (await asking.ask(source.url, [source.ref]))[source.ref]
    if commit is None and source.ref:
        commit = await sources.resolve(source)
    if commit is None:
        raise Refused(f"{source.url} is empty: push a branch to it first")
    await sources.fetch(source, commit)


def own_repositories(ship: Ship) -> Callable[[str], Repository | None]:
    """Which URLs mean a repository of this ship's own, and which one."""
    address = git_address(ship.settings)
    named = re.compile(rf"{re.escape(address)}/([^/]+?)(?:\.git)?/?")

    def own(url: str) -> Repository | None:
        match = named.fullmatch(url)
        if match is None:
            return None
        name = match[1] if match[1] == NAME else repository_name(match[1])
        repository = ship.repository(name)
        repository.ensure()
        return repository

    return own
