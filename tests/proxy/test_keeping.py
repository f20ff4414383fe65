"""What the ship's operator does with nginx: own files, reloads, restarts, being online or not."""

from __future__ import annotations

import time

from twisted.internet.defer import Deferred, gatherResults

from proxy.engine import Patience
from proxy.routes import ProxyError
from tests.proxy.reactor import run, until
from tests.proxy.world import ProxyCase, public, route


class OperatorTests(ProxyCase):
    def setUp(self) -> None:
        super().setUp()
        self.own = self.prefix / "own"
        self.own.mkdir()

    async def listens(self, name: str) -> bool:
        """Whether the server of an operator's file is there."""
        _, said = await run(["/bin/sh", "-c", 'grep -F -c -- "$0" /proc/net/unix', name], 5.0)
        return said.strip() != "0"

    def server(self, name: str) -> str:
        return f"server {{ listen unix:{self.prefix}/{name}; return 200; }}\n"

    async def test_own_files_are_taken(self) -> None:
        """A file is taken at the start and at a refit, and goes when it is gone; others than
        `*.conf` are not looked at."""
        (self.own / "one.conf").write_text(self.server("one.sock"))
        (self.own / "readme.txt").write_text("nonsense")
        proxy = await self.started(operator=self.own)
        self.assertTrue(await self.listens("one.sock"))
        (self.own / "one.conf").unlink()
        (self.own / "two.conf").write_text(self.server("two.sock"))
        self.assertEqual(await proxy.refit(), {})
        self.assertFalse(await self.listens("one.sock"))
        self.assertTrue(await self.listens("two.sock"))
        generation = self.generation()
        self.assertEqual(await proxy.refit(), {})
        self.assertEqual(self.generation(), generation)

    async def test_a_bad_file_blocks_nobody(self) -> None:
        """What nginx does not take is left out and told by its name; its last good copy goes on,
        also over a restart of the ship and of nginx; services come and go meanwhile."""
        good, bad = self.own / "good.conf", self.own / "bad.conf"
        good.write_text(self.server("good.sock"))
        bad.write_text("listen { ;")
        (self.own / "b ad.conf").write_text("")
        app = self.app("hello")
        proxy = self.proxy(operator=self.own)
        table = public({route("hello"): app.backend})
        refused = await proxy.start(table)
        self.assertEqual(sorted(refused), ["b ad.conf", "bad.conf"])
        (self.own / "b ad.conf").unlink()
        self.assertEqual((await self.fetch("/~hello/")).status, 200)
        good.write_text("gzip on; gzip on;")
        self.assertEqual(sorted(await proxy.refit()), ["bad.conf", "good.conf"])
        self.assertTrue(await self.listens("good.sock"))
        await proxy.publish(route("new"), app.backend)
        self.assertEqual((await self.fetch("/~new/")).status, 200)
        refused = await self.proxy(operator=self.own).start(table)
        self.assertEqual(sorted(refused), ["bad.conf", "good.conf"])
        self.assertTrue(await self.listens("good.sock"))
        await proxy.stop()
        successor = self.proxy(operator=self.own)
        self.assertEqual(sorted(await successor.start(table)), ["bad.conf", "good.conf"])
        self.assertTrue(await self.listens("good.sock"))
        self.assertEqual((await self.fetch("/~hello/")).status, 200)
        good.write_text(self.server("better.sock"))
        bad.unlink()
        self.assertEqual(await successor.refit(), {})
        self.assertTrue(await self.listens("better.sock"))


class OnlineTests(ProxyCase):
    async def test_online_or_not(self) -> None:
        """The status is `Ok` until the ship is taken offline, through reloads, deaths of nginx and
        other ships, and again once it is online."""
        app = self.app("hello")
        proxy = await self.started(app)
        await self.says(200, "Ok\n")
        for online, status in ((True, 200), (False, 404), (False, 404)):
            await proxy.dns(online)
            await self.says(status)
        await proxy.hup()
        await self.says(404)
        await proxy.restart()
        await self.says(404)
        await proxy.stop()
        successor = await self.started(app)
        await self.says(404)
        await successor.dns(True)
        await self.says(200, "Ok\n")
        self.assertEqual((await self.fetch("/starphleet/nginx/status/x")).status, 404)

    async def says(self, status: int, text: str | None = None) -> None:
        answer = await self.fetch("/starphleet/nginx/status")
        self.assertEqual(answer.status, status)
        if text is not None:
            self.assertEqual(answer.text, text)


class ReloadTests(ProxyCase):
    async def test_hup_reloads_in_any_case(self) -> None:
        """`hup` lays the same down again and has new workers take it up, under the same master."""
        proxy = await self.started(self.app("hello"))
        master, workers, generation = await self.master(), await self.workers(), self.generation()
        self.assertEqual(await proxy.hup(), {})
        self.assertGreater(self.generation(), generation)
        self.assertEqual(await self.master(), master)

        async def others() -> bool:
            return not workers & await self.workers()

        await until(others, "the old workers to be gone")
        self.assertEqual((await self.fetch("/~hello/")).status, 200)

    async def test_restart_is_one(self) -> None:
        """`restart` gives another master, though somebody keeps nginx running meanwhile."""
        proxy = await self.started(self.app("hello"))
        keeping = Deferred.fromCoroutine(proxy.keep())
        self.addCleanup(lambda: keeping)
        master = await self.master()
        self.assertEqual(await proxy.restart(), {})
        self.assertNotEqual(await self.master(), master)
        self.assertEqual((await self.fetch("/~hello/")).status, 200)
        await proxy.stop()

    async def test_reloads_are_gathered(self) -> None:
        """The first change serves at once; those within the second after it serve together, at its
        end; a service that is known switches without waiting for them."""
        blue, green = self.app("blue"), self.app("green")
        proxy = self.proxy(patience=Patience(parting=0.02, apart=1.0))
        await proxy.start(public({route("hello"): blue.backend}))
        began, generation = time.monotonic(), self.generation()
        waiting = gatherResults(
            [Deferred.fromCoroutine(proxy.publish(route(f"s{n}"), blue.backend)) for n in range(9)]
        )
        await proxy.publish(route("hello"), green.backend)
        self.assertLess(time.monotonic() - began, 0.5)
        self.assertEqual(self.generation(), generation)
        await waiting
        self.assertEqual(self.generation(), generation + 1)
        self.assertEqual((await self.fetch("/~hello/")).json["app"], "green")

    async def test_the_first_does_not_wait(self) -> None:
        """A change that comes long after the last one waits for nothing, the next one does; and to
        stop does not wait for it."""
        app = self.app("hello")
        proxy = self.proxy(patience=Patience(parting=0.0, apart=1.5))
        await proxy.start(public({route("hello"): app.backend}))
        began = time.monotonic()
        await proxy.publish(route("one"), app.backend)
        self.assertGreater(time.monotonic() - began, 1.0)
        late = Deferred.fromCoroutine(proxy.publish(route("two"), app.backend))
        began = time.monotonic()
        await proxy.stop()
        self.assertLess(time.monotonic() - began, 1.0)
        with self.assertRaisesRegex(ProxyError, "being stopped|not started"):
            await late
