"""What the advisories have in common."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

from tests.voyages.harbour import App, Harbour, Said

OF_THE_SHIP = "only-the-ship-knows-this"  # in the environment of the ship's process
MB = 2**20


def canary(harbour: Harbour) -> Path:
    """A directory of the host's, which no build, service or hook can see."""
    return harbour.home / "canary"


def touch(harbour: Harbour, name: str = "escaped") -> str:
    """A shell command that must never run where the canary is."""
    return f"touch {canary(harbour)}/{name}"


def services(harbour: Harbour) -> set[str]:
    status = json.loads(harbour.starphleet("status", "--json").text)
    return {service["service"] for service in status["services"]}


def repository(harbour: Harbour, name: str) -> Path:
    return harbour.root / "repositories" / f"{name}.git"


def objects_of(harbour: Harbour, name: str) -> set[str]:
    found = (repository(harbour, name) / "objects").rglob("*")
    return {path.name for path in found if path.is_file()}


def refused(app: App, name: str, reason: str, refspec: str = "master") -> Said:
    """A push that fails for this reason."""
    said = app.push(name, refspec, check=False)
    assert said.status != 0, said.text
    assert reason in said.text, said.text
    return said


def numbered(text: str) -> str:
    """A short name for a case."""
    return sha256(text.encode()).hexdigest()[:8]
