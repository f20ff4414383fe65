"""Traffic moves from container to container, and nobody notices."""

from __future__ import annotations

import time
from bisect import bisect_right
from itertools import pairwise

from proxy.engine import Patience
from proxy.routes import Backend, ProxyError, Route, RouteTaken
from tests.ports import free_port
from tests.proxy.load import Load
from tests.proxy.reactor import until
from tests.proxy.world import ProxyCase, public, route

SWITCHES = 100


class SwitchTests(ProxyCase):
    async def test_switching_under_load_loses_nothing(self) -> None:
        """100 switches under 20 busy keep-alive clients: no failure, no old answer after one."""
        ports = [self.app("blue").port, self.app("green").port]
        backends = [Backend(f"c{n}", "127.0.0.1", ports[n % 2]) for n in range(SWITCHES + 1)]
        hello = route("hello")
        proxy = self.proxy()
        await proxy.start(public({hello: backends[0]}))
        before = await self.workers()
        load = Load()
        await load.begin(self.port, "/~hello/", 20)
        switched: list[float] = []
        for old, new in pairwise(backends):
            await proxy.publish(hello, new)
            switched.append(time.monotonic())
            self.assertEqual(await proxy.traffic.drain(old.container, 5), 0)
        answers, failures = await load.end()
        self.assertEqual(failures, [])
        self.assertGreater(len(answers), 1000)
        for sent, container in answers:
            self.assertGreaterEqual(int(container[1:]), bisect_right(switched, sent))
        self.assertEqual(await self.workers(), before)
        self.assertEqual(await proxy.traffic.drain(new.container, 5), 0)

    async def test_reloading_under_load_loses_nothing(self) -> None:
        """Five reloads for other services under 20 busy keep-alive clients: no failure."""
        app = self.app("hello")
        proxy = await self.started(app, patience=Patience(parting=0.5, apart=0.0))
        before = await self.workers()
        load = Load()
        await load.begin(self.port, "/~hello/", 20)
        for number in range(5):
            await proxy.publish(route(f"new{number}"), app.backend)
        answers, failures = await load.end()
        self.assertEqual(failures, [])
        self.assertGreater(len(answers), 1000)
        self.assertEqual(await self.workers() & before, set())

    async def test_redeploy_does_not_reload(self) -> None:
        """A route that is known is switched by the same workers."""
        blue, green = self.app("blue"), self.app("green")
        proxy = self.proxy()
        await proxy.start(public({route("hello"): blue.backend}))
        before = await self.workers()
        await proxy.publish(route("hello"), green.backend)
        self.assertEqual((await self.fetch("/~hello/")).json["app"], "green")
        self.assertEqual(await self.workers(), before)

    async def test_withdrawn_service_is_not_found(self) -> None:
        """A withdrawn service answers 404 at once, and withdrawing it again does nothing."""
        proxy = await self.started(self.app("hello"), self.app("other"))
        await proxy.withdraw("hello")
        self.assertEqual((await self.fetch("/~hello/")).status, 404)
        self.assertEqual((await self.fetch("/", host="hello.localhost")).status, 404)
        self.assertEqual((await self.fetch("/~other/")).status, 200)
        current = (self.prefix / "current").readlink()
        await proxy.withdraw("hello")
        self.assertEqual((self.prefix / "current").readlink(), current)

    async def test_taken_names_are_refused(self) -> None:
        """A host or path of another service is refused by name, and traffic stays."""
        proxy = await self.started(self.app("hello"))
        other = self.app("other")
        for taken in (Route("new", ("hello.localhost",), ""), Route("new", (), "/~hello/")):
            with self.assertRaisesRegex(RouteTaken, "already leads to hello"):
                await proxy.publish(taken, other.backend)
        self.assertEqual((await self.fetch("/~hello/")).json["app"], "hello")

    async def test_route_may_change(self) -> None:
        """A service that is published at another route is there, and no longer at the first."""
        app = self.app("hello")
        proxy = await self.started(app)
        await proxy.publish(Route("hello", ("new.localhost",), "/new/"), app.backend)
        self.assertEqual((await self.fetch("/new/")).status, 200)
        self.assertEqual((await self.fetch("/", host="new.localhost")).status, 200)
        self.assertEqual((await self.fetch("/~hello/")).status, 404)

    async def test_host_may_be_a_word_of_nginx(self) -> None:
        """Hosts that mean something in an nginx map are hosts like any other."""
        app = self.app("hello")
        proxy = self.proxy()
        hosts = ("default", "hostnames", "include", "new", "volatile", "n", "r", "t")
        await proxy.start(public({Route("hello", hosts, ""): app.backend}))
        for host in hosts:
            self.assertEqual((await self.fetch("/", host=host)).json["app"], "hello")
        self.assertEqual((await self.fetch("/", host="unknown")).status, 404)


class DrainTests(ProxyCase):
    async def test_drain_counts_long_polls_and_sockets(self) -> None:
        """What is open to the old container is counted until it ends, on new and old workers."""
        blue, green = self.app("blue"), self.app("green")
        proxy = self.proxy()
        await proxy.start(public({route("hello"): blue.backend}))
        poll, socket, stream = [await self.client() for _ in range(3)]
        await poll.ask("/~hello/hold")
        await socket.ask("/~hello/socket", "Upgrade: websocket", "Connection: Upgrade")
        await socket.receives(b"101 Switching")
        await stream.ask("/~hello/events")
        await until(lambda: len(blue.held) == 2, "poll and stream to open")
        await proxy.publish(route("hello"), green.backend)
        await proxy.publish(route("more"), green.backend)
        self.assertEqual(await proxy.traffic.drain("blue", 0.05), 3)
        socket.send("still here")
        await socket.receives(b"still here")
        blue.held.pop(0).reply(b"let go")
        await poll.receives(b"let go")
        await self.counts(proxy, "blue", 2)
        socket.close()
        await self.counts(proxy, "blue", 1)
        blue.held[0].close()
        self.assertEqual(await proxy.traffic.drain("blue", 5), 0)

    async def test_clients_that_give_up_are_not_counted(self) -> None:
        """A client that goes away before its answer leaves no count behind."""
        app = self.app("hello")
        proxy = await self.started(app)
        client = await self.client()
        await client.ask("/~hello/hold")
        await until(lambda: app.held, "request to arrive")
        self.assertEqual(await proxy.traffic.open_requests("hello"), 1)
        client.close()
        self.assertEqual(await proxy.traffic.drain("hello", 5), 0)

    async def test_error_pages_are_not_counted(self) -> None:
        """Requests that ended with a page of the proxy's own leave no count behind."""
        proxy = await self.started(self.app("hello"))
        gone = Backend("gone", "127.0.0.1", free_port())
        await proxy.publish(route("broken"), gone)
        for target in ("/~broken/", "/~hello/break", "/nowhere", "/~hello", "/%"):
            await self.fetch(target)
        self.assertEqual(await proxy.traffic.drain("gone", 5), 0)
        self.assertEqual(await proxy.traffic.drain("hello", 5), 0)

    async def test_crashed_worker_is_not_counted(self) -> None:
        """What a worker had open when it was killed counts no more; the others serve on."""
        app = self.app("hello")
        proxy = await self.started(app)
        client = await self.client()
        await client.ask("/~hello/hold")
        await until(lambda: app.held, "request to arrive")
        self.assertEqual(await proxy.traffic.open_requests("hello"), 1)
        for pid in await self.workers():
            self.kill(pid)
        await until(lambda: client.closed, "client to be cut off")
        await self.counts(proxy, "hello", 0)
        self.assertEqual((await self.fetch("/~hello/")).status, 200)

    async def counts(self, proxy: object, container: str, expected: int) -> None:
        async def right() -> bool:
            try:
                return bool(await proxy.traffic.open_requests(container) == expected)  # type: ignore[attr-defined]
            except ProxyError:
                return False

        await until(right, f"{expected} open to {container}")
