"""Small charts: figures to the paths of an inline SVG, and to the sentence that says the same."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from attrs import frozen

DAY = 86400.0
BUCKETS = 144  # of ten minutes
WIDTH, HEIGHT = 288.0, 48.0

Point = tuple[float, float]
"""Epoch seconds, and a value."""


@frozen
class Chart:
    """`lines` and `areas` are paths within `width` by `height`, one for each stretch without a
    hole; `text` says what they show."""

    lines: tuple[str, ...]
    areas: tuple[str, ...]
    text: str
    width: float = WIDTH
    height: float = HEIGHT


def of_day(points: Sequence[Point], now: float, top: float, name: str, unit: str) -> Chart:
    """The day before `now`; the highest value of each ten minutes, `top` is the upper edge.

    `unit` is "%" for shares of 1.
    """
    stretches = list(_stretches(_highest(points, now)))
    drawn = [[_at(bucket, value, top) for bucket, value in one] for one in stretches]
    lines = tuple(_line(one) for one in drawn)
    areas = tuple(f"{_line(one)}V{HEIGHT:g}H{one[0][0]:g}Z" for one in drawn)
    return Chart(lines, areas, _told(points, name, unit))


def _highest(points: Iterable[Point], now: float) -> dict[int, float]:
    highest: dict[int, float] = {}
    for when, value in points:
        bucket = BUCKETS - 1 - int((now - when) / (DAY / BUCKETS))
        if 0 <= bucket < BUCKETS:
            highest[bucket] = max(value, highest.get(bucket, 0.0))
    return highest


def _stretches(values: Mapping[int, float]) -> Iterable[list[tuple[int, float]]]:
    """What follows each other without a hole."""
    stretch: list[tuple[int, float]] = []
    for bucket in sorted(values):
        if stretch and bucket != stretch[-1][0] + 1:
            yield stretch
            stretch = []
        stretch.append((bucket, values[bucket]))
    if stretch:
        yield stretch


def _at(bucket: int, value: float, top: float) -> Point:
    """A hair below the upper edge, so that the line is not cut off."""
    share = min(1.0, value / top) if top > 0 else 0.0
    x = bucket * WIDTH / (BUCKETS - 1)
    return round(x, 1), round(HEIGHT - 1 - share * (HEIGHT - 2), 1)


def _line(points: Sequence[Point]) -> str:
    """A single value is a short dash, else nothing would be seen of it."""
    if len(points) == 1:
        (x, y), half = points[0], WIDTH / BUCKETS / 2
        points = [(max(0.0, x - half), y), (min(WIDTH, x + half), y)]
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)


def _told(points: Sequence[Point], name: str, unit: str) -> str:
    if not points:
        return f"{name} over the last day: nothing is known yet"
    values = [value for _, value in points]
    when, most = max(points, key=lambda point: point[1])
    mean = sum(values) / len(values)
    at = time.strftime("%H:%M", time.localtime(when))
    said = f"{_said(mean, unit)} on average, {_said(most, unit)} at most, at {at}"
    return f"{name} over the last day: {said}"


def _said(value: float, unit: str) -> str:
    return f"{100 * value:.0f} %" if unit == "%" else f"{value:.2f}{unit}"


@frozen
class Bar:
    """A part of a deploy's time: where it begins and how wide it is, in percent of the chart."""

    name: str
    seconds: float
    begins: float
    width: float


def bars(steps: Mapping[str, float], longest: float) -> tuple[Bar, ...]:
    """The steps of a deploy one after the other; `longest` seconds are the whole width."""
    found, at = [], 0.0
    for name, seconds in steps.items():
        width = 100 * seconds / longest if longest > 0 else 0.0
        found.append(Bar(name, seconds, round(at, 2), round(max(width, 0.4), 2)))
        at += width
    return tuple(found)
