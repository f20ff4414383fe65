"""What updates fetched, in uv's cache beside the versions: it goes with those that used it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from attrs import frozen

from receiver.updates.versions import Version

_DIST_INFO = "lib/python*/site-packages/*.dist-info"
# uv reads neither of these from a cache of another layout, and then nothing is found here either.
_WHEELS = "wheels-v*/**/*-*-*-*"
_EDITABLE = "sdists-v*/editable/*"


@frozen
class Entry:
    """One file or link of the cache by which uv finds a wheel."""

    package: str
    version: str
    path: Path


def forget(cache: Path, versions: Collection[Version]) -> int:
    """Let the cache forget what none of these versions has; how many wheels that were. What nothing
    leads to any more is uv's own to remove (`uv cache prune`)."""
    installed = {one for version in versions for one in _installed(version)}
    gone = unneeded(list(_entries(cache)), installed)
    for entry in gone:
        entry.path.unlink(missing_ok=True)
    for built in cache.glob(_EDITABLE):  # of a version's own source: never asked for again
        shutil.rmtree(built, ignore_errors=True)
    return len({(entry.package, entry.version) for entry in gone})


def unneeded(entries: Collection[Entry], installed: Collection[tuple[str, str]]) -> list[Entry]:
    """Those of other versions of a package than are `installed`. Of one that is installed nowhere,
    such as what builds others, the version that was fetched last is kept."""
    kept = set(installed) & {(entry.package, entry.version) for entry in entries}
    here = {package for package, _ in kept}
    last: Mapping[str, str] = {
        entry.package: entry.version
        for entry in sorted(entries, key=lambda entry: entry.path.lstat().st_mtime)
        if entry.package not in here
    }
    kept |= set(last.items())
    return [entry for entry in entries if (entry.package, entry.version) not in kept]


def _entries(cache: Path) -> Iterator[Entry]:
    for path in cache.glob(_WHEELS):
        if path.is_symlink() or path.is_file():
            yield Entry(path.parent.name, path.name.partition("-")[0], path)


def _installed(version: Version) -> Iterator[tuple[str, str]]:
    for path in version.venv.glob(_DIST_INFO):
        name, _, number = path.stem.partition("-")
        yield re.sub(r"[-_.]+", "-", name).lower(), number
