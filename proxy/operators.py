"""The operator's own configuration for nginx: a directory of `*.conf`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from proxy.changes import Change, Refusals, laying
from proxy.grammar import FILE, ProxyError, matches

LONGEST = 1_000_000  # bytes of a file


def changes(directory: Path | None, last: Mapping[str, str]) -> tuple[list[Change], Refusals]:
    """From what was there `last` to what is there now. Reads files."""
    texts, refused = read(directory)
    gone = [laying(name, None) for name in last if name not in texts and name not in refused]
    return [*gone, *(laying(name, text) for name, text in texts.items())], refused


def read(directory: Path | None) -> tuple[dict[str, str], Refusals]:
    """The texts by file name, and why the others cannot be had. Reads files."""
    texts: dict[str, str] = {}
    refused: Refusals = {}
    for path in sorted(directory.glob("*.conf")) if directory else ():
        try:
            texts[matches("file", FILE, path.name)] = _text(path)
        except (OSError, ValueError, ProxyError) as error:
            refused[path.name] = ProxyError(f"{path.name}: {error}")
    return texts, refused


def _text(path: Path) -> str:
    if path.stat().st_size > LONGEST:
        raise ProxyError(f"larger than {LONGEST} bytes")
    return path.read_text()
