"""Changes of structure: gathered, tried, switched whole, verified, and put back when that fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxy.engine import Engine
from proxy.render import Instance, lua, render
from proxy.routes import ProxyError, Route, Structure

Change = Callable[[Structure], Structure]
"""Pure; raises `ProxyError` where it cannot be."""


def adding(route: Route) -> Change:
    return lambda structure: structure.with_route(route)


def removing(service: str) -> Change:
    return lambda structure: structure.without(service)


@frozen(eq=False)
class _Wish:
    """A change that somebody may still wait for."""

    change: Change
    done: Deferred[None]

    def refuse(self, error: ProxyError) -> None:
        if not self.done.called:
            self.done.errback(error)

    def grant(self) -> None:
        if not self.done.called:
            self.done.callback(None)


def _together(structure: Structure, wishes: Sequence[_Wish]) -> tuple[Structure, list[_Wish]]:
    """`structure` with all wishes that can be had beside each other; the others are refused."""
    admitted = []
    for wish in wishes:
        try:
            structure = wish.change(structure)
        except ProxyError as error:
            wish.refuse(error)
        else:
            admitted.append(wish)
    return structure, admitted


def _note(refused: dict[str, ProxyError], service: str, failure: Failure) -> None:
    assert isinstance(failure.value, ProxyError)
    refused[service] = failure.value


class Reshaping:
    """The structure that serves. One pass at a time; whoever comes meanwhile shares the next."""

    def __init__(self, reactor: IReactorTime, instance: Instance, engine: Engine) -> None:
        self._reactor = reactor
        self._instance = instance
        self._engine = engine
        self._waiting: list[_Wish] = []
        self._log = Logger()
        self._working: Deferred[None] | None = None
        self.structure = Structure()
        self.generation = 0

    async def begin(self, routes: Iterable[Route], running: int | None) -> dict[str, ProxyError]:
        """Serve `routes`, leaving alone an nginx that runs and has just these already.

        Returns why for each service that could not be had; the others are served.
        """
        wishes = {route.service: _Wish(adding(route), Deferred()) for route in routes}
        refused: dict[str, ProxyError] = {}
        for service, wish in wishes.items():
            wish.done.addErrback(partial(_note, refused, service))
        wanted, admitted = _together(self.structure, list(wishes.values()))
        if running is not None and self._is(running, wanted):
            self.structure, self.generation = wanted, running
            self._engine.generations.make_current(running)
            return refused
        self.generation = running or 0
        generation, wanted, _ = await self._admissible(wanted, admitted)
        await self._switch(generation or await self._candidate(wanted), wanted)
        return refused

    @property
    def busy(self) -> bool:
        """Whether a pass is under way, after which the structure may be another."""
        return self._working is not None

    async def change(self, change: Change) -> None:
        """Make a change and return once it serves. Raises `ProxyError`; then it is not made."""
        await self.wish(change)

    def wish(self, change: Change) -> Deferred[None]:
        """Have a change made with the next pass."""
        wish = _Wish(change, Deferred())
        self._waiting.append(wish)
        if self._working is None:
            self._working = Deferred.fromCoroutine(self._work())
        return wish.done

    async def close(self) -> None:
        """Refuse what waits, and return when no pass is under way."""
        for wish in self._waiting:
            wish.refuse(ProxyError("the proxy is being stopped"))
        if self._working is not None:
            await self._working

    async def _work(self) -> None:
        try:
            await deferLater(self._reactor, 0)  # all that ask in this turn share the first pass
            while self._waiting:
                wishes = [wish for wish in self._waiting if not wish.done.called]
                self._waiting = []
                await self._pass(wishes)
        finally:
            self._working = None

    async def _pass(self, wishes: Sequence[_Wish]) -> None:
        admitted = wishes
        try:
            wanted, admitted = _together(self.structure, wishes)
            if wanted != self.structure:
                generation, wanted, admitted = await self._admissible(wanted, admitted)
                if generation:
                    await self._switch(generation, wanted)
        except ProxyError as error:
            for wish in admitted:
                wish.refuse(error)
        except Exception as error:
            self._log.failure("structure not changed")
            for wish in admitted:
                wish.refuse(ProxyError(f"structure not changed: {error!r}"))
        for wish in admitted:
            wish.grant()

    def _is(self, generation: int, structure: Structure) -> bool:
        config = render(self._instance, structure, generation)
        return self._engine.generations.has(generation, config, lua())

    async def _admissible(
        self, wanted: Structure, wishes: Sequence[_Wish]
    ) -> tuple[int, Structure, Sequence[_Wish]]:
        """A tried generation with all wishes, or else with those that nginx takes one by one.

        The generation is 0 when it takes none of them.
        """
        try:
            return await self._candidate(wanted), wanted, wishes
        except ProxyError:
            wanted = self.structure
        generation = 0
        admitted: list[_Wish] = []
        for wish in wishes:
            more, able = _together(wanted, [wish])
            try:
                generation = await self._candidate(more) if able else generation
            except ProxyError as error:
                wish.refuse(error)
            else:
                wanted, admitted = more, [*admitted, *able]
        return generation, wanted, admitted

    async def _candidate(self, structure: Structure) -> int:
        """Lay down `structure` as a generation that nginx says it would take."""
        generation = self._engine.generations.next()
        config = render(self._instance, structure, generation)
        try:
            self._engine.generations.write(generation, config, lua())
        except OSError as error:
            self._engine.generations.drop(generation)
            raise ProxyError(f"cannot write nginx's configuration: {error}") from error
        objection = await self._engine.test(generation)
        if objection:
            self._engine.generations.drop(generation)
            raise ProxyError(f"nginx does not take this configuration: {objection[-500:]}")
        return generation

    async def _switch(self, generation: int, structure: Structure) -> None:
        before = self.generation
        try:
            await self._engine.switch(generation)
        except ProxyError as error:
            if before:
                await self._put_back(before, error)
            raise
        self.generation, self.structure = generation, structure

    async def _put_back(self, before: int, error: ProxyError) -> None:
        try:
            await self._engine.switch(before)
        except ProxyError as worse:
            raise ProxyError(f"{error}; nor does the one before: {worse}") from error
