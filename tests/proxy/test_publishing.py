"""Changes of structure: gathered, tried, verified, put back."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred, DeferredList

import proxy.table as table_module
from proxy.distribution import Run
from proxy.engine import Patience
from proxy.files import Generations
from proxy.routes import ProxyError
from tests.proxy.reactor import run, until
from tests.proxy.world import ProxyCase, public, route


def objecting_to(word: str) -> Run:
    """nginx, but its test objects to a configuration with `word` in it."""

    async def objecting(argv: Sequence[str], seconds: float) -> tuple[int, str]:
        if "-t" in argv:
            config = Path(argv[argv.index("-p") + 1]) / argv[argv.index("-c") + 1]
            if word in config.read_text():
                return 1, f"nginx: [emerg] {word} is not to my taste"
        return await run(argv, seconds)

    return objecting


class PublishTests(ProxyCase):
    async def test_fifty_new_routes_share_reloads(self) -> None:
        """50 new services published at once are all served after at most three reloads."""
        app = self.app("hello")
        proxy = await self.started()
        generation = self.generation()
        names = [f"s{n}" for n in range(50)]
        publishes = [Deferred.fromCoroutine(proxy.publish(route(n), app.backend)) for n in names]
        results = await DeferredList(publishes, consumeErrors=True)
        self.assertEqual([str(error) for good, error in results if not good], [])
        self.assertLessEqual(self.generation() - generation, 3)
        for name in names:
            self.assertEqual((await self.fetch(f"/~{name}/")).status, 200)

    async def test_new_route_serves_on_return(self) -> None:
        """Each of 10 new services answers the very first request after its publish returned."""
        app = self.app("hello")
        proxy = await self.started()
        for n in range(10):
            await proxy.publish(route(f"s{n}"), app.backend)
            for _ in range(3):
                answer = await self.fetch("/", host=f"s{n}.localhost")
                self.assertEqual(answer.headers["X-Starphleet-Service"], f"s{n}")

    async def test_bad_route_blocks_nobody(self) -> None:
        """When nginx takes all but one of the waiting routes, only that one's publish fails."""
        app = self.app("hello")
        proxy = await self.started(app, run=objecting_to("rotten"))
        publishes = [
            Deferred.fromCoroutine(proxy.publish(route(name), app.backend))
            for name in ("one", "rotten", "two")
        ]
        results = await DeferredList(publishes, consumeErrors=True)
        self.assertEqual([good for good, _ in results], [True, False, True])
        self.assertRegex(str(results[1][1]), "does not take .*rotten is not to my taste")
        for name, status in (("one", 200), ("two", 200), ("rotten", 404), ("hello", 200)):
            self.assertEqual((await self.fetch(f"/~{name}/")).status, status)

    async def test_bad_route_at_start_is_told(self) -> None:
        """A route that nginx does not take at the start is returned; the others are served."""
        app = self.app("hello")
        proxy = self.proxy(run=objecting_to("rotten"))
        table = {route(name): app.backend for name in ("one", "rotten", "two")}
        self.assertEqual(list(await proxy.start(public(table))), ["rotten"])
        for name, status in (("one", 200), ("two", 200), ("rotten", 404)):
            self.assertEqual((await self.fetch(f"/~{name}/")).status, status)

    async def test_unverified_change_is_put_back(self) -> None:
        """When no worker takes the new configuration, publish fails and the old one is current."""
        app = self.app("hello")
        await self.started(app)
        hasty = self.proxy(patience=Patience(verify=0.3, parting=0.0, apart=0.0))
        await hasty.start(public({route("hello"): app.backend}))
        before = (self.prefix / "current").readlink()
        master = await self.master()
        os.kill(master, signal.SIGSTOP)
        try:
            with self.assertRaisesRegex(ProxyError, "did not take the new configuration"):
                await hasty.publish(route("new"), app.backend)
            self.assertEqual((await self.fetch("/~hello/")).status, 200)
        finally:
            os.kill(master, signal.SIGCONT)
        self.assertEqual((self.prefix / "current").readlink(), before)
        self.assertEqual((await self.fetch("/~new/")).status, 404)
        proxy = await self.started(app)
        await proxy.publish(route("new"), app.backend)
        self.assertEqual((await self.fetch("/~new/")).status, 200)

    async def test_full_disk(self) -> None:
        """When the disk is full, a publish fails in one line that says so; the rest is served."""
        blue, green = self.app("blue"), self.app("green")
        proxy = self.proxy()
        await proxy.start(public({route("hello"): blue.backend}))

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        for taken, attempt in (("write", route("new")), ("write_whole", route("hello"))):
            place = Generations if taken == "write" else table_module
            patch = self.patch(place, taken, full)
            with self.assertRaisesRegex(ProxyError, "No space left"):
                await proxy.publish(attempt, green.backend)
            patch.restore()
        self.assertEqual((await self.fetch("/~hello/")).json["app"], "blue")
        await proxy.publish(route("hello"), green.backend)
        self.assertEqual((await self.fetch("/~hello/")).json["app"], "green")

    async def test_cancelled_publish_is_undone(self) -> None:
        """A publish that is cancelled while nginx reloads leaves no route and no backend."""
        app = self.app("hello")
        proxy = await self.started(app)
        publish = Deferred.fromCoroutine(proxy.publish(route("new"), app.backend))
        generation = self.generation()
        await until(lambda: self.generation() > generation, "the pass to begin")
        publish.cancel()
        with self.assertRaises(CancelledError):
            await publish

        await until(lambda: self.generation() == generation + 2, "the pass that undoes it")
        await proxy.publish(route("later"), app.backend)
        self.assertEqual((await self.fetch("/~new/")).status, 404)
        self.assertNotIn("new", (self.prefix / "backends").read_text())
        self.assertEqual((await self.fetch("/~hello/")).status, 200)

    async def test_thousand_routes(self) -> None:
        """1,000 services with host and path are taken, served and switched."""
        app = self.app("hello")
        proxy = self.proxy()
        table = {route(f"s{n}"): app.backend for n in range(1000)}
        self.assertEqual(await proxy.start(public(table)), {})
        for n in (0, 500, 999):
            self.assertEqual((await self.fetch(f"/~s{n}/")).status, 200)
            self.assertEqual((await self.fetch("/", host=f"s{n}.localhost")).status, 200)
        await proxy.publish(route("one-more"), app.backend)
        self.assertEqual((await self.fetch("/~one-more/")).status, 200)
