"""Jobs: executables beside the orders that have a line `#@` with a schedule."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

from cronsim import CronSim, CronSimError

from hooks.cron import KINDS
from hooks.errors import Refused
from hooks.standing import File, Job

OWN = ("orders", "remote", "on_containerize", "after_containerize")
_JOB = re.compile(r"#@ +(.*)")


def jobs_of(path: str, files: Mapping[str, File]) -> tuple[tuple[Job, ...], list[str]]:
    """The jobs among the direct files of an order, and what to warn of. `Refused` for a schedule
    that is none."""
    jobs, warnings = [], []
    for name, file in sorted(files.items()):
        if "/" in name or name in OWN or name.startswith("."):
            continue
        found = _schedule(file.data)
        if found is None:
            continue
        line, schedule = found
        where = f"{path}/{name}:{line}" if path else f"{name}:{line}"
        if not file.executable:
            warnings.append(f"{where}: not executable, so it does not run: chmod +x")
        elif _is_schedule(schedule):
            jobs.append(Job(name, schedule))
        else:
            raise Refused(f"{where}: {ascii(schedule)[:60]} is not a cron expression")
    return tuple(jobs), warnings


def _schedule(data: bytes) -> tuple[int, str] | None:
    """Line and text of the last `#@` line."""
    try:
        lines = data.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        return None
    found = [
        (number, match[1].rstrip())
        for number, line in enumerate(lines, 1)
        if (match := _JOB.match(line))
    ]
    return found[-1] if found else None


def _is_schedule(text: str) -> bool:
    if text.startswith("@"):
        return text == "@reboot" or text in KINDS
    if len(text.split()) != 5:
        return False
    try:
        CronSim(text, datetime(2000, 1, 1))
    except (CronSimError, ValueError):
        return False
    return True
