"""The ledger: what serves now and everything that was ever deployed. The ship's only truth.

SQLite with a write-ahead log, touched by one thread of its own, so the reactor never waits for
the disk. Whatever a method wrote is on the disk when its awaitable fires.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from attrs import asdict, fields, frozen
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from hooks.naming import Release

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS serving (
    service TEXT PRIMARY KEY,
    record TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS deploys (
    id INTEGER PRIMARY KEY,
    service TEXT NOT NULL,
    release TEXT NOT NULL,
    commit_id TEXT NOT NULL,
    owner TEXT NOT NULL,
    started REAL NOT NULL,
    ended REAL NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT NOT NULL,
    steps TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS deploys_of ON deploys (service, id);
"""


@frozen
class Launch:
    """How a built release is started: argv, environment, memory limit and the health check."""

    argv: tuple[str, ...]
    env: dict[str, str]


@frozen
class Serving:
    """A release that serves. `since` and `expires` are seconds since the epoch (UTC)."""

    release: Release
    owner: str
    branch: str
    launch: Launch
    host: str
    port: int
    since: float
    expires: float | None

    @property
    def service(self) -> str:
        return self.release.service

    @property
    def container(self) -> str:
        return str(self.release)


@frozen
class Entry:
    """One deploy as it ended. `outcome` is `live` or `failed`; `steps` maps names to seconds."""

    service: str
    release: str
    commit: str
    owner: str
    started: float
    ended: float
    outcome: str
    reason: str
    steps: dict[str, float]

    @property
    def seconds(self) -> float:
        return self.ended - self.started


class Ledger:
    """Open it with the reactor whose thread its results come back to; close it at the end."""

    def __init__(self, reactor: IReactorFromThreads, path: Path) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(1, 1, "ledger")
        self._pool.start()
        path.touch(mode=0o600)
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        self._pool.stop()
        self._db.close()

    async def serving(self) -> dict[str, Serving]:
        """Everything that serves, by service."""
        rows = await self._do(
            lambda: self._db.execute("SELECT service, record FROM serving").fetchall()
        )
        return {service: _serving(json.loads(record)) for service, record in rows}

    async def record(self, serving: Serving, entry: Entry) -> None:
        """`serving` serves from now on, and `entry` is how that came about: both or neither."""
        await self._do(lambda: self._together(serving, entry))

    async def keep(self, serving: Serving) -> None:
        """`serving` serves, as it did; its address or its end changed."""
        await self._do(lambda: self._put(serving))

    async def note(self, entry: Entry) -> None:
        """A deploy that changed nothing ended so."""
        await self._do(lambda: self._add(entry))

    async def strike(self, service: str) -> None:
        """`service` serves no more."""
        await self._do(
            lambda: self._db.execute("DELETE FROM serving WHERE service = ?", (service,))
        )

    async def last_live(self, service: str) -> Entry | None:
        """The newest deploy of `service` that went live."""
        row = await self._do(
            lambda: self._db.execute(
                "SELECT service, release, commit_id, owner, started, ended, outcome, reason, steps"
                " FROM deploys WHERE service = ? AND outcome = 'live' ORDER BY id DESC LIMIT 1",
                (service,),
            ).fetchone()
        )
        if row is None:
            return None
        names = [column.name for column in fields(Entry)]
        return Entry(**dict(zip(names, (*row[:-1], json.loads(row[-1])), strict=True)))

    async def _do(self, work: Callable[[], T]) -> T:
        result: T = await deferToThreadPool(self._reactor, self._pool, work)
        return result

    def _together(self, serving: Serving, entry: Entry) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._put(serving)
            self._add(entry)
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _put(self, serving: Serving) -> None:
        self._db.execute(
            "INSERT INTO serving VALUES (?, ?)"
            " ON CONFLICT (service) DO UPDATE SET record = excluded.record",
            (serving.service, json.dumps(asdict(serving))),
        )

    def _add(self, entry: Entry) -> None:
        self._db.execute(
            "INSERT INTO deploys"
            " (service, release, commit_id, owner, started, ended, outcome, reason, steps)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                entry.service,
                entry.release,
                entry.commit,
                entry.owner,
                entry.started,
                entry.ended,
                entry.outcome,
                entry.reason,
                json.dumps(entry.steps),
            ),
        )


def _serving(record: dict[str, Any]) -> Serving:
    release = Release(**record.pop("release"))
    launch = record.pop("launch")
    return Serving(release=release, launch=Launch(tuple(launch["argv"]), launch["env"]), **record)
