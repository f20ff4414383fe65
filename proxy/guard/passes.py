"""Links and sessions: what lets a browser in for who has a key. Each is a file for its owner alone,
named by a digest of its token, so that nobody who reads the directory can use one.

Taking a link is removing its file: of two who come with it one has it, whoever was restarted
meanwhile.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from attrs import asdict, frozen

from proxy.certificates import write_private

LINK_SECONDS = 120
SESSION_SECONDS = 12 * 3600
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")


@frozen
class Pass:
    """Who has it (a key's owner and its fingerprint, "" on the host itself), for which service, and
    until when (epoch seconds)."""

    service: str
    owner: str
    key: str
    until: float


@frozen
class Passes:
    """Passes of one kind in a directory, good for `seconds`. Blocks, raises `OSError`."""

    directory: Path
    seconds: int

    @property
    def begun(self) -> bool:
        """Whether there ever was one."""
        return self.directory.is_dir()

    def make(self, service: str, owner: str, key: str, now: float) -> str:
        """The token of a new one. What is over goes."""
        self.directory.mkdir(mode=0o700, exist_ok=True)
        for file, found in list(self._all()):
            if found is None or found.until <= now:
                file.unlink(missing_ok=True)
        token = secrets.token_urlsafe(32)
        one = Pass(service, owner, key, now + self.seconds)
        write_private(self._file(token), json.dumps(asdict(one)).encode())
        return token

    def find(self, token: str, service: str, now: float) -> Pass | None:
        """The one for `service` with this token, if it is good."""
        if not _TOKEN.fullmatch(token):
            return None
        found = _read(self._file(token))
        return found if found and found.service == service and now < found.until else None

    def take(self, token: str, service: str, now: float) -> Pass | None:
        """As `find`, and then it is no more: `None` for everybody who comes later."""
        found = self.find(token, service, now)
        return found if found is not None and self.end(token) else None

    def end(self, token: str) -> bool:
        """Whether it was there to be ended."""
        if not _TOKEN.fullmatch(token):
            return False
        try:
            self._file(token).unlink()
        except FileNotFoundError:
            return False
        return True

    def _all(self) -> Iterator[tuple[Path, Pass | None]]:
        yield from ((file, _read(file)) for file in self.directory.iterdir())

    def _file(self, token: str) -> Path:
        return self.directory / sha256(token.encode()).hexdigest()


def _read(file: Path) -> Pass | None:
    try:
        return Pass(**json.loads(file.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def links(place: Path) -> Passes:
    """Those in the checker's directory that let somebody in once."""
    return Passes(place / "links", LINK_SECONDS)


def sessions(place: Path) -> Passes:
    """Those that cookies are about."""
    return Passes(place / "sessions", SESSION_SECONDS)
