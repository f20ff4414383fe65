"""Files of a headquarters, laid for a test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def lay(directory: Path, files: Mapping[str, str]) -> None:
    """Write `files` by their names; one that begins with `#!` is executable."""
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if text.startswith("#!") else 0o644)
