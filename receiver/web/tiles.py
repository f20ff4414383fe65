"""The figures of the host at the top of the dashboard."""

from __future__ import annotations

from functools import partial

from attrs import frozen

from hooks.vitals import Vitals, processors
from receiver.web import charts
from receiver.web.rendering import size

FULL = 0.9  # of memory or disk: then it is shown as bad


@frozen
class Tile:
    """A figure of the host and its last day."""

    label: str
    value: str
    aside: str
    chart: charts.Chart
    tone: str = ""


def tiles(vitals: Vitals, now: float) -> list[Tile]:
    """What there is to show of the host; nothing before it was looked at."""
    sample, day, cores = vitals.now(), vitals.day(), processors()
    if sample is None:
        return []
    day = [*day, sample]
    points = {
        name: [(one.time, getattr(one, name)) for one in day]
        for name in ("cpu", "memory", "disk", "load")
    }
    of_day = {name: partial(charts.of_day, points[name], now) for name in points}
    highest = max(cores, *(load for _, load in points["load"]))
    memory = f"of {size(sample.memory_total)} GB"
    disk = f"of {size(sample.disk_total)} GB"
    full = {name: "bad" if getattr(sample, name) >= FULL else "" for name in ("memory", "disk")}
    return [
        Tile("CPU", f"{100 * sample.cpu:.0f} %", _cores(cores), of_day["cpu"](1.0, "CPU", "%")),
        Tile(
            "Memory", f"{size(sample.memory_used)} GB", memory,
            of_day["memory"](1.0, "Memory", "%"), full["memory"],
        ),
        Tile(
            "Disk", f"{size(sample.disk_used)} GB", disk,
            of_day["disk"](1.0, "Disk", "%"), full["disk"],
        ),
        Tile("Load", f"{sample.load:.2f}", _cores(cores), of_day["load"](highest, "Load", "")),
    ]  # fmt: skip


def _cores(count: int) -> str:
    return f"on {count} processor{'s' if count > 1 else ''}"
