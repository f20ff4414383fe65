"""The watchdog: a service that serves and no longer answers well is started again."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from hooks.errors import Refused
from hooks.pulse import every
from hooks.standing import Watch


def watch_of(environment: Mapping[str, str], path: str | None) -> Watch | None:
    """What HEALTHCHECK_PULSE (10 s), _RETRY_COUNT (3) and _INIT_DELAY (60 s) say of the check of
    `path`.

    `None` without a path: nobody said what is healthy. `Refused` names the one that is wrong.
    """
    if path is None:
        return None
    pulse = _count(environment, "HEALTHCHECK_PULSE", 10, 1, 86400)
    retries = _count(environment, "HEALTHCHECK_RETRY_COUNT", 3, 0, 1000)
    delay = _count(environment, "HEALTHCHECK_INIT_DELAY", 60, 1, 3600)
    return Watch(path, float(pulse), retries, float(delay))


def _count(environment: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = environment.get(name) or str(default)
    if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
        raise Refused(f"{name}: {ascii(text)[:20]} is not a number, {least} to {most}")
    return int(text)


async def watch_over(
    reactor: Any,
    watch: Watch,
    healthy: Callable[[], Awaitable[bool]],
    restart: Callable[[str], Awaitable[None]],
) -> None:
    """Ask `healthy` at each pulse, until cancelled; `restart(why)` after too many refusals in a
    row. Once it returns the count begins anew.
    """
    failures = 0

    async def look() -> None:
        nonlocal failures
        failures = 0 if await healthy() else failures + 1
        if failures > watch.retries:
            failures = 0
            await restart(f"GET {watch.path} failed {watch.retries + 1} times in a row")

    await every(reactor, watch.pulse, look, "a service could not be looked after")
