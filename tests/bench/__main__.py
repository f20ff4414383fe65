"""`python -m tests.bench [NAME ...]`: exit status 1 when a promised bound is missed."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.bench.big import big
from tests.bench.containers import CONTAINERS
from tests.bench.flask import flask
from tests.bench.front import front
from tests.bench.logs import logs
from tests.bench.measure import HEADINGS, Line, shown
from tests.bench.nothing import nothing
from tests.bench.pulse import pulse
from tests.bench.scene import Scene, scene
from tests.bench.start import start
from tests.bench.thousand import thousand

Comparison = Callable[[Scene], Iterator[Line]]

COMPARISONS: dict[str, Comparison] = {
    "flask": flask,
    "nothing": nothing,
    "big": big,
    "start": start,
    "pulse": pulse,
    "front": front,
    "thousand": thousand,
    "logs": logs,
    **CONTAINERS,
}


def main(names: Sequence[str]) -> int:
    unknown = [name for name in names if name not in COMPARISONS]
    if unknown:
        print(f"no comparison {unknown[0]}; there are {', '.join(COMPARISONS)}", file=sys.stderr)
        return 2
    began = time.monotonic()
    print(f"medians (least-most); {_load()}\n{shown(HEADINGS)}", flush=True)
    missed = 0
    for name in names or COMPARISONS:
        missed += _compare(COMPARISONS[name])
    told = f"{missed} missed" if missed else "every bound holds"
    print(f"{told}; {time.monotonic() - began:.0f} s, {_load()}")
    return 1 if missed else 0


def _compare(comparison: Comparison) -> int:
    """How many bounds were missed. Each comparison has a ship of its own."""
    missed = 0
    with tempfile.TemporaryDirectory(prefix="bench-") as home, scene(Path(home)) as made:
        for line in comparison(made):
            print(shown(line.cells), flush=True)
            missed += not line.holds
    return missed


def _load() -> str:
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
