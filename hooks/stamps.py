"""What stands where a commit stands, for a working directory: a date (UTC), and what lay there."""

from __future__ import annotations

import re
import time
from calendar import timegm

_STAMP = re.compile(r"(d[0-9]{6}d[0-9]{6})[0-9a-f]{10}")
_FORM = "d%y%m%dd%H%M%S"
_LATEST = 3155759999.0  # of two digits for the year, that of strptime's


def stamp(newest: float, digest: str) -> str:
    """For a tree whose newest file is of `newest` (epoch seconds) and which has the hex `digest`.

    24 characters, all of them hex digits, and so no id of git's.
    """
    when = time.gmtime(min(max(newest, 0.0), _LATEST))
    return f"{time.strftime(_FORM, when)}{digest[:10]}"


def when_stamped(commit: str) -> float | None:
    """The date in a stamp, in epoch seconds; `None` for everything else, such as a commit."""
    match = _STAMP.fullmatch(commit)
    try:
        return float(timegm(time.strptime(match[1], _FORM))) if match else None
    except ValueError:
        return None


def short(commit: str) -> str:
    """The first digits of a commit; of a stamp what it says."""
    when = when_stamped(commit)
    if when is None:
        return commit[:7]
    return f"working directory of {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(when))}"
