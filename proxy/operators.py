"""The operator's own configuration for nginx: a directory of `*.conf`."""

from __future__ import annotations

from pathlib import Path

from proxy.grammar import FILE, ProxyError, matches

LONGEST = 1_000_000  # bytes of a file


def read(directory: Path | None) -> tuple[dict[str, str], dict[str, ProxyError]]:
    """The texts by file name, and why the others cannot be had. Reads files."""
    texts: dict[str, str] = {}
    refused: dict[str, ProxyError] = {}
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
