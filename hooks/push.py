"""What a push asks for, read from git's own lines; whatever cannot be built is refused here."""

from __future__ import annotations

import re
from collections.abc import Sequence

from attrs import frozen

from hooks.errors import Refused
from hooks.naming import branch_of, commit_id, service_name

Update = tuple[str, str, str]
"""Old object id, new object id, full ref name, as git hands them to its hooks."""

_TTL = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MONTH = 31 * 86400


@frozen
class Push:
    """What arrived by git: one branch of one repository moved, by whom, with which options.

    `old` is `None` for a new branch. `ttl` is in seconds, `None` when the pusher named none.
    `private` says who may use what serves then: only who has a key of the ship, or whom its
    environment names; `None`: as before.
    """

    repository: str
    branch: str
    service: str
    ref: str
    old: str | None
    new: str
    owner: str
    attach: bool = False
    ttl: float | None = None
    private: bool | None = None


def read_push(
    repository: str, owner: str, updates: Sequence[Update], options: Sequence[str]
) -> Push:
    """The one push in `updates` (at least one), or `Refused` saying why it cannot be built."""
    if len(updates) > 1:
        names = ", ".join(sorted(ascii(ref)[1:-1] for _, _, ref in updates)[:4])
        raise Refused(
            f"{len(updates)} refs at once ({names}); a ship builds one branch a push: "
            "git push ship BRANCH"
        )
    old, new, ref = updates[0]
    branch = branch_of(ref)
    if _is_zero(new):
        raise Refused(
            f"a branch is not deleted by a push; {service_name(repository, branch)} expires by "
            f"itself, and `take-down {service_name(repository, branch)}` (ssh git@…) ends it now"
        )
    attach, ttl, private = read_options(options)
    return Push(
        repository=repository,
        branch=branch,
        service=service_name(repository, branch),
        ref=ref,
        old=None if _is_zero(old) else commit_id(old),
        new=commit_id(new),
        owner=owner,
        attach=attach,
        ttl=ttl,
        private=private,
    )


def read_options(options: Sequence[str]) -> tuple[bool, float | None, bool | None]:
    """`-o attach`, `-o ttl=2h` (s, m, h, d) and `-o private` or `-o public` as (attach, seconds,
    private); anything else is refused."""
    attach, ttl, private = False, None, None
    for option in options:
        if option == "attach":
            attach = True
        elif option.startswith("ttl="):
            ttl = read_duration(option.removeprefix("ttl="), "-o ttl")
        elif option in ("private", "public"):
            if private is not None and private != (option == "private"):
                raise Refused("-o private and -o public are the opposite of each other")
            private = option == "private"
        else:
            raise Refused(
                f"the push option {ascii(option)[:80]} is not known; "
                "there are attach, private, public and ttl=TIME"
            )
    return attach, ttl, private


def read_duration(text: str, where: str) -> float:
    """`90s`, `15m`, `2h`, `3d` in seconds, at most 31 days; `Refused` names `where` it stood."""
    match = _TTL.fullmatch(text)
    if match is None:
        raise Refused(f"{where}: {ascii(text)[:40]} is not a time such as 90s, 15m, 2h or 3d")
    seconds = int(match[1]) * _SECONDS[match[2]]
    if seconds > _MONTH:
        raise Refused(f"{where}: {text} is longer than 31 days")
    return float(seconds)


def _is_zero(oid: str) -> bool:
    return not oid.strip("0")
