"""nginx outlives the ship, and the ship brings back nginx."""

from __future__ import annotations

import errno
from collections.abc import Sequence

import psutil
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from proxy.engine import Patience
from proxy.files import Generations
from proxy.nginx import Proxy
from proxy.processes import Family, Process, ended, family, find
from proxy.routes import Backend, ProxyError, Route
from tests.proxy.load import Load
from tests.proxy.reactor import reactor, run, until
from tests.proxy.world import ProxyCase, public, route


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


class SurvivalTests(ProxyCase):
    async def test_new_ship_adopts(self) -> None:
        """A new ship takes over a serving nginx: same workers, no reload, no lost request."""
        blue, green = self.app("blue"), self.app("green")
        hello = route("hello")
        await self.started_with({hello: blue.backend})
        before = await self.workers()
        load = Load()
        await load.begin(self.port, "/~hello/", 5)
        for backend in (blue.backend, green.backend):
            successor = self.proxy()
            self.assertEqual(await successor.start(public({hello: backend})), {})
            answer = await self.fetch("/~hello/")
            self.assertEqual(answer.json["app"], backend.container)
        _, failures = await load.end()
        self.assertEqual(failures, [])
        self.assertEqual(await self.workers(), before)
        await successor.publish(hello, blue.backend)
        self.assertEqual((await self.fetch("/~hello/")).json["app"], "blue")

    async def test_new_ship_with_another_table(self) -> None:
        """A new ship makes an adopted nginx serve its own table, and nothing else."""
        app = self.app("hello")
        await self.started_with({route("old"): app.backend, route("same"): app.backend})
        master = await self.master()
        await self.proxy().start(public({route("same"): app.backend, route("new"): app.backend}))
        for name, status in (("old", 404), ("same", 200), ("new", 200)):
            self.assertEqual((await self.fetch(f"/~{name}/")).status, status)
        self.assertEqual(await self.master(), master)
        self.assertNotIn("old", (self.prefix / "backends").read_text())

    async def test_killed_nginx_is_started_again(self) -> None:
        """After kill -9 of the master, nginx serves the table again, switched backend included."""
        blue, green = self.app("blue"), self.app("green")
        proxy = await self.started_with({route("hello"): blue.backend})
        await proxy.publish(route("hello"), green.backend)
        kept = Deferred.fromCoroutine(proxy.keep())
        for _ in range(2):
            master = await self.master()
            self.kill(master)
            await until(lambda m=master: self.new_master(m), "another master")
            await until(self.serves_green, "service to answer")
        await proxy.publish(route("more"), blue.backend)
        self.assertEqual((await self.fetch("/~more/")).status, 200)
        await proxy.stop()
        await kept

    async def test_orphans_finish_what_they_have(self) -> None:
        """Workers of a killed master answer their open requests, then go."""
        app = self.app("hello")
        proxy = await self.started(app)
        kept = Deferred.fromCoroutine(proxy.keep())
        client = await self.client()
        await client.ask("/~hello/hold")
        await until(lambda: app.held, "request to arrive")
        orphans = await self.workers()
        master = await self.master()
        self.kill(master)
        await until(lambda: self.new_master(master), "another master")
        app.let_go()
        await client.receives(b"let go")
        await until(lambda: not any(map(alive, orphans)), "orphans to go")
        await proxy.stop()
        await kept

    async def test_stop_ends_orphans(self) -> None:
        """Workers of a killed master that still hold a stream end with `stop`, too."""
        app = self.app("hello")
        proxy = await self.started(app, patience=Patience(verify=20.0, stop=0.2, apart=0.0))
        client = await self.client()
        await client.ask("/~hello/events")
        await until(lambda: app.held, "stream to open")
        self.kill(await self.master())
        await proxy.publish(route("new"), app.backend)
        await proxy.stop()
        self.assertEqual(self.family().all, ())

    async def test_publish_revives(self) -> None:
        """A publish that finds nginx dead starts it, with nobody keeping it."""
        blue, green = self.app("blue"), self.app("green")
        proxy = await self.started_with({route("hello"): blue.backend})
        await self.kill_all()
        await proxy.publish(route("hello"), green.backend)
        self.assertEqual((await self.fetch("/~hello/")).json["app"], "green")
        await self.kill_all()
        await proxy.publish(route("more"), blue.backend)
        self.assertEqual((await self.fetch("/~more/")).status, 200)

    async def test_started_again_once_there_is_room(self) -> None:
        """An nginx that dies while the disk is full is started as soon as it can be."""
        app = self.app("hello")
        proxy = await self.started(app)
        kept = Deferred.fromCoroutine(proxy.keep())
        self.addCleanup(lambda: kept)
        tries = []

        def full(*_: object) -> None:
            tries.append(1)
            raise OSError(errno.ENOSPC, "No space left on device")

        patch = self.patch(Generations, "make_current", full)
        master = await self.master()
        self.kill(master)
        await until(lambda: tries, "it to be tried")
        patch.restore()
        await until(lambda: self.new_master(master), "another master")
        await until(lambda: (self.prefix / "control" / "socket").exists(), "it to listen")
        self.assertEqual((await self.fetch("/~hello/")).status, 200)
        await proxy.stop()

    async def test_who_asks_revives(self) -> None:
        """What is open is asked of an nginx that is started for it: nothing is, then."""
        app = self.app("hello")
        proxy = await self.started(app)
        await self.kill_all()
        self.assertEqual(await proxy.traffic.drain("hello", 5), 0)
        self.assertEqual((await self.fetch("/~hello/")).status, 200)
        await self.kill_all()
        self.assertEqual(await proxy.traffic.last_used("hello"), 0)

    async def test_nothing_is_started_once_another_ship_has_it(self) -> None:
        """Who leaves while nginx is being started again waits for that: there are no two."""
        starting: list[Deferred[None]] = []

        async def slowly(argv: Sequence[str], seconds: float) -> tuple[int, str]:
            if argv[-1] == "current/nginx.conf" and held:
                starting.append(Deferred())
                await starting[-1]
            return await run(argv, seconds)

        held: list[bool] = []
        app = self.app("hello")
        proxy = await self.started(app, run=slowly)
        kept = Deferred.fromCoroutine(proxy.keep())
        self.addCleanup(lambda: kept)
        held.append(True)
        self.kill(await self.master())
        await until(lambda: starting, "it to be started again")
        left = Deferred.fromCoroutine(proxy.leave())
        await self.turns()
        self.assertFalse(left.called)
        starting[0].callback(None)
        await left
        held.clear()
        self.assertEqual(await self.proxy().start(public({route("hello"): app.backend})), {})
        self.assertEqual((await self.fetch("/~hello/")).status, 200)

    async def turns(self) -> None:
        """Whatever only has to come about does."""
        for _ in range(20):
            await deferLater(reactor, 0)

    async def test_hung_nginx_is_replaced(self) -> None:
        """A ship that finds an nginx of its prefix that does not answer ends it and starts one."""
        app = self.app("hello")
        await self.started(app)
        (self.prefix / "control" / "socket").unlink()
        master = await self.master()
        await self.proxy().start(public({route("hello"): app.backend}))
        self.assertFalse(alive(master))
        self.assertEqual((await self.fetch("/~hello/")).status, 200)

    async def test_stop_ends_everything(self) -> None:
        """After stop no process of this prefix is left, even with a stream open; start works."""
        app = self.app("hello")
        proxy = await self.started(app, patience=Patience(verify=20.0, stop=0.2, apart=0.0))
        client = await self.client()
        await client.ask("/~hello/events")
        await until(lambda: app.held, "stream to open")
        await proxy.stop()
        self.assertEqual(self.family().all, ())
        with self.assertRaisesRegex(ProxyError, "not started"):
            await proxy.publish(route("hello"), app.backend)
        await proxy.start(public({route("hello"): app.backend}))
        self.assertEqual((await self.fetch("/~hello/")).status, 200)

    async def started_with(self, table: dict[Route, Backend]) -> Proxy:
        proxy = self.proxy()
        self.assertEqual(await proxy.start(public(table)), {})
        return proxy

    def family(self) -> Family:
        prefix = self.prefix.resolve()
        return find(prefix / "logs" / "error.log", prefix / "nginx.pid")

    def new_master(self, old: int) -> bool:
        master = self.family().master
        return master is not None and master.pid != old

    async def serves_green(self) -> bool:
        try:
            return bool((await self.fetch("/~hello/")).json["app"] == "green")
        except OSError:
            return False

    async def kill_all(self) -> None:
        processes = sorted(self.family().all, key=lambda nginx: nginx.started)
        for nginx in processes:
            self.kill(nginx.pid)
        for nginx in processes:
            await ended(IReactorFDSet(reactor), nginx)


class ProcessTests(SynchronousTestCase):
    def test_family(self) -> None:
        """The pid file says who the master is; who is neither it nor its child has lost his."""
        master, worker, orphan = Process(10, 1, 1.0), Process(11, 10, 2.0), Process(9, 1, 3.0)
        found = family([orphan, worker, master], 10)
        self.assertEqual((found.master, found.orphans), (master, (orphan,)))

    def test_without_master(self) -> None:
        """A worker is never taken for the master, however young it is."""
        orphan = Process(9, 1, 3.0)
        for pid in (0, 10):
            found = family([orphan], pid)
            self.assertEqual((found.master, found.orphans), (None, (orphan,)))
