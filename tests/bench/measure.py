"""Figures, the bounds they are held to, and how they are shown."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

from attrs import frozen

HEADINGS = ("compared", "ours", "against", "ratio", "bound", "")


@frozen
class Figure:
    """Samples of one thing in one unit (`s`, `MB`, or "" for what is counted)."""

    samples: tuple[float, ...]
    unit: str = "s"

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    def __str__(self) -> str:
        middle = f"{self.median:.{self._digits}f} {self.unit}".rstrip()
        if len(self.samples) == 1:
            return middle
        low, high = min(self.samples), max(self.samples)
        return f"{middle} ({low:.{self._digits}f}-{high:.{self._digits}f})"

    @property
    def _digits(self) -> int:
        if self.unit == "s":
            return 3 if self.median < 1 else 2
        return 1 if self.unit else 0


@frozen
class Bound:
    """What is promised: `text` as it is shown, `holds` for (ours, against)."""

    text: str
    holds: Callable[[float, float], bool]


def ratio(most: float) -> Bound:
    """At most so many times the other."""
    return Bound(f"ratio <= {most:g}", lambda ours, against: ours <= most * against)


def more(most: float) -> Bound:
    """At most so many seconds more than the other."""
    return Bound(f"<= {most:g} s more", lambda ours, against: ours <= against + most)


def under(most: float, unit: str = "s") -> Bound:
    """Less than so much, whatever the other is."""
    return Bound(f"< {most:g} {unit}", lambda ours, against: ours < most)


@frozen
class Line:
    """One comparison: what stands against what, and the bound that is promised, if any."""

    compared: str
    ours: Figure
    against: Figure | None = None
    bound: Bound | None = None

    @property
    def holds(self) -> bool:
        other = self.against.median if self.against else 0.0
        return self.bound is None or self.bound.holds(self.ours.median, other)

    @property
    def cells(self) -> tuple[str, ...]:
        """What is shown under `HEADINGS`."""
        quotient = f"{self.ours.median / self.against.median:.2f}" if self.against else "-"
        against = str(self.against) if self.against else "-"
        bound = self.bound.text if self.bound else "none"
        verdict = "" if self.bound is None else "holds" if self.holds else "MISSED"
        return (self.compared, str(self.ours), against, quotient, bound, verdict)


WIDTHS = (58, 25, 25, 6, 14, 0)


def shown(cells: Sequence[str]) -> str:
    """One row of the table."""
    pairs = zip(cells, WIDTHS, strict=True)
    return "  ".join(f"{cell:<{width}}" for cell, width in pairs).rstrip()


def seconds(work: Callable[[], object]) -> float:
    """How long `work` took."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def alternate(
    rounds: int, ours: Callable[[], float], against: Callable[[], float], *, warm: bool = True
) -> tuple[Figure, Figure]:
    """Both measured in turn; to `warm`, after one round that does not count."""
    if warm:
        ours(), against()
    pairs = [(ours(), against()) for _ in range(rounds)]
    return Figure(tuple(a for a, _ in pairs)), Figure(tuple(b for _, b in pairs))
