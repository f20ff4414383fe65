"""Values to HTML: the templates, and how times, spans and hostile text are written in them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hooks.journal.lines import Event
from hooks.say import plain
from hooks.stamps import short

BASE = "/starphleet/dashboard"
STATIC = Path(__file__).parent / "static"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_SPANS = (("d", 86400), ("h", 3600), ("min", 60))


def span(seconds: float) -> str:
    """`0.42 s`, `12 s`, `3 min`, `2 h 5 min`, `4 d 3 h`."""
    seconds = max(0.0, seconds)
    if seconds < 10:
        return f"{seconds:.2f} s"
    left = int(seconds)
    if left < 60:
        return f"{left} s"
    parts = []
    for name, size in _SPANS:
        count, left = divmod(left, size)
        parts.append((count, name))
    first = next(i for i, (count, _) in enumerate(parts) if count)
    return " ".join(f"{count} {name}" for count, name in parts[first : first + 2] if count)


def long(seconds: float) -> str:
    """As `span`, in whole seconds."""
    return span(seconds) if seconds >= 10 else f"{max(0, int(seconds))} s"


def ago(epoch: float, now: float) -> str:
    """`just now`, else the largest unit alone: `3 h ago`."""
    passed = now - epoch
    if passed < 60:
        return "just now"
    name, size = next((name, size) for name, size in _SPANS if passed >= size)
    return f"{int(passed // size)} {name} ago"


def iso(epoch: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))


def date(epoch: float) -> str:
    """In the ship's own time zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(epoch))


def clock(epoch: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(epoch))


def size(count: int) -> str:
    """Bytes, in GB."""
    return f"{count / 1e9:.1f}" if count < 1e11 else f"{count / 1e9:.0f}"


def shown_url(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.netloc}{parts.path.rstrip('/')}"


def origin(event: Event, alone: bool) -> str:
    """Where a line came from; the service is not said `alone`."""
    name = event.service or "ship"
    process = "" if event.process in ("web", "ship") else event.process
    if alone:
        return process or ("web" if event.service else "ship")
    return f"{name} {process}".rstrip()


def word(text: str) -> str:
    """`text` as the name of a class or an id."""
    return "".join(char if char.isalnum() and char.isascii() else "-" for char in text)


def digest(name: str) -> str:
    """Changes with a file of `STATIC`."""
    return sha256((STATIC / name).read_bytes()).hexdigest()[:12]


def harmless(value: Any) -> Any:
    """What is to be shown, without control codes if it is text that is not HTML already."""
    return plain(value) if type(value) is str else value


def environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        finalize=harmless,
    )
    filters = (span, long, ago, iso, date, clock, origin, shown_url, word, short)
    made.filters |= {each.__name__: each for each in filters}
    made.filters["thousands"] = lambda count: f"{count:,}".replace(",", " ")
    digests = {path.name: digest(path.name) for path in STATIC.iterdir()}
    made.globals |= {"base": BASE, "asset": digests.__getitem__}
    return made


def link(path: str, query: Mapping[str, Any], changes: Mapping[str, Any]) -> str:
    """The address of a page with some of its query changed; what is `None` or "" goes."""
    wanted = {**query, **changes}
    kept = {name: value for name, value in wanted.items() if value not in (None, "")}
    return f"{BASE}{path}?{urlencode(kept)}" if kept else f"{BASE}{path}"
