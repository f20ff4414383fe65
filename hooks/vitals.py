"""How the host is: processor, memory, disk and load, now and over the last day."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from attrs import asdict, define, field, frozen
from cattrs.preconf.json import make_converter
from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater
from twisted.logger import Logger

from containers.watching import in_thread

PULSE = 5.0  # seconds between two looks
MINUTE = 60.0
KEPT = 1440  # minutes
_values = make_converter()


@frozen
class Sample:
    """The host at `time` (epoch seconds). `cpu` is the share of all processors that was busy since
    the sample before, 0 to 1; memory and disk are in bytes, the disk is the one that the ship's
    root is on; `load` is the average of one minute.
    """

    time: float
    cpu: float
    memory_used: int
    memory_total: int
    disk_used: int
    disk_total: int
    load: float

    @property
    def memory(self) -> float:
        """The share that is used."""
        return self.memory_used / (self.memory_total or 1)

    @property
    def disk(self) -> float:
        """The share that is used."""
        return self.disk_used / (self.disk_total or 1)


Ticks = tuple[float, float]
"""Seconds that processors were busy, and seconds in all, since the host started."""


def share(before: Ticks, after: Ticks) -> float:
    """Which part of the time between was busy, 0 to 1."""
    busy, passed = after[0] - before[0], after[1] - before[1]
    return min(1.0, max(0.0, busy / passed)) if passed > 0 else 0.0


def processors() -> int:
    """How many there are: a load of so many keeps all of them busy."""
    return os.cpu_count() or 1


def ticks() -> Ticks:
    """What the host counted so far."""
    times = psutil.cpu_times()._asdict()
    # What guests took is part of user and nice.
    total = sum(seconds for name, seconds in times.items() if not name.startswith("guest"))
    return total - times["idle"] - times.get("iowait", 0.0), total


def look(root: Path, now: float, cpu: float) -> Sample:
    """The host as it is. Blocks as long as its disk does: call it in a thread."""
    memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(root))
    return Sample(
        time=now,
        cpu=cpu,
        memory_used=memory.total - memory.available,
        memory_total=memory.total,
        disk_used=disk.used,
        disk_total=disk.used + disk.free,
        load=os.getloadavg()[0],
    )


def of_day(samples: Sequence[Sample], now: float) -> list[Sample]:
    """Those of the day before `now`, in their order; none from the future of a clock set back."""
    return [one for one in samples if now - KEPT * MINUTE < one.time <= now + MINUTE][-KEPT:]


def read(path: Path) -> list[Sample]:
    """What was kept, oldest first. A line that is none (a crash tore it) is left out. Blocks."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return []
    found = []
    for line in lines[-2 * KEPT :]:
        with suppress(ValueError, TypeError, KeyError, ExceptionGroup):
            found.append(_values.loads(line, Sample))
    return found


def write(path: Path, samples: Sequence[Sample]) -> None:
    """Keep `samples` and nothing else. Blocks."""
    growing = path.with_name(f".{path.name}")
    growing.write_text("".join(f"{json.dumps(asdict(one))}\n" for one in samples))
    growing.rename(path)


def append(path: Path, sample: Sample) -> None:
    """Keep one more. Blocks."""
    with path.open("a") as file:
        file.write(f"{json.dumps(asdict(sample))}\n")


@define(eq=False)
class Vitals:
    """Looks at the host while `keep` runs; minutes are kept in the file `path`, over restarts."""

    reactor: Any
    path: Path
    root: Path
    clock: Callable[[], float] = time.time
    _now: Sample | None = None
    _minutes: list[Sample] = field(factory=list)
    _counted: Ticks = field(factory=ticks)
    _minute_counted: Ticks = field(factory=ticks)
    _minute_ended: float = field(default=0.0)
    _unkept: int = 0
    _log: Logger = Logger()

    def now(self) -> Sample | None:
        """The host some seconds ago; `None` before the first look."""
        return self._now

    def day(self) -> list[Sample]:
        """One sample for each minute of the last day in which the ship looked, oldest first."""
        return of_day(self._minutes, self.clock())

    async def keep(self) -> None:
        """Look until cancelled; once that it fails does not end it."""
        kept = await in_thread(self.reactor, read, self.path)
        self._minutes = of_day([*kept, *self._minutes], self.clock())
        while True:
            try:
                await self.look()
            except CancelledError:
                raise
            except Exception:
                self._log.failure("the host could not be looked at")
            await deferLater(self.reactor, PULSE)

    async def look(self) -> None:
        """Take one sample; the first one after a minute is kept."""
        before, self._counted = self._counted, ticks()
        now, cpu = self.clock(), share(before, self._counted)
        self._now = await in_thread(self.reactor, look, self.root, now, cpu)
        if not 0 <= now - self._minute_ended < MINUTE:
            await self._keep_minute(self._now)

    async def _keep_minute(self, sample: Sample) -> None:
        before, self._minute_counted = self._minute_counted, ticks()
        first, self._minute_ended = not self._minute_ended, sample.time
        if first:
            return  # no minute has passed
        minute = Sample(**{**asdict(sample), "cpu": share(before, self._minute_counted)})
        self._minutes = of_day([*self._minutes, minute], sample.time)
        with suppress(OSError):  # a full disk keeps nothing; it is told of elsewhere
            await in_thread(self.reactor, self._write, minute)

    def _write(self, minute: Sample) -> None:
        """Append, and begin the file anew before it is twice as long as a day."""
        if self._unkept % KEPT:
            append(self.path, minute)
        else:
            write(self.path, self._minutes)
        self._unkept += 1
