"""The audit log: a line of JSON for each thing that somebody did over SSH."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

from attrs import frozen
from twisted.logger import Logger

from receiver.ssh.interface import Entry

MOST = 8 << 20  # bytes of the log, and of the one before it
LONGEST = 1000  # characters of what was done

_CREDENTIALS = re.compile(r"(://)[^/\s@]{1,300}@")
_VALUE = r"('[^']*'?|\"[^\"]*\"?|\S+)"
_NAME = r"[\w-]{0,40}(?:pass|pwd|secret|token|key|credential)[\w-]{0,40}"
_ASSIGNED = re.compile(rf"({_NAME}\s*[=:]\s*){_VALUE}", re.IGNORECASE)
_OPTION = re.compile(rf"((?:^|\s)--?{_NAME}\s+){_VALUE}", re.IGNORECASE)


def discreet(text: str) -> str:
    """What was typed, without what looks like a secret in it, and not too long."""
    text = _CREDENTIALS.sub(r"\1…@", text[: 2 * LONGEST])
    text = _OPTION.sub(r"\1…", _ASSIGNED.sub(r"\1…", text))
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def line_of(entry: Entry) -> str:
    """One line for one entry. JSON leaves no control character in it."""
    login = entry.login
    told = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry.began)),
        "owner": login.key.owner,
        "key": login.key.fingerprint,
        "account": login.account,
        "address": login.peer,
        "did": discreet(entry.did),
        "ended": entry.ended,
        "seconds": round(entry.seconds, 3),
    }
    return f"{json.dumps(told)}\n"


@frozen
class Audit:
    """Appends to the file `path`, for the ship's user alone. A full one is kept as `path`.1.

    An entry is written at once and not in a thread: it is there when whoever left is gone, also
    when the ship ends.
    """

    path: Path
    log: Logger = Logger()

    def __call__(self, entry: Entry) -> None:
        try:
            self._write(line_of(entry).encode())
        except OSError as error:
            self.log.error("{path}: {why}", path=str(self.path), why=error.strerror)

    def _write(self, line: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self.path, flags, 0o600)
        try:
            os.write(fd, line)
            full = os.fstat(fd).st_size >= MOST
        finally:
            os.close(fd)
        if full:
            self.path.replace(self.path.with_name(f"{self.path.name}.1"))
