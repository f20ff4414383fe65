"""What takes minutes to make for the tests: made once a week, for all work trees of a machine."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

PLACE = Path("/var/cache/starphleet-tests")


def _week(ago: int) -> str:
    year, week, _ = (datetime.now(UTC) - timedelta(weeks=ago)).isocalendar()
    return f"{year}-{week:02}"


CACHE = PLACE / _week(0)


def prepare(place: Path) -> None:
    """Make `place` in this week's, for everybody to enter, as containers do; remove what is of no
    week that anybody's tests may have begun in. Only for root."""
    for each in (PLACE, CACHE, place):
        each.mkdir(exist_ok=True)
        each.chmod(0o755)
    for old in PLACE.iterdir():
        if old.name not in (_week(0), _week(1)):
            shutil.rmtree(old, ignore_errors=True)
