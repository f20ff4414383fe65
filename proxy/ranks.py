"""Who may do what: one table, which SSH and HTTP both ask."""

from __future__ import annotations

from enum import Enum, IntEnum


class Rank(IntEnum):
    """What a key's owner may do; each may do what those before it may."""

    PUSHER = 1
    CAPTAIN = 2
    ADMIRAL = 3


class Deed(Enum):
    """What somebody does on a ship, and the least rank that may. The verbs of `starphleet` over
    SSH say theirs beside what else they are (`receiver/verbs.py`)."""

    PUSH = "log in as git, push, fetch and ask", Rank.PUSHER
    PRIVATE = "use a private service", Rank.PUSHER
    COMMAND = "log in as captain", Rank.CAPTAIN
    CANCEL = "end a deploy of somebody else", Rank.CAPTAIN
    HEADQUARTERS = "push and fetch the headquarters", Rank.ADMIRAL
    SHELL = "log in as admiral", Rank.ADMIRAL
    UPDATE = "log in as update", Rank.ADMIRAL
    PAGES = "see the ship's own pages", Rank.ADMIRAL

    @property
    def least(self) -> Rank:
        return self.value[1]


def may(rank: Rank | None, what: Deed | Rank) -> bool:
    """Whether somebody of `rank`, `None` for who has no key, may do `what`: a deed, or whatever
    is for that rank and those above."""
    least = what.least if isinstance(what, Deed) else what
    return rank is not None and rank >= least
