"""What serves, while people and deploys want something of it at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from containers.interface import Address, Container, ContainerError, Exit
from hooks.attendance import Attendance
from hooks.errors import ShipError
from hooks.holding import Holding
from hooks.journal.journal import Journal
from hooks.keeping import Keeping
from hooks.layout import Layout
from hooks.leading import Leading
from hooks.ledger import Ledger, Serving
from hooks.queue import Queue
from hooks.retiring import Retiring
from hooks.services import Services
from hooks.settings import Settings
from hooks.standing import Job
from proxy.routes import Backend, ProxyError
from tests.hooks.scene import git_at_once, scratch
from tests.hooks.test_ledger import entry, serving

OLD, NEW = serving(commit="1" * 40), serving(commit="2" * 40)
JOBS = evolve(OLD, jobs=(Job("tick", "@yearly"),))


class Containers:
    """A runtime whose services end when they are told to."""

    freezes = False

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.there = {OLD.container, NEW.container}
        self.runs: dict[str, list[Deferred[Exit]]] = {}
        self.started: list[str] = []
        self.port = OLD.port
        self.starting: Deferred[None] | None = None
        self.waits = False

    def find(self, name: str) -> Container | None:
        return Container(name, self.directory / name) if name in self.there else None

    async def start(self, container: Container, *_: object, **__: object) -> Address:
        if container.name not in self.there:
            raise ContainerError(f"{container.name} is not there")
        if container.name in self.runs:
            raise ContainerError(f"{container.name} is already running")
        if self.starting is not None:
            self.waits = True
            await self.starting
            self.waits = False
        self.runs[container.name] = []
        self.started.append(container.name)
        return Address(OLD.host, self.port)

    async def exited(self, container: Container) -> Exit:
        if container.name not in self.runs:
            return Exit(status=0)
        ended: Deferred[Exit] = Deferred()
        self.runs[container.name].append(ended)
        return await ended

    async def stop(self, container: Container, *, grace: float) -> None:
        for ended in self.runs.pop(container.name, ()):
            if not ended.called:
                ended.callback(Exit(status=0))

    async def destroy(self, container: Container) -> None:
        await self.stop(container, grace=0)
        self.there.discard(container.name)

    async def expose(self, _: object) -> None:
        pass

    def let_go(self) -> None:
        pass


class Front:
    """A proxy, and its traffic, that writes down where that goes; what is in `fails` it cannot
    do."""

    def __init__(self) -> None:
        self.traffic = self
        self.leads: dict[str, Backend] = {}
        self.fails: set[str] = set()
        self.held: Deferred[None] | None = None

    def _do(self, what: str) -> None:
        if what in self.fails:
            raise ProxyError(f"{what}: no room")

    async def publish(self, route: Any, backend: Backend, _: object) -> None:
        self._do("publish")
        self.leads[route.service] = backend

    async def withdraw(self, service: str) -> None:
        self._do("withdraw")
        self.leads.pop(service, None)

    async def hold(self, service: str, container: str, starting: bool) -> None:
        led = self.leads.get(service)
        if led is not None and led.container == container:
            self.leads[service] = evolve(led, starting=starting)
            if self.held is not None:
                await self.held

    async def drain(self, container: str, wait: float) -> int:
        self._do("drain")
        return 0


class ServicesTests(TestCase):
    def setUp(self) -> None:
        layout = self.layout = Layout(scratch(self) / "ship")
        layout.prepare()
        self.queue = Queue(2, lambda: 0)
        self.ledger = Ledger(reactor, layout.ledger)  # type: ignore[arg-type]
        self.addCleanup(self.ledger.close)
        runtime: Any = Containers(layout.containers)
        proxy: Any = Front()
        self.runtime, self.proxy, settings = runtime, proxy, Settings()
        journal = Journal(reactor, layout, settings)
        self.attendance = Attendance(reactor, layout, settings, runtime, self.ledger.now, journal)
        self.holding = Holding(reactor, runtime, proxy)
        leading = Leading(settings, self.ledger, runtime, proxy, self.holding)
        self.keeping = Keeping(
            reactor,
            layout,
            settings,
            self.ledger,
            runtime,
            self.attendance,
            journal,
            self.holding,
            leading,
        )
        self.services = Services(
            layout,
            settings,
            self.ledger,
            runtime,
            proxy,
            git_at_once,
            self.queue,
            self.attendance,
            self.holding,
            leading,
            self.keeping,
            Retiring(layout, settings, runtime, proxy, self.attendance, journal),
        )
        self.addCleanup(self.services.let_go)

    async def serves(self, one: Serving) -> Container:
        """As a deploy leaves it."""
        await self.ledger.record(one, entry())
        await self.services.leading.publish(one)
        container: Container | None = self.runtime.find(one.container)
        assert container is not None
        self.runtime.starting, self.runtime.port = None, one.port
        await self.runtime.start(container)
        self.keeping.watch_over(one, container)
        return container

    async def replaced(self, wanted: Any) -> None:
        """OLD serves; `wanted` of it while a deploy of NEW is on, which then ends well."""
        await self.serves(OLD)
        async with self.queue.berth("app", lambda _: None):
            asked = Deferred.fromCoroutine(wanted)
            await deferLater(reactor, 0)
            await self.serves(NEW)
            self.services.retire(OLD)
        await asked
        await self.services.retiring.all_gone()

    async def test_a_restart_during_a_deploy(self) -> None:
        """It is of what serves then: what was replaced meanwhile is neither started again nor
        looked after for ever."""
        await self.replaced(self.services.restart("app"))
        self.assertEqual(self.runtime.started, [OLD.container, NEW.container, NEW.container])
        self.assertEqual(self.runtime.there, {NEW.container})
        self.assertEqual(list(self.keeping._keepers), [NEW.container])

    async def test_a_stop_during_a_deploy(self) -> None:
        """What serves then is stopped, and is what the ledger says."""
        await self.replaced(self.services.put_to_rest("app"))
        self.assertEqual(await self.ledger.now("app"), evolve(NEW, stopped=True))
        self.assertTrue(self.proxy.leads["app"].stopped)
        self.assertEqual(self.runtime.runs, {})

    async def test_a_start_during_a_deploy(self) -> None:
        """What serves then runs already; the ledger says so after it as before."""
        await self.replaced(self.services.rouse("app"))
        self.assertEqual(await self.ledger.now("app"), NEW)

    async def test_what_serves_no_more(self) -> None:
        """Whoever wants something of it is told so."""
        for wanted in (self.services.restart, self.services.rouse, self.services.put_to_rest):
            with self.assertRaisesRegex(ShipError, "app serves no more"):
                await wanted("app")

    async def test_a_restart_that_comes_to_nothing(self) -> None:
        """nginx does not answer: the service runs on, is looked after as before, and no request
        waits for it."""
        container = await self.serves(JOBS)
        self.proxy.fails = {"drain"}
        with self.assertRaises(ProxyError):
            await self.services.restart("app")
        self.assertFalse(self.proxy.leads["app"].starting)
        self.assertEqual([bool(one.going) for one in self.attending()], [True])
        await self.runtime.stop(container, grace=0)
        await self.until(lambda: self.runtime.started == [OLD.container] * 2)

    async def test_a_restart_that_is_cancelled(self) -> None:
        """Whenever that is, no request waits for ever and somebody looks after the service."""
        await self.serves(OLD)
        self.proxy.held = Deferred()
        restarting = Deferred.fromCoroutine(self.services.restart("app"))
        await self.until(lambda: self.proxy.leads["app"].starting)
        held, self.proxy.held = self.proxy.held, None
        restarting.cancel()
        self.assertTrue(held.called)
        with self.assertRaises(CancelledError):
            await restarting
        self.assertFalse(self.proxy.leads["app"].starting)
        self.assertEqual(list(self.keeping._keepers), [OLD.container])

    async def test_a_version_that_comes_again(self) -> None:
        """One that was replaced just as it had ended comes again: no request waits for what was
        to be started then."""
        container = await self.serves(OLD)
        await self.runtime.stop(container, grace=0)
        await self.until(lambda: self.proxy.leads["app"].starting)
        await self.serves(NEW)
        self.services.retire(OLD)
        await self.services.retiring.all_gone()
        self.runtime.there.add(OLD.container)
        await self.serves(OLD)
        self.assertFalse(self.proxy.leads["app"].starting)

    async def test_a_start_that_fails(self) -> None:
        """One that never was is no start: asked again, it starts."""
        await self.serves(OLD)
        await self.services.put_to_rest("app")
        self.proxy.fails = {"publish"}
        with self.assertRaises(ProxyError):
            await self.services.rouse("app")
        self.proxy.fails = set()
        await self.services.rouse("app")
        self.assertEqual([*self.runtime.runs], [OLD.container])
        self.assertFalse(self.proxy.leads["app"].stopped)

    async def test_taken_down_whatever_nginx_says(self) -> None:
        """Nothing is left running of what the ledger knows no more."""
        await self.serves(OLD)
        self.proxy.fails = {"withdraw"}
        with self.assertRaises(ProxyError):
            await self.services.take_down(OLD)
        await self.services.retiring.all_gone()
        self.assertEqual((self.runtime.runs, self.keeping._keepers), ({}, {}))

    async def test_what_changed_while_it_was_started_again(self) -> None:
        """It gets another port, and another time to live meanwhile: both count. What was replaced
        meanwhile counts no more."""
        renewed = evolve(OLD, expires=7.0)
        for now, then in ((renewed, evolve(renewed, port=20001)), (NEW, NEW)):
            container = await self.serves(OLD)
            await self.runtime.stop(container, grace=0)
            self.runtime.starting, self.runtime.port = Deferred(), 20001
            await self.until(lambda: self.runtime.waits)
            await self.ledger.keep(now)
            self.runtime.starting.callback(None)
            await self.until(lambda: OLD.container in self.runtime.runs)
            await self.until(lambda: OLD.container in self.holding._looking)
            self.assertEqual(await self.ledger.now("app"), then)
            self.services.let_go()
            await self.runtime.stop(container, grace=0)

    async def test_a_container_that_is_gone(self) -> None:
        """Nothing serves any more, and no way leads there."""
        await self.serves(OLD)
        await self.runtime.destroy(Container(OLD.container, self.runtime.directory))
        with self.assertRaisesRegex(ShipError, "has to be built again"):
            await self.services.resume(OLD)
        self.assertEqual((await self.ledger.serving(), self.proxy.leads), ({}, {}))

    def attending(self) -> list[Any]:
        return list(self.attendance._attended.values())

    async def until(self, true: Callable[[], bool]) -> None:
        end = reactor.seconds() + 20
        while not true() and reactor.seconds() < end:
            await deferLater(reactor, 0.01)
        self.assertTrue(true())
