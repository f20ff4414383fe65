"""The ledger."""

from __future__ import annotations

from attrs import evolve
from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from hooks.ledger import Entry, Launch, Ledger, Serving
from hooks.naming import Release
from tests.hooks.scene import scratch


def serving(service: str = "app", commit: str = "1" * 40) -> Serving:
    return Serving(
        release=Release(service, "0" * 12, commit),
        owner="ann",
        branch="master",
        launch=Launch(("bash", "-c", "x"), {"SECRET": "s"}),
        host="127.0.0.1",
        port=20000,
        since=1.5,
        expires=None,
    )


def entry(outcome: str = "live", ended: float = 3.0) -> Entry:
    return Entry("app", "app-0-1", "1" * 40, "ann", 1.0, ended, outcome, "", {"build": 0.5})


class Ledgers(TestCase):
    def setUp(self) -> None:
        self.path = scratch(self) / "ledger"
        self.ledger = Ledger(reactor, self.path)  # type: ignore[arg-type]
        self.addCleanup(lambda: self.ledger.close())

    async def test_what_was_recorded_is_there_after_a_restart(self) -> None:
        """A ledger that was closed and opened again says the same, value for value."""
        await self.ledger.record(serving(), entry())
        self.ledger.close()
        self.ledger = Ledger(reactor, self.path)  # type: ignore[arg-type]
        self.assertEqual(await self.ledger.serving(), {"app": serving()})
        self.assertEqual(await self.ledger.last_live("app"), entry())

    async def test_a_newer_release_replaces_the_older(self) -> None:
        """A service serves one release."""
        await self.ledger.record(serving(), entry())
        newer = serving(commit="2" * 40)
        await self.ledger.record(newer, entry())
        self.assertEqual(await self.ledger.serving(), {"app": newer})

    async def test_what_failed_is_no_last_live(self) -> None:
        """The time of a push is told against the last that went live."""
        await self.ledger.record(serving(), entry(ended=2.0))
        await self.ledger.note(entry("failed", ended=9.0))
        last = await self.ledger.last_live("app")
        assert last is not None
        self.assertEqual(last.seconds, 1.0)
        self.assertIsNone(await self.ledger.last_live("other"))

    async def test_striking_leaves_the_others(self) -> None:
        """A service that ends is gone from what serves, its history stays."""
        await self.ledger.record(serving(), entry())
        await self.ledger.keep(evolve(serving("other"), expires=7.0))
        await self.ledger.strike("app")
        self.assertEqual(list(await self.ledger.serving()), ["other"])
        self.assertIsNotNone(await self.ledger.last_live("app"))

    def test_it_is_for_the_ship_alone(self) -> None:
        """It holds environments, so no other user may read it."""
        self.assertEqual(self.path.stat().st_mode & 0o077, 0)
