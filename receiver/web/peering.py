"""What an operator says of the other ships of the phleet."""

from __future__ import annotations

from urllib.parse import urlsplit

from hooks.errors import Refused

MOST = 32  # ships that may be named


def read_peers(text: str, name: str) -> tuple[str, ...]:
    """Base URLs, apart by commas or spaces; `Refused` names the setting that has another one."""
    found = tuple(dict.fromkeys(one.rstrip("/") for one in text.replace(",", " ").split()))
    for url in found:
        try:
            parts = urlsplit(url)
            good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            good = False
        if not good or not url.isascii() or url != f"{parts.scheme}://{parts.netloc}":
            raise Refused(f"{name}: {ascii(url)[:80]} is not a URL such as https://ship2.example")
        if "@" in parts.netloc:
            raise Refused(f"{name}: there is no place for a name or a password in a URL of a ship")
    if len(found) > MOST:
        raise Refused(f"{name}: at most {MOST} ships")
    return found
