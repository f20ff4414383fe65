"""What the `starphleet` commands ask of a ship that is up."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from attrs import define

from buildpacks.launch import launch_argv
from containers.interface import Address, Container
from containers.watching import in_thread
from hooks.check import PATIENCE, ask
from hooks.errors import Refused
from hooks.ledger import Serving
from hooks.limits import over
from hooks.mounts import any_script, mounts
from hooks.say import Listen
from hooks.ship import Ship
from hooks.stamps import short
from hooks.underway import Deploys
from proxy.ranks import Deed, may
from receiver.headquarters import ordered as phases
from receiver.headquarters.loop import Loop
from receiver.headquarters.ordered import Ordered
from receiver.headquarters.source import source_of_operator
from receiver.opening import DASHBOARD, Opening


@define(eq=False)
class Commands:
    """`point_to` makes a source the headquarters, once it was seen to be readable."""

    ship: Ship
    loop: Loop
    point_to: Callable[[str], Awaitable[None]]
    opening: Opening
    deploys: Deploys

    async def do(self, words: Sequence[str], say: Listen) -> None:
        """One command: its name, then what it is about. `Refused` for one that is not known."""
        known: dict[str, Callable[..., Awaitable[None]]] = {
            "headquarters": self._headquarters,
            "redeploy": self._redeploy,
            "retry-deploy": self._retry,
            "orphan-reaper": self._reap,
            "stop": self._stop,
            "start": self._start,
            "restart": self._restart,
            "take-down": self._take_down,
            "poll": self._poll,
            "healthcheck": self._healthcheck,
            "lxc-backup": self._backup,
            "lxc-restore": self._restore,
            "dns-online": partial(self._dns, True),
            "dns-offline": partial(self._dns, False),
            "hup-nginx": self._hup,
            "restart-nginx": self._restart_nginx,
        }
        if not words or words[0] not in known:
            raise Refused(f"{ascii(' '.join(words))[:60]} is no command of a ship")
        await known[words[0]](say, *words[1:])

    @asynccontextmanager
    async def beside(self, words: Sequence[str]) -> AsyncIterator[dict[str, Any]]:
        """Where a command runs beside a service, which is awake meanwhile: a `Beside`, and the
        argv that begins it."""
        serving = await self._serving(words)
        container = self._container(serving)
        script = any_script(self.ship.runtime, container)
        with self.ship.services.visited(container.name):
            place = await self.ship.runtime.beside(
                container,
                env={**serving.launch.env, "PORT": str(serving.port)},
                limits=over(self.ship.settings.service_limits, serving.launch.limits),
                mounts=mounts(self.ship.layout, container, serving.launch),
            )
            yield {
                "argv": list(place.argv),
                "marks": dict(place.marks),
                "script": os.fsdecode(place.script),
                "terminal": place.terminal,
                "begin": launch_argv(script),
            }

    async def open(self, words: Sequence[str], asker: Sequence[str]) -> dict[str, Any]:
        """The `url` of a service or of the dashboard, with a link for the asker (a name and the
        fingerprint of their key, "" on the host) where one is needed."""
        owner, key = asker
        if _named(words) == DASHBOARD:
            return {"url": await self.opening.dashboard(owner, key)}
        return {"url": await self.opening.service(await self._serving(words), owner, key)}

    async def cancel(self, words: Sequence[str], asker: Sequence[str]) -> str:
        """End a deploy, by its id or its service; what was done. Pushers end their own alone."""
        one, (owner, key) = self.deploys.named(_named(words)), asker
        orders, crew = one.orders, await self.opening.muster.look()
        own = orders.push is not None and orders.owner == owner
        if not own and not may(crew.rank(owner, key), Deed.CANCEL):
            raise Refused(
                f"{orders.service} is deployed for {orders.owner}; captains may cancel it"
            )
        await self.deploys.cancel(one, owner)
        return f"{orders.service}: the deploy of {short(orders.release.commit)} is cancelled"

    async def _headquarters(self, say: Listen, *words: str) -> None:
        if not words:
            location = self.loop.location
            say(f"Headquarters is {location}" if location else "This ship has no headquarters.")
            return
        source = source_of_operator(words[0], "the headquarters")
        await self.point_to(str(source))
        say(f"Headquarters set to {source}")

    async def _redeploy(self, say: Listen, *words: str) -> None:
        """Nothing is kept of the service: container, cache, what serves. Then it is built anew."""
        one = await self._one(words)
        serving = await self.ship.serving(one.standing.service)
        await self.ship.ledger.want_again(one.standing.service)
        if serving is not None:
            await self.ship.services.take_down(serving)
        cache = self.ship.layout.cache(one.standing.service)
        await in_thread(self.ship.reactor, shutil.rmtree, cache, True)
        await self._bring(one, say)

    async def _retry(self, say: Listen, *words: str) -> None:
        one = await self._one(words)
        await self.ship.ledger.want_again(one.standing.service)
        await self._bring(one, say)

    async def _reap(self, say: Listen, *words: str) -> None:
        orphans = [one for one in (await self.ship.ledger.serving()).values() if one.orphaned]
        for orphan in orphans:
            await self.ship.services.take_down(orphan)
            say(f"{orphan.service}: {orphan.container} is gone")
        if not orphans:
            say("There are no orphans.")

    async def _stop(self, say: Listen, *words: str) -> None:
        serving = await self._serving(words)
        self._tell_of_waiting(serving.service, say)
        await self.ship.services.put_to_rest(serving.service)
        say(f"{serving.service} is stopped; starphleet-start {serving.service} starts it")

    async def _start(self, say: Listen, *words: str) -> None:
        serving = await self._serving(words)
        self._tell_of_waiting(serving.service, say)
        await self.ship.services.rouse(serving.service)
        say(f"{serving.service} runs")
        self._consider(serving)

    async def _restart(self, say: Listen, *words: str) -> None:
        serving = await self._serving(words)
        self._tell_of_waiting(serving.service, say)
        await self.ship.services.restart(serving.service)
        say(f"{serving.service} was started again")
        if serving.stopped:
            self._consider(serving)

    async def _take_down(self, say: Listen, *words: str) -> None:
        serving = await self._serving(words)
        if serving.place is not None:
            raise Refused(
                f"{serving.service} is ordered: take its orders out of the headquarters, then "
                "starphleet orphan-reaper"
            )
        self._tell_of_waiting(serving.service, say)
        await self.ship.services.take_down(serving)
        say(f"{serving.service} is gone; a push brings it back")

    def _tell_of_waiting(self, service: str, say: Listen) -> None:
        """Of a deploy, which may take its time."""
        if service in self.ship.queue.running:
            say(f"Waiting for what is under way: {service}")

    async def _healthcheck(self, say: Listen, *words: str) -> None:
        serving = await self._serving(words)
        if serving.stopped:
            raise Refused(f"{serving.service} is stopped: starphleet start {serving.service}")
        named = serving.watch.path if serving.watch else serving.launch.env.get("HEALTHCHECK")
        path, address = named or "/", Address(serving.host, serving.port)
        with self.ship.services.visited(serving.container):
            if self.ship.runtime.freezes:
                await self.ship.runtime.freeze(self._container(serving), False)
            status = await ask(self.ship.reactor, address, path, PATIENCE)
        how = f"answered {status}" if status else f"was not answered within {PATIENCE:g} s"
        told = f"{serving.service}: GET {path} {how}"
        if status is None or (status != 200 if named else status >= 500):
            raise Refused(told)
        say(told)

    async def _backup(self, say: Listen, *words: str) -> None:
        name, file = words
        serving = await self._serving([name])
        await self.ship.runtime.backup(self._container(serving), Path(file))
        say(f"{serving.service} is in {file}")

    async def _restore(self, say: Listen, *words: str) -> None:
        name, source = words
        there = "://" in source or await in_thread(self.ship.reactor, Path(source).is_file)
        if not there:
            raise Refused(f"{source}: there is no such file")
        await self.ship.runtime.restore(name, source, say)
        say(f"STARPHLEET_BASE={name} means it now")

    async def _dns(self, online: bool, say: Listen) -> None:
        await self.ship.proxy.dns(online)
        say(f"/starphleet/nginx/status answers {'Ok' if online else '404'}")

    async def _hup(self, say: Listen) -> None:
        await self.ship.proxy.hup()
        say("nginx has its configuration anew")

    async def _restart_nginx(self, say: Listen) -> None:
        await self.ship.proxy.restart()
        say("nginx was started again")

    async def _poll(self, say: Listen, *words: str) -> None:
        await self.loop.following.hurry()
        say("Asked everything that is followed.")

    async def _bring(self, one: Ordered, say: Listen) -> None:
        one.follow(say)
        try:
            self.loop.bringing.bring(one)
            await one.settled()
        finally:
            one.leave(say)
        if one.phase != phases.LIVE:
            raise Refused(f"{one.standing.service}: {one.reason}")

    def _consider(self, serving: Serving) -> None:
        """What was stopped may have missed something."""
        one = self.loop.bringing.ordered.get(serving.service.lstrip("/"))
        if one is not None and (one.commit or one.standing.source is None):
            self.loop.bringing.bring(one)

    async def _one(self, words: Sequence[str]) -> Ordered:
        name = _named(words)
        ordered = self.loop.bringing.ordered
        one = ordered.get(name.strip("/"))
        if one is None and await self.ship.serving(name) is not None:
            raise Refused(f"{name} was pushed: take-down {name}, and a push builds it anew")
        if one is None:
            raise Refused(f"no orders for {name}{_known(f'/{path}' for path in ordered)}")
        if not one.commit and one.standing.source is not None:
            raise Refused(f"{name}: {one.reason or 'its source was not read yet'}")
        return one

    def _container(self, serving: Serving) -> Container:
        container = self.ship.runtime.find(serving.container)
        if container is None:
            raise Refused(f"the container of {serving.service} is gone")
        return container

    async def _serving(self, words: Sequence[str]) -> Serving:
        """The service of that name; an ordered one may be named without its slash."""
        name, serving = _named(words), await self.ship.ledger.serving()
        found = serving.get(name) or serving.get(f"/{name.strip('/')}")
        if found is None:
            raise Refused(f"nothing serves as {name}{_known(serving)}")
        return found


def _named(words: Sequence[str]) -> str:
    if len(words) != 1:
        raise Refused("name one service")
    return words[0]


def _known(names: Iterable[str]) -> str:
    shown = ", ".join(sorted(names)[:12])
    return f"; there are {shown}" if shown else ""
