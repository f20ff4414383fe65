"""Requests wait for a service that is starting."""

from __future__ import annotations

import errno

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineOnlyReceiver

import proxy.table as table_module
from proxy.control import Control, ControlError
from proxy.nginx import Proxy
from proxy.routes import Backend, ProxyError
from tests.ports import free_port
from tests.proxy.reactor import reactor, until
from tests.proxy.sentry import NO
from tests.proxy.test_admission import ANN, LISTED, GuardedCase
from tests.proxy.world import public, route

AWAY = "hello.1"


class HoldingTests(GuardedCase):
    async def held(self) -> Proxy:
        """A proxy with a service that does not listen yet, and one that answers."""
        self.away = Backend(AWAY, "127.0.0.1", free_port())
        table = {route("hello"): self.away, route("other"): self.app("other").backend}
        proxy = self.proxy()
        await proxy.start(public(table))
        await proxy.traffic.hold("hello", AWAY, True)
        return proxy

    async def test_until_it_listens(self) -> None:
        """A request is kept, with its body, until the ship says that the service listens."""
        proxy = await self.held()
        asked = [self.fetch("/~hello/sink", method="POST", body=b"x" * 100_000) for _ in range(9)]
        self.assertEqual((await self.fetch("/~other/")).status, 200)
        self.assertEqual([one for one in asked if one.called], [])
        self.assertEqual(await proxy.traffic.open_requests(AWAY), 0)
        self.app("hello", self.away.port)
        await proxy.traffic.hold("hello", AWAY, False)
        for one in asked:
            self.assertEqual((await one).json["body"], 100_000)
        self.assertEqual((await self.fetch("/~hello/")).status, 200)

    async def test_without_a_ship(self) -> None:
        """Nobody has to say it: a service that listens is found."""
        await self.held()
        asked = self.fetch("/~hello/")
        self.app("hello", self.away.port)
        self.assertEqual((await asked).json["app"], "hello")

    async def test_no_more(self) -> None:
        """When the ship gives it up, a page says that the service is away."""
        proxy = await self.held()
        asked = self.fetch("/~hello/")
        await proxy.traffic.hold("hello", AWAY, False)
        self.assertEqual((await asked).status, 502)

    async def test_another_instead(self) -> None:
        """What waits for one container is answered by the one that serves instead."""
        proxy = await self.held()
        asked = self.fetch("/~hello/")
        await proxy.publish(route("hello"), self.app("green").backend)
        self.assertEqual((await asked).json["app"], "green")
        await proxy.traffic.hold("hello", AWAY, True)
        self.assertEqual((await self.fetch("/~hello/")).json["app"], "green")

    async def test_who_may_not(self) -> None:
        """Who is not let in is told at once."""
        proxy = await self.held()
        self.sentry()
        await proxy.publish(route("hello"), self.away, LISTED)
        await proxy.traffic.hold("hello", AWAY, True)
        self.assertEqual((await self.fetch("/~hello/")).status, 401)
        said = (self.prefix / "backends").read_text()
        self.assertIn(f"hello 127.0.0.1 {self.away.port} {AWAY} guarded starting\n", said)

    async def test_the_next_ship(self) -> None:
        """The next ship sees for itself which services listen."""
        proxy = await self.held()
        asked = self.fetch("/~hello/")
        self.assertEqual((await self.fetch("/~other/")).status, 200)
        await proxy.leave()
        await self.proxy().start(public({route("hello"): self.away}))
        self.assertEqual((await asked).status, 502)

    async def test_who_may_is_asked_when_it_goes_on(self) -> None:
        """Who waited is let in by what is asked of visitors then, not when they came."""
        proxy = await self.held()
        sentry = self.sentry()
        await proxy.publish(route("hello"), self.away, LISTED)
        await proxy.traffic.hold("hello", AWAY, True)
        asked = self.fetch("/~hello/", headers=[ANN])
        await until(lambda: sentry.asked, "the question")
        sentry.decide = lambda request: NO
        green = self.app("green")
        await proxy.publish(route("hello"), green.backend, evolve(LISTED, listed=()))
        self.assertEqual((await asked).status, 401)
        self.assertEqual(green.wires, [])

    async def test_said_again_after_a_full_disk(self) -> None:
        """What could not be written reaches nginx all the same, for it leads where it led, and is
        not taken for done when it is said again."""
        proxy = await self.held()

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch = self.patch(table_module, "write_whole", full)
        with self.assertRaisesRegex(ProxyError, "No space left"):
            await proxy.traffic.hold("hello", AWAY, False)
        self.assertEqual((await self.fetch("/~hello/")).status, 502)
        control = Control(self.reactor, self.prefix / "control" / "socket")
        self.assertFalse((await control.backends())["hello"].starting)
        patch.restore()
        await proxy.traffic.hold("hello", AWAY, False)
        self.assertNotIn("starting", (self.prefix / "backends").read_text())
        self.assertEqual((await self.fetch("/~hello/")).status, 502)

    async def test_said_again_after_no_answer(self) -> None:
        """What nginx did not hear is not taken for done when it is said again: it freezes nobody
        whose requests still come."""
        proxy = await self.held()

        async def deaf(*_: object) -> None:
            raise ControlError("nginx gave no answer")

        patch = self.patch(Control, "put", deaf)
        with self.assertRaisesRegex(ProxyError, "no answer"):
            await proxy.traffic.lull("other", "other", True)
        patch.restore()
        await proxy.traffic.lull("other", "other", True)
        self.assertEqual((await self.fetch("/~other/")).status, 503)


class Waking(LineOnlyReceiver):
    """The ship: has the requests for `hello` come to it."""

    delimiter = b"\n"

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy

    def lineReceived(self, line: bytes) -> None:
        Deferred.fromCoroutine(self.wake(line.decode()))

    async def wake(self, service: str) -> None:
        assert self.transport is not None
        await self.proxy.traffic.lull(service, service, False)
        self.transport.write(b"awake\n")
        self.transport.loseConnection()


class WakingTests(GuardedCase):
    async def test_many_at_once(self) -> None:
        """Of many who come to a service that is asleep each one is answered, though the ship takes
        its time to hear them."""
        proxy = await self.started(self.app("hello"), self.app("other"))
        ship = Factory.forProtocol(lambda: Waking(proxy))
        door = reactor.listenUNIX(str(proxy.instance.wake), ship, backlog=1, mode=0o666)
        self.addCleanup(door.stopListening)
        await proxy.traffic.lull("hello", "hello", True)
        door.stopReading()
        asked = [self.fetch("/~hello/") for _ in range(8)]
        for _ in range(9):
            self.assertEqual((await self.fetch("/~other/")).status, 200)
        door.startReading()
        self.assertEqual([(await one).status for one in asked], [200] * 8)
