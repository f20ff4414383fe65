"""What the guard has to know, as it is now: kept here, and written whole for it to read."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime

from proxy.aside import aside
from proxy.grammar import ProxyError
from proxy.guard import passes, store
from proxy.guard.keeper import Keeper
from proxy.guard.store import Guards
from proxy.protection import OWN, Commons, Crew, Protection

PAGES = Protection(mode="private")
"""Of the ship's own pages."""


class Guarding:
    """The protection of each service that has one, and of the ship's own pages, and what they
    share, under nginx's prefix; and the checker, where there is something to check.

    What a method says is on the disk when it returns. Raises `ProxyError` where it cannot be.
    """

    def __init__(self, reactor: IReactorTime, prefix: Path, keeper: Keeper) -> None:
        self._reactor = reactor
        self._prefix = prefix
        self._keeper = keeper
        self._turn = DeferredLock()
        self._services: dict[str, Protection] = {}
        self._commons = Commons()
        self._written: Guards | None = None
        self.crew = Crew()

    async def begin(self, services: Mapping[str, Protection], commons: Commons) -> None:
        """Guard just these services."""
        asking = {name: each for name, each in services.items() if each.asks}
        self._services = {**asking, OWN: PAGES}
        self._commons = commons
        self._written = None
        await self._write()

    async def attend(self) -> None:
        """The checker runs if anybody can be let in: nobody else is, before the first link."""
        needed = len(self._services) > 1 or self._links.begun
        await (self._keeper.start() if needed else self._keeper.stop())

    async def leave(self) -> None:
        """Let the checker go on without us; we write nothing any more."""
        await self._alone(lambda: None)
        await self._keeper.leave()

    async def stop(self) -> None:
        """End the checker."""
        await self._alone(lambda: None)
        await self._keeper.stop()

    async def link(self, service: str, owner: str, key: str) -> str:
        """The token of a link for `service`."""
        make, now = self._links.make, time.time()
        try:
            token: str = await self._alone(
                lambda: aside(self._reactor, make, service, owner, key, now)
            )
        except OSError as error:
            raise ProxyError(f"cannot write a link: {error}") from error
        await self._keeper.start()
        return token

    async def protect(self, service: str, protection: Protection | None) -> bool:
        """Guard a service as `protection` says, or no more; whether that is something new."""
        if protection is not None:
            await self._keeper.start()
        wanted = protection if protection is not None and protection.asks else None
        new = self._services.get(service) != wanted
        if wanted is not None:
            self._services[service] = wanted
        else:
            self._services.pop(service, None)
        await self._write()
        return new

    async def share(self, commons: Commons) -> bool:
        """What they share from now on; whether that is something new. Where it cannot be written,
        it is to be said again."""
        before, self._commons = self._commons, commons
        try:
            await self._write()
        except ProxyError:
            self._commons = before
            raise
        return commons != before

    async def muster(self, crew: Crew) -> None:
        """These have keys from now on. Where it cannot be written, it is to be said again."""
        before, self.crew = self.crew, crew
        try:
            await self._write()
        except ProxyError:
            self.crew = before
            raise

    @property
    def _links(self) -> passes.Passes:
        return passes.links(store.place(self._prefix))

    def _write(self) -> Deferred[None]:
        """Nothing where it is written already."""
        return self._alone(self._put)

    async def _put(self) -> None:
        commons = self._commons
        guards = Guards(dict(self._services), commons.groups, commons.ldap_servers, self.crew)
        if guards == self._written:
            return
        try:
            await aside(self._reactor, store.write, self._prefix, guards)
        except OSError as error:
            raise ProxyError(f"cannot write who may use what: {error}") from error
        self._written = guards

    def _alone(self, work: Callable[[], Any]) -> Deferred[Any]:
        """Do `work` when no other is on. Whoever waits may be cancelled, the work is not: what is
        written later stays what is read later."""
        waited: Deferred[Any] = Deferred()
        self._turn.run(work).chainDeferred(waited)
        return waited
