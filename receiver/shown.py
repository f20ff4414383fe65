"""What `starphleet status` and `history` print: a ship's answers, for a person."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

from hooks.stamps import short

SOON = 20  # days before its end in which a certificate should have been renewed
GOOD = ("live", "waiting", "deploying")


def status(
    address: str,
    answer: Mapping[str, Any],
    service: str | None,
    *,
    trouble: bool,
    metadata: bool = False,
) -> str:
    """The whole ship, or one `service`; with `trouble` only what is not as it should be, with
    `metadata` the ship beside a service too."""
    wanted = None if service is None else {service, f"/{service.strip('/')}"}
    ordered = {one["service"]: one for one in answer["ordered"]}
    served = {one["service"]: one for one in answer["services"]}
    names = [n for n in sorted(served.keys() | ordered.keys()) if wanted is None or n in wanted]
    lines = [
        line
        for name in names
        for line in _service(served.get(name), ordered.get(name), trouble=trouble)
    ]
    head = [] if wanted and not metadata else [*_ship(address, answer, trouble=trouble)]
    if not lines and not trouble:
        lines = [f"  nothing serves as {service}" if wanted else "  it serves nothing yet"]
    lines += [] if wanted else [*_door(answer, trouble=trouble)]
    rest = [] if trouble else [*_queue(answer, wanted)]
    return "\n".join([*head, *lines, *rest]) or "no trouble"


def _ship(address: str, answer: Mapping[str, Any], *, trouble: bool) -> Iterator[str]:
    followed = answer["headquarters"]
    if not trouble:
        yield f"the ship is up: {address}"
        if followed:
            yield f"headquarters: {followed['url']} at {(followed['commit'] or 'nothing')[:7]}"
    yield from (f"  ! {why}" for why in answer["host"])
    if followed:
        if followed["trouble"]:
            yield f"  ! headquarters: {followed['trouble']}"
        yield from (f"  ! {why}; what serves goes on" for why in followed["refused"].values())
        yield from (f"  ! {why}" for why in followed["out of reach"].values())
        if not trouble:
            yield from (f"  . {text}" for text in followed["warnings"])


def _service(
    served: Mapping[str, Any] | None, ordered: Mapping[str, Any] | None, *, trouble: bool
) -> Iterator[str]:
    bad = ordered is not None and ordered["phase"] not in GOOD
    astray = served is not None and (served["orphaned"] or served["stopped"])
    ill = _ill(served) if served is not None else ""
    if trouble and not (bad or astray or ill):
        return
    if served is not None:
        yield (
            f"  {served['service']:<20} {short(served['commit'])} by {served['owner']}  "
            f"{served['url'] or 'unpublished'}{_aside(served)}"
        )
        if served.get("working"):
            how = "linked to" if served["linked"] else "a copy of"
            yield f"  {'':<20} {how} {served['working']}"
        if ill:
            yield f"    ! {ill}"
    elif ordered is not None:
        yield f"  {ordered['service']:<20} {ordered['phase']}"
        if ordered.get("working"):  # an older ship says none
            yield f"  {'':<20} of {ordered['working']}"
    if bad and ordered is not None:
        commit = f" {short(ordered['commit'])}" if ordered["commit"] else ""
        yield f"    !{commit} {ordered['phase']}: {ordered['reason']}"
        yield from (f"      {line}" for line in ordered["log"])


def _ill(served: Mapping[str, Any]) -> str:
    """What is wrong with what serves; an older ship does not say."""
    if served.get("ended"):
        times = f", {served['restarts']} times by now" if served["restarts"] > 1 else ""
        return f"it ended by itself ({served['ended']}{times}), and is started again"
    if served.get("unwell"):
        return "its health check fails; it is started again if that goes on"
    return ""


def _door(answer: Mapping[str, Any], *, trouble: bool) -> Iterator[str]:
    """Where signs lead, and certificates whose end is near or that are not right."""
    for sign in () if trouble else answer["signs"]:
        yield f"  {sign['path']:<20} leads to {sign['service'] or sign['url']}"
    for one in answer["certificates"]:
        name, days = one["name"] or "the default certificate", one["days"]
        if one["trouble"]:
            yield f"  ! {name}: {one['trouble']}"
        elif days < SOON:
            yield f"  ! {name} expires in {days} days"
        elif not trouble:
            yield f"  {name:<20} expires in {days} days"
    if not answer["online"]:
        yield "  ! offline: /starphleet/nginx/status answers 404 (starphleet-dns-online)"


def _aside(served: Mapping[str, Any]) -> str:
    if served["orphaned"]:
        return "  orphaned: its orders are gone (starphleet-orphan-reaper)"
    if served["stopped"]:
        return "  stopped"
    asleep = "  asleep: the first request wakes it" if served.get("asleep") else ""
    expires = "" if served["expires"] is None else f"  expires in {_span(served['expires'])}"
    return f"{expires}{asleep}"


def _queue(answer: Mapping[str, Any], wanted: Set[str] | None) -> Iterator[str]:
    for one in answer["deploys"]:
        if wanted is not None and one["service"] not in wanted:
            continue
        how = "waits" if one["waits"] else "is being deployed"
        yield f"  {one['service']:<20} {short(one['commit'])} by {one['owner']}  {how}, {one['id']}"


def history(entries: Sequence[Mapping[str, Any]]) -> str:
    """A line for each deploy, newest first: when, what, who, why, how long and how it ended."""
    return "\n".join(map(_entry, entries)) or "nothing was deployed yet"


def _entry(one: Mapping[str, Any]) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one["started"]))
    took = f"{one['ended'] - one['started']:.2f} s"
    reason = f": {one['reason']}" if one["reason"] else ""
    return (
        f"{when}  {one['service']:<20} {short(one['commit'])} by {one['owner']}  "
        f"{one['why'] or 'pushed'}  {took}  {one['outcome']}{reason}"
    )


def _span(epoch: float) -> str:
    left = max(0, int(epoch - time.time()))
    return f"{left // 3600} h {left % 3600 // 60} min" if left >= 3600 else f"{left // 60} min"
