"""Changes of structure: gathered, tried, switched whole, verified, and put back when that fails."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxy.changes import Change, Refusals
from proxy.engine import Engine
from proxy.instance import Instance
from proxy.ports import check_free
from proxy.render import generation_files
from proxy.routes import ProxyError
from proxy.structure import Structure


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
            structure = wish.change.made(structure)
        except ProxyError as error:
            wish.refuse(error)
        else:
            admitted.append(wish)
    return structure, admitted


def _note(refused: Refusals, about: str, failure: Failure) -> None:
    assert isinstance(failure.value, ProxyError)
    refused[about] = failure.value


class Reshaping:
    """The structure that serves. One pass at a time; whoever comes meanwhile shares the next."""

    def __init__(
        self, reactor: IReactorTime, instance: Instance, engine: Engine, apart: float
    ) -> None:
        self._reactor = reactor
        self._instance = instance
        self._engine = engine
        self._apart = apart
        self._last = -apart
        self._waiting: list[_Wish] = []
        self._under_way: Sequence[_Wish] = ()
        self._log = Logger()
        self._working: Deferred[None] | None = None
        self._delay: Deferred[None] | None = None
        self._closed = False
        self.structure = Structure(taken=instance.own)

    async def begin(self, changes: Iterable[Change], running: int | None) -> Refusals:
        """Serve what `changes` make, leaving alone an nginx that runs and has just this already.

        Returns why for each change that could not be had; the others are served.
        """
        refused: Refusals = {}
        wishes = [_Wish(change, Deferred()) for change in changes]
        for wish in wishes:
            wish.done.addErrback(partial(_note, refused, wish.change.about))
        wanted, admitted = _together(self.structure, wishes)
        if running is not None and self._is(running, wanted):
            self.structure = wanted
            self._engine.generations.make_current(running)
            return refused
        generation, wanted = await self._admissible(wanted, admitted)
        await self._switch(generation or await self._candidate(wanted), wanted)
        return refused

    def concerned(self, about: str) -> bool:
        """Whether a pass is under way or to come that may change this."""
        wishes = (*self._waiting, *self._under_way)
        return any(wish.change.about == about for wish in wishes)

    async def change(self, *changes: Change) -> Refusals:
        """Make changes and return once all serve that could be had; why the others could not."""
        refused: Refusals = {}
        for change, done in [(change, self.wish(change)) for change in changes]:
            try:
                await done
            except ProxyError as error:
                refused[change.about] = error
        return refused

    def wish(self, change: Change) -> Deferred[None]:
        """Have a change made with the next pass. Fails with `ProxyError`; then it is not made."""
        wish = _Wish(change, Deferred())
        if self._closed:
            wish.refuse(ProxyError("the proxy is being stopped"))
            return wish.done
        self._waiting.append(wish)
        if self._working is None:
            self._working = Deferred.fromCoroutine(self._work())
        return wish.done

    async def close(self) -> None:
        """Refuse what waits or comes, and return when no pass is under way."""
        self._closed = True
        for wish in self._waiting:
            wish.refuse(ProxyError("the proxy is being stopped"))
        if self._delay is not None:
            self._delay.cancel()
        if self._working is not None:
            await self._working

    async def _work(self) -> None:
        try:
            await deferLater(self._reactor, 0)  # all that ask in this turn share the first pass
            while self._waiting:
                await self._pause()
                self._under_way = [wish for wish in self._waiting if not wish.done.called]
                self._waiting = []
                await self._pass(self._under_way)
                self._under_way = ()
        finally:
            self._working = None

    async def _pause(self) -> None:
        """Until enough time has passed since the last reload, or all is to end."""
        left = self._last + self._apart - self._reactor.seconds()
        if left > 0:
            self._delay = deferLater(self._reactor, left)
            self._delay.addErrback(lambda failure: failure.trap(CancelledError) and None)
            await self._delay
            self._delay = None

    async def _pass(self, wishes: Sequence[_Wish]) -> None:
        try:
            wanted, admitted = _together(self.structure, wishes)
            if wanted != self.structure or any(wish.change.anyway for wish in admitted):
                generation, wanted = await self._admissible(wanted, admitted)
                if generation:
                    await self._switch(generation, wanted)
        except ProxyError as error:
            for wish in wishes:
                wish.refuse(error)
        except Exception as error:
            self._log.failure("structure not changed")
            for wish in wishes:
                wish.refuse(ProxyError(f"structure not changed: {error!r}"))
        for wish in wishes:
            wish.grant()

    def _is(self, generation: int, structure: Structure) -> bool:
        files = generation_files(self._instance, structure, generation)
        return self._engine.generations.has(generation, files)

    async def _admissible(
        self, wanted: Structure, wishes: Sequence[_Wish]
    ) -> tuple[int, Structure]:
        """A tried generation with all wishes, or else with those that nginx takes.

        The generation is 0 when it takes none of them.
        """
        try:
            return await self._candidate(wanted), wanted
        except ProxyError as error:
            if len(wishes) > 1:
                return await self._most(self.structure, wishes)
            for wish in wishes:
                wish.refuse(error)
            return 0, self.structure

    async def _most(self, base: Structure, wishes: Sequence[_Wish]) -> tuple[int, Structure]:
        """`base` with what nginx takes of the wishes, found by halves."""
        generation = 0
        half = len(wishes) // 2
        for part in (wishes[:half], wishes[half:]):
            wanted, able = _together(base, part)
            if not able:
                continue
            try:
                generation, base = await self._candidate(wanted), wanted
            except ProxyError as error:
                if len(able) == 1:
                    able[0].refuse(error)
                else:
                    found, base = await self._most(base, able)
                    generation = found or generation
        return generation, base

    async def _candidate(self, structure: Structure) -> int:
        """Lay down `structure` as a generation that nginx says it would take."""
        self._check_ports(structure)
        generation = self._engine.generations.next()
        files = generation_files(self._instance, structure, generation)
        try:
            self._engine.generations.write(generation, files)
        except OSError as error:
            self._engine.generations.drop(generation)
            raise ProxyError(f"cannot write nginx's configuration: {error}") from error
        objection = await self._engine.test(generation)
        if objection:
            self._engine.generations.drop(generation)
            raise ProxyError(f"nginx does not take this configuration: {objection[-500:]}")
        return generation

    def _check_ports(self, structure: Structure) -> None:
        """nginx's test does not mind a port that another program has; its reload would fail."""
        wanted = {route.port for route in structure.routes.values() if route.port is not None}
        if wanted:
            for port in sorted(wanted - self._engine.generations.ports(self._engine.generation)):
                check_free(self._instance.bind, port)

    async def _switch(self, generation: int, structure: Structure) -> None:
        before = self._engine.generation
        try:
            await self._engine.switch(generation)
        except ProxyError as error:
            if before:
                await self._put_back(before, error)
            raise
        finally:
            self._last = self._reactor.seconds()
        self.structure = structure

    async def _put_back(self, before: int, error: ProxyError) -> None:
        try:
            await self._engine.switch(before)
        except ProxyError as worse:
            raise ProxyError(f"{error}; nor does the one before: {worse}") from error
