"""The ledger."""

from __future__ import annotations

import sqlite3
from threading import Event

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from hooks.ledger import Entry, Launch, Ledger, Serving, Tally
from hooks.naming import Release
from hooks.standing import Job, Place, Watch
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

    async def test_what_is_being_recorded_is_recorded(self) -> None:
        """Who cancels it then comes too late, however often: what is written is what is told."""
        disk = Event()
        busy = Deferred.fromCoroutine(self.ledger._do(lambda: disk.wait(20)))
        recording = Deferred.fromCoroutine(self.ledger.record(serving(), entry()))
        recording.cancel()
        recording.cancel()
        disk.set()
        self.assertTrue(await busy)
        await recording
        self.assertEqual(await self.ledger.now("app"), serving())

    async def test_a_newer_release_replaces_the_older(self) -> None:
        """A service serves one release."""
        await self.ledger.record(serving(), entry())
        newer = serving(commit="2" * 40)
        await self.ledger.record(newer, entry())
        self.assertEqual(await self.ledger.serving(), {"app": newer})
        self.assertEqual(await self.ledger.now("app"), newer)
        self.assertIsNone(await self.ledger.now("other"))

    async def test_deploys_are_tallied(self) -> None:
        """How many ended how, in how many seconds in all, and how many within each bound."""
        self.assertEqual(await self.ledger.tallies((1.0,)), {})
        await self.ledger.record(serving(), entry(ended=2.0))
        await self.ledger.record(serving(), entry(ended=11.0))
        await self.ledger.note(entry("failed", ended=1.5))
        tallies = await self.ledger.tallies((0.5, 1.0, 60.0))
        expected = {"live": Tally(2, 11.0, (0, 1, 2)), "failed": Tally(1, 0.5, (1, 1, 1))}
        self.assertEqual(tallies, expected)

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

    async def test_an_ordered_service_is_kept_whole(self) -> None:
        """Its place, its jobs, its watch and that it is stopped are there after a restart."""
        ordered = evolve(
            serving("/a/b"),
            place=Place("/a/b/", ("x.example.com",)),
            standing="digest",
            jobs=(Job("tick", "@hourly"),),
            watch=Watch("/up", 5.0, 2),
            stopped=True,
            orphaned=True,
        )
        await self.ledger.record(ordered, entry())
        self.ledger.close()
        self.ledger = Ledger(reactor, self.path)  # type: ignore[arg-type]
        self.assertEqual(await self.ledger.serving(), {"/a/b": ordered})

    async def test_the_history_is_newest_first(self) -> None:
        """Of one service or of all, at most so many, each with why it began."""
        for n, service in enumerate(("app", "other", "app")):
            await self.ledger.note(evolve(entry(ended=float(n)), service=service, why=f"why {n}"))
        self.assertEqual(
            [one.why for one in await self.ledger.history(None, 2)], ["why 2", "why 1"]
        )
        self.assertEqual(
            [one.why for one in await self.ledger.history("app", 9)], ["why 2", "why 0"]
        )

    async def test_what_is_wanted_again_is_counted(self) -> None:
        """Each wish counts, for the service alone, and is there after a restart."""
        self.assertEqual(await self.ledger.again("app"), 0)
        await self.ledger.want_again("app")
        await self.ledger.want_again("app")
        self.ledger.close()
        self.ledger = Ledger(reactor, self.path)  # type: ignore[arg-type]
        self.assertEqual([await self.ledger.again(name) for name in ("app", "other")], [2, 0])

    async def test_a_ledger_from_before_is_read(self) -> None:
        """One that a ship without headquarters wrote gets what it lacks, and keeps what it has."""
        self.ledger.close()
        self.path.unlink()
        with sqlite3.connect(self.path) as old:
            old.execute(
                "CREATE TABLE deploys (id INTEGER PRIMARY KEY, service TEXT, release TEXT,"
                " commit_id TEXT, owner TEXT, started REAL, ended REAL, outcome TEXT, reason TEXT,"
                " steps TEXT)"
            )
            old.execute(
                "INSERT INTO deploys VALUES (1, 'app', 'r', 'c', 'ann', 1, 2, 'live', '', '{}')"
            )
        old.close()
        self.ledger = Ledger(reactor, self.path)  # type: ignore[arg-type]
        (found,) = await self.ledger.history("app", 1)
        self.assertEqual((found.why, found.ended), ("", 2.0))

    def test_it_is_for_the_ship_alone(self) -> None:
        """It holds environments, so no other user may read it."""
        self.assertEqual(self.path.stat().st_mode & 0o077, 0)

    async def test_the_history_is_read_in_pages(self) -> None:
        """Newest first, of all or of what is named, each with how many there are in all."""
        for at in range(7):
            outcome = "failed" if at % 3 == 0 else "live"
            made = evolve(entry(outcome, ended=float(at)), service="app" if at < 5 else "other")
            await self.ledger.note(evolve(made, release=f"r{at}"))
        found, total = await self.ledger.page(2, 1)
        self.assertEqual(([one.ended for one in found], total), ([5.0, 4.0], 7))
        found, total = await self.ledger.page(9, service="app", outcome="failed")
        self.assertEqual(([one.ended for one in found], total), ([3.0, 0.0], 2))
        self.assertEqual((await self.ledger.page(9, release="r5"))[1], 1)
        self.assertEqual(await self.ledger.page(9, 100), ([], 7))

    async def test_what_failed_last(self) -> None:
        """One entry for each service whose newest deploy came to nothing, whatever was before."""
        for service, outcome, ended in (
            ("a", "failed", 1.0), ("a", "live", 2.0), ("b", "live", 3.0), ("b", "failed", 4.0),
        ):  # fmt: skip
            await self.ledger.note(evolve(entry(outcome, ended), service=service))
        failed = await self.ledger.failed(3.5)
        self.assertEqual({name: one.ended for name, one in failed.items()}, {"b": 4.0})
        self.assertEqual(await self.ledger.failed(4.0), {})
