"""The ledger: what serves now and everything that was ever deployed. The ship's only truth.

SQLite with a write-ahead log, touched by one thread of its own, so the reactor never waits for
the disk. Whatever a method wrote is on the disk when its awaitable fires.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from attrs import asdict, fields
from cattrs.preconf.json import make_converter
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from containers.watching import to_its_end
from hooks.errors import ShipError
from hooks.records import Entry, Launch, Serving, Tally

__all__ = ["Entry", "Launch", "Ledger", "Serving", "Tally", "readable"]

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
    steps TEXT NOT NULL,
    why TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS deploys_of ON deploys (service, id);
CREATE TABLE IF NOT EXISTS again (
    service TEXT PRIMARY KEY,
    count INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS private (
    service TEXT PRIMARY KEY
);
"""
_values = make_converter()
_ENTRY = "service, release, commit_id, owner, started, ended, outcome, reason, steps, why"


def readable(path: Path) -> int:
    """How many services serve by the ledger at `path`, which is left as it is; none without one.
    Raises `ShipError` where this version cannot read it. Blocks."""
    if not path.exists():
        return 0
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as db:
        try:
            rows = db.execute("SELECT record FROM serving").fetchall()
            return len([_values.loads(record, Serving) for (record,) in rows])
        except Exception as error:
            raise ShipError(f"{path} cannot be read: {error!r}") from error


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
        if "why" not in {row[1] for row in self._db.execute("PRAGMA table_info(deploys)")}:
            self._db.execute("ALTER TABLE deploys ADD COLUMN why TEXT NOT NULL DEFAULT ''")

    def close(self) -> None:
        self._pool.stop()
        self._db.close()

    async def serving(self) -> dict[str, Serving]:
        """Everything that serves, by service."""
        rows = await self._all("SELECT service, record FROM serving")
        return {service: _values.loads(record, Serving) for service, record in rows}

    async def now(self, service: str) -> Serving | None:
        """What serves as `service`."""
        row = await self._one("SELECT record FROM serving WHERE service = ?", service)
        return _values.loads(row[0], Serving) if row else None

    async def record(self, serving: Serving, entry: Entry) -> None:
        """`serving` serves from now on, and `entry` is how that came about: both or neither. Who
        is cancelled meanwhile still is told which."""
        await to_its_end(Deferred.fromCoroutine(self._do(lambda: self._together(serving, entry))))

    async def keep(self, serving: Serving) -> None:
        """`serving` serves, as it did; its address or its end changed."""
        await self._do(lambda: self._put(serving))

    async def note(self, entry: Entry) -> None:
        """A deploy that changed nothing ended so."""
        await self._do(lambda: self._add(entry))

    async def strike(self, service: str) -> None:
        """`service` serves no more."""
        await self._write("DELETE FROM serving WHERE service = ?", service)

    async def last_live(self, service: str) -> Entry | None:
        """The newest deploy of `service` that went live."""
        found = await self._entries("WHERE service = ? AND outcome = 'live'", (service, 1))
        return found[0] if found else None

    async def history(self, service: str | None, most: int) -> list[Entry]:
        """The newest deploys, of one service or (`None`) of all, newest first."""
        if service is None:
            return await self._entries("", (most,))
        return await self._entries("WHERE service = ?", (service, most))

    async def page(
        self,
        most: int,
        skip: int = 0,
        *,
        service: str | None = None,
        release: str | None = None,
        outcome: str | None = None,
    ) -> tuple[list[Entry], int]:
        """At most so many deploys, newest first, after the first `skip`; and how many there are.

        Those of one service, of one release, with one outcome, if they are named.
        """
        asked = {"service": service, "release": release, "outcome": outcome}
        named = {name: value for name, value in asked.items() if value is not None}
        where = " AND ".join(f"{name} = ?" for name in named)
        where, values = f"WHERE {where}" if where else "", tuple(named.values())
        count = f"SELECT COUNT(*) FROM deploys {where}"  # noqa: S608 - names of columns
        (total,) = await self._one(count, *values)
        # Ids alone are skipped, not rows.
        ids = f"WHERE id IN (SELECT id FROM deploys {where} ORDER BY id DESC LIMIT ? OFFSET ?)"  # noqa: S608
        return await self._entries(ids, (*values, most, skip, most)), total

    async def failed(self, after: float) -> dict[str, Entry]:
        """The newest deploy of each service, if it did not go live, and ended `after` then."""
        newest = "id IN (SELECT MAX(id) FROM deploys GROUP BY service)"
        found = await self._entries(
            f"WHERE {newest} AND outcome <> 'live' AND ended > ?", (after, -1)
        )
        return {entry.service: entry for entry in found}

    async def tallies(self, bounds: Sequence[float]) -> dict[str, Tally]:
        """All deploys that ever ended, by outcome; `bounds` are seconds, ascending."""
        within = "".join(", SUM(ended - started <= ?)" for _ in bounds)
        asked = f"SELECT outcome, COUNT(*), SUM(ended - started){within} FROM deploys GROUP BY 1"  # noqa: S608
        rows = await self._all(asked, *bounds)
        return {row[0]: Tally(row[1], row[2], tuple(row[3:])) for row in rows}

    async def again(self, service: str) -> int:
        """How often somebody wanted `service` to be deployed again as it is."""
        row = await self._one("SELECT count FROM again WHERE service = ?", service)
        return int(row[0]) if row else 0

    async def want_again(self, service: str) -> None:
        """From now on `service` as it is counts as another release than before."""
        await self._write(
            "INSERT INTO again VALUES (?, 1) ON CONFLICT (service) DO UPDATE SET count = count + 1",
            service,
        )

    async def is_private(self, service: str) -> bool:
        """Whether a pushed service is for who has a key alone, however long ago that was said."""
        return await self._one("SELECT 1 FROM private WHERE service = ?", service) is not None

    async def keep_private(self, service: str, private: bool) -> None:
        """It is from now on, or is not."""
        kept = "INSERT OR IGNORE INTO private VALUES (?)"
        await self._write(kept if private else "DELETE FROM private WHERE service = ?", service)

    async def _entries(self, where: str, values: tuple[object, ...]) -> list[Entry]:
        asked = f"SELECT {_ENTRY} FROM deploys {where} ORDER BY id DESC LIMIT ?"  # noqa: S608
        rows = await self._all(asked, *values)
        names = [column.name for column in fields(Entry)]
        found = [dict(zip(names, row, strict=True)) for row in rows]
        return [Entry(**{**entry, "steps": json.loads(entry["steps"])}) for entry in found]

    async def _one(self, asked: str, *values: object) -> Any:
        """The first row, `None` where there is none."""
        return await self._do(lambda: self._db.execute(asked, values).fetchone())

    async def _all(self, asked: str, *values: object) -> list[Any]:
        return await self._do(lambda: self._db.execute(asked, values).fetchall())

    async def _write(self, done: str, *values: object) -> None:
        await self._do(lambda: self._db.execute(done, values))

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
            (serving.service, _values.dumps(serving)),
        )

    def _add(self, entry: Entry) -> None:
        values = {**asdict(entry), "steps": json.dumps(entry.steps)}
        places = ", ".join("?" * len(values))
        self._db.execute(f"INSERT INTO deploys ({_ENTRY}) VALUES ({places})", (*values.values(),))  # noqa: S608
