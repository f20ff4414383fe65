"""Which refs a question is about, and which commit the answer names."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

FULL = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
SHORT = re.compile(r"[0-9a-f]{4,63}")
_LISTED = re.compile(r"([0-9a-f]{40}(?:[0-9a-f]{24})?)\t(\S+)")

Found = Mapping[str, str]
"""The ids by full name; under `NAME^{}` what an annotated tag points to."""


def is_commit(ref: str) -> bool:
    """Whether `ref` is a full commit id, so that nobody has to be asked."""
    return FULL.fullmatch(ref) is not None


def may_be_short(ref: str) -> bool:
    """Whether `ref` may be the beginning of a commit id, if it is no branch or tag."""
    return SHORT.fullmatch(ref) is not None and not is_commit(ref)


def asked(refs: Collection[str]) -> list[str]:
    """The full names that `refs` may mean, in the order in which they count for each."""
    return [name for ref in sorted(refs) if not is_commit(ref) for name in _meanings(ref)]


def _meanings(ref: str) -> tuple[str, ...]:
    return (f"refs/heads/{ref}", f"refs/tags/{ref}") if ref else ("HEAD",)


def answers(refs: Collection[str], found: Found) -> dict[str, str | None]:
    """The commit that each of `refs` names; `None` where there is no such branch or tag."""
    return {ref: ref if is_commit(ref) else _named(ref, found) for ref in refs}


def _named(ref: str, found: Found) -> str | None:
    names = [name for meant in _meanings(ref) for name in (f"{meant}^{{}}", meant)]
    return next((found[name] for name in names if name in found), None)


def listed(text: str) -> Found:
    """What `git ls-remote` printed."""
    matches = map(_LISTED.fullmatch, text.splitlines())
    return {match[2]: match[1] for match in matches if match}
