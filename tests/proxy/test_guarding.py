"""What the checker is told is on the disk before anybody relies on it; the ship goes on."""

from __future__ import annotations

import errno
import shutil
import tempfile
import threading
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from proxy.grammar import ProxyError
from proxy.guard import store
from proxy.guard.store import Guards
from proxy.guarding import Guarding
from proxy.protection import Commons, Crew, Member, Protection
from proxy.ranks import Rank
from tests.proxy.reactor import reactor, until
from tests.proxy.sentry import Nobody

PRIVATE = Protection(mode="private")
CREW = Crew({"SHA256:ann": Member("ann", Rank.PUSHER)})


class Slow:
    """A disk on which a write takes until it is `allowed`."""

    def __init__(self) -> None:
        self.allowed = threading.Semaphore(0)
        self.begun: list[Guards] = []
        self._write = store.write

    def __call__(self, prefix: Path, guards: Guards) -> None:
        self.begun.append(guards)
        self.allowed.acquire(timeout=20)
        self._write(prefix, guards)


class Written(TestCase):
    timeout = 30.0

    async def setUp(self) -> None:  # type: ignore[override]
        self.prefix = Path(tempfile.mkdtemp(prefix="guarding-"))
        self.addCleanup(shutil.rmtree, self.prefix)
        keeper: Any = Nobody()
        self.guarding = Guarding(reactor, self.prefix, keeper)
        await self.guarding.begin({}, Commons())
        self.read = store.Reader(self.prefix)

    def slowly(self) -> Slow:
        slow = Slow()
        self.patch(store, "write", slow)
        return slow

    def told(self, work: Awaitable[Any]) -> Deferred[Any]:
        return Deferred.fromCoroutine(work)  # type: ignore[arg-type]

    async def test_nothing_is_told_before_it_is_on_the_disk(self) -> None:
        """Who protects a service waits for the disk, and nobody else does."""
        slow = self.slowly()
        first = self.told(self.guarding.protect("/a", PRIVATE))
        again = self.told(self.guarding.protect("/a", PRIVATE))
        await until(lambda: slow.begun, "the write")
        for _ in range(3):
            await deferLater(reactor, 0)
        self.assertEqual((first.called, again.called), (False, False))
        self.assertNotIn("/a", self.read().services)
        slow.allowed.release()
        self.assertEqual((await first, await again), (True, False))
        self.assertIn("/a", self.read().services)

    async def test_what_was_said_last_is_what_is_written_last(self) -> None:
        """One write after the other, though nobody waits for the first any more."""
        slow = self.slowly()
        first = self.told(self.guarding.protect("/a", PRIVATE))
        await until(lambda: slow.begun, "the write")
        first.cancel()
        with self.assertRaises(CancelledError):
            await first
        second = self.told(self.guarding.protect("/a", None))
        await deferLater(reactor, 0)
        self.assertEqual(len(slow.begun), 1)
        slow.allowed.release(2)
        await second
        self.assertNotIn("/a", self.read().services)

    async def test_nothing_is_written_once_another_process_is_the_ship(self) -> None:
        """Who leaves waits for the write that nobody waits for."""
        slow = self.slowly()
        self.told(self.guarding.protect("/a", PRIVATE)).addErrback(lambda _: None).cancel()
        await until(lambda: slow.begun, "the write")
        left = self.told(self.guarding.leave())
        await deferLater(reactor, 0)
        self.assertFalse(left.called)
        slow.allowed.release()
        await left
        self.assertIn("/a", self.read().services)

    async def test_a_crew_that_was_not_written_is_not_known(self) -> None:
        """A full disk is no reason to believe that the checker knows who has a key."""
        patch = self.patch(store, "write", full)
        with self.assertRaisesRegex(ProxyError, "No space left"):
            await self.guarding.muster(CREW)
        self.assertNotEqual(self.guarding.crew, CREW)
        patch.restore()
        await self.guarding.muster(CREW)
        self.assertEqual(self.read().crew, CREW)

    async def test_what_is_shared_is_new_until_it_is_written(self) -> None:
        """After a full disk the same groups are news still, so that nginx forgets what it knew."""
        commons = Commons(groups={"crew": ("ann",)})
        patch = self.patch(store, "write", full)
        with self.assertRaisesRegex(ProxyError, "No space left"):
            await self.guarding.share(commons)
        patch.restore()
        self.assertTrue(await self.guarding.share(commons))
        self.assertFalse(await self.guarding.share(commons))


def full(*_: object) -> None:
    """A disk on which there is no room."""
    raise OSError(errno.ENOSPC, "No space left on device")
