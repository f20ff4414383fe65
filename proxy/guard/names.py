"""The names of people, so that nobody has a second spelling."""

from __future__ import annotations

import unicodedata


def casefolded(name: str) -> str:
    """What is compared: `name` in one case and one way of writing its letters."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def presentable(name: str) -> bool:
    """Whether `name` can stand in a header, a cookie and a log."""
    return 0 < len(name) <= 200 and name.isprintable() and name == name.strip()
