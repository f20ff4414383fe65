"""The headquarters' `authorized_keys/`: whom it lets in, laid where the SSH server looks."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from receiver.ssh.keys import OWNER, RANKS, RefusedKeyError, parse_line

_PRIVATE = re.compile(rb"^\s*(-----BEGIN [A-Z0-9 ]*PRIVATE KEY|PuTTY-User-Key-File-)", re.MULTILINE)
_LIKE_A_KEY = re.compile(r"(?:^|\s)(?:ssh|ecdsa|sk)-\S+\s+AAAA")
_DOCUMENTS = (".md", ".rst")


def write_admirals(directory: Path, keys: Mapping[str, bytes]) -> tuple[str, ...]:
    """Lay `keys` (files by their path below `authorized_keys/`) at `directory`; what to warn of.

    One file for each owner, whose name is the file's without `.pub`; what is below `pushers/` or
    `captains/` stays in a directory of that name, all else is an admiral's. All changes at once:
    whoever looks finds the old keys or the new ones. Unchanged keys leave the disk untouched.
    Blocks.
    """
    found: dict[str, list[str]] = defaultdict(list)
    warnings = []
    for name, data in sorted(keys.items()):
        good, refused = _read(name, data)
        warnings += refused
        if good:
            place = _place(name)
            found[place] += [line for line in good if line not in found[place]]
    wanted = {place: "".join(f"{line}\n" for line in lines) for place, lines in found.items()}
    if _laid(directory) != wanted:
        _lay(directory, wanted)
    return tuple(warnings)


def _owner(name: str) -> str:
    return PurePosixPath(name).name.removesuffix(".pub")


def _place(name: str) -> str:
    """The file that keys of `name` are laid in."""
    first, deeper, _ = name.partition("/")
    return f"{first}/{_owner(name)}" if deeper and first in RANKS else _owner(name)


def _read(name: str, data: bytes) -> tuple[list[str], list[str]]:
    """The lines of one file that are keys to log in with, and what to warn of."""
    where = f"authorized_keys/{ascii(name)[1:-1]}"
    if _PRIVATE.search(data):
        return [], [f"{where}: this is a private key; whoever reads the headquarters has it now"]
    if _is_document(name):
        return [], []
    good, refused = [], []
    for number, line in _candidates(data):
        try:
            parse_line(line)
        except RefusedKeyError as error:
            refused.append(f"{where}:{number}: the key {error}; skipped")
        else:
            good.append(line)
    if good and (not OWNER.fullmatch(_owner(name)) or _owner(name) in RANKS):
        return [], [*refused, f"{where}: that is no name for an owner of keys; skipped"]
    return good, refused


def _candidates(data: bytes) -> Iterator[tuple[int, str]]:
    """The lines that mean to be keys; anything else in such a file is somebody's prose."""
    for number, line in enumerate(data.decode("utf-8", "replace").split("\n"), 1):
        if not line.lstrip().startswith("#") and _LIKE_A_KEY.search(line):
            yield number, line.strip()


def _is_document(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in _DOCUMENTS or path.stem.upper() == "README"


def _laid(directory: Path) -> dict[str, str] | None:
    try:
        return {
            str(file.relative_to(directory)): file.read_text()
            for each in directory.iterdir()
            for file in (each.iterdir() if each.is_dir() else (each,))
        }
    except (OSError, UnicodeDecodeError):
        return None


def _lay(directory: Path, wanted: Mapping[str, str]) -> None:
    """`directory` is a link to a directory that never changes, and is replaced by a rename.

    The one that it named before stays until the next time: somebody may be reading it.
    """
    before = directory.resolve()
    new = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    for place, text in wanted.items():
        (new / place).parent.mkdir(mode=0o700, exist_ok=True)
        _write(new / place, text)
    link = new.with_name(f"{new.name}.link")
    link.symlink_to(new.name)
    if directory.is_dir() and not directory.is_symlink():
        directory.rename(before := new.with_name(f"{new.name}.old"))
    link.replace(directory)
    for old in directory.parent.glob(f".{directory.name}-*"):
        if old not in (new, before):
            shutil.rmtree(old, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    with path.open("x") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
