"""The keys on disk: the users' in a directory, and the host's own."""

# Conch is mostly without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import base64
import binascii
import contextlib
import functools
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.conch.ssh.common import getNS
from twisted.conch.ssh.keys import Key as SSHKey
from twisted.logger import Logger

from receiver.ssh.algorithms import SIGNATURES
from receiver.ssh.interface import Key, Rank

SMALLEST_RSA = 2048  # bits
LARGEST_FILE = 1024 * 1024  # bytes of one file of keys

OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
RANKS = {"pushers": Rank.PUSHER, "captains": Rank.CAPTAIN}
"""Directories below one of keys, and what keys in them may do; those beside them are admirals'."""

_log = Logger()


class RefusedKeyError(ValueError):
    """A line that is no key to log in with; the text says why."""


def fingerprint(blob: bytes) -> str:
    """As `ssh-keygen -l` prints it."""
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode()
    return "SHA256:" + digest.rstrip("=")


def parse_line(line: str) -> bytes:
    """The blob of a public key line (`type base64 [comment]`). Raises `RefusedKeyError`.

    Options in front of the type would be limits that somebody relies on and that nobody here
    keeps, so such a line is refused, not read past.
    """
    kind, _, rest = line.strip().partition(" ")
    if kind == "ssh-dss":
        raise RefusedKeyError("DSA keys are refused")
    if kind.encode() not in SIGNATURES:
        raise RefusedKeyError("does not begin with a known key type (options are not supported)")
    try:
        blob = base64.b64decode((rest.split() or [""])[0], validate=True)
        key = SSHKey.fromString(blob, type="blob")
    except binascii.Error:
        raise RefusedKeyError("is not base64") from None
    except Exception:  # Conch raises whatever its parts raise
        raise RefusedKeyError("is not a public key") from None
    if getNS(blob)[0] != kind.encode() or key.blob() != blob:
        raise RefusedKeyError(f"is not a key of the type it says, {kind}")
    if kind == "ssh-rsa" and key.size() < SMALLEST_RSA:
        raise RefusedKeyError(f"is RSA of {key.size()} bits, fewer than {SMALLEST_RSA}")
    return blob


@functools.lru_cache(4096)
def _parsed(line: str) -> bytes | RefusedKeyError:
    try:
        return parse_line(line)
    except RefusedKeyError as error:
        return error


class KeyDirectory:
    """Public keys in directories: one or more a file, the file's name (less `.pub`) the owner.

    Those in the directories that `RANKS` names may do less than an admiral. Read afresh at every
    look, so that a key added or removed counts at once. What is refused is logged, once for each
    line. Only the first directory is missed when it is not there.
    """

    def __init__(self, path: Path, *more: Path) -> None:
        self._paths = (path, *more)
        self._told: set[str] = set()

    def find(self, blob: bytes) -> Key | None:
        """Whose key this is, or `None`. A key under two names identifies nobody, and one of two
        ranks has the higher."""
        wanted = fingerprint(blob)
        found = [key for key in self.all() if key.fingerprint == wanted]
        owners = {key.owner for key in found}
        if len(owners) > 1:
            names = ", ".join(sorted(owners))
            self._tell(f"{self._paths[0]}: {wanted} stands under {names}; refused")
            return None
        return max(found, key=lambda key: key.rank, default=None)

    def all(self) -> Iterator[Key]:
        """Every key that may log in, directory by directory, by owner."""
        for path in self._paths:
            yield from self._in(path)

    def _in(self, path: Path) -> list[Key]:
        """The keys in one directory. A link to it may be replaced meanwhile: then the new one's."""
        while True:
            directory = path.resolve()
            found = list(self._listed(path, directory, Rank.ADMIRAL))
            if path.resolve() == directory:
                return found

    def _listed(self, path: Path, directory: Path, rank: Rank) -> Iterator[Key]:
        try:
            files = sorted(directory.iterdir())
        except OSError as error:
            if path == self._paths[0] or not isinstance(error, FileNotFoundError):
                self._tell(f"{path}: {error.strerror}")
            return
        for file in files:
            if file.name.startswith("."):
                continue
            if rank is Rank.ADMIRAL and file.name in RANKS and file.is_dir():
                yield from self._listed(path / file.name, file, RANKS[file.name])
            elif OWNER.fullmatch(file.name.removesuffix(".pub")):
                yield from self.read(file, rank)
            else:
                self._tell(f"{path}: {file.name!r} is no name for an owner of keys; skipped")

    def read(self, file: Path, rank: Rank) -> list[Key]:
        """The keys in one file that may log in, of this rank."""
        owner = file.name.removesuffix(".pub")
        found = []
        for number, line in enumerate(self._lines(file), 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            parsed = _parsed(line)
            if isinstance(parsed, bytes):
                found.append(Key(owner, fingerprint(parsed), rank))
            else:
                self._tell(f"{file}:{number}: {parsed}; skipped", line)
        return found

    def _lines(self, file: Path) -> list[str]:
        try:
            found = file.stat()
            if not stat.S_ISREG(found.st_mode):  # a FIFO would wait for ever
                self._tell(f"{file}: not a file; skipped")
            elif found.st_size > LARGEST_FILE:
                self._tell(f"{file}: larger than {LARGEST_FILE} bytes; skipped")
            else:
                return file.read_bytes().decode("utf-8", "replace").split("\n")
        except FileNotFoundError:
            return []  # removed since it was listed
        except OSError as error:
            self._tell(f"{file}: {error.strerror}; skipped")
        return []

    def _tell(self, text: str, about: str = "") -> None:
        if (key := text + about) not in self._told and len(self._told) < 10_000:
            self._told.add(key)
            _log.warn("{text}", text=text)


def host_key(path: Path) -> SSHKey:
    """The host's Ed25519 key, made at the first call: OpenSSH format, mode 0600, written whole.

    Raises `ValueError` when the file holds something else or others may read it.
    """
    if not path.exists():
        _make(path)
    if path.stat().st_mode & 0o077:
        raise ValueError(f"{path}: a host key is for its owner alone; chmod 600 it")
    try:
        key: SSHKey = SSHKey.fromString(path.read_bytes())
    except Exception:  # Conch raises whatever its parts raise
        raise ValueError(f"{path}: not an OpenSSH private key without passphrase") from None
    if key.isPublic() or key.sshType() != b"ssh-ed25519":
        raise ValueError(f"{path}: not an Ed25519 private key")
    return key


def _make(path: Path) -> None:
    text = SSHKey(Ed25519PrivateKey.generate()).toString("OPENSSH", subtype="v1")
    fd, temporary = tempfile.mkstemp(prefix=".host-key-", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another was quicker: theirs counts
            os.link(temporary, path)
    finally:
        Path(temporary).unlink()
