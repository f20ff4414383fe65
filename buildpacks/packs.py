"""The nouns of this room: a pack, what a build gives, and the packs that come with the ship."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

HERE = Path(__file__).resolve().parent


class BuildError(Exception):
    """A build or a buildpack failed; the text is one line for a person.

    `tail` holds the tool's own last lines (control codes stripped), oldest first, possibly none.
    """

    def __init__(self, message: str, tail: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.tail = tail


@frozen
class Pack:
    """A buildpack on the ship's disk.

    `mount` is the host directory that a build must see; the pack itself is `at` below it (the
    provided packs share `lib/`, so they are mounted together). `looks_for` is for people.
    """

    name: str
    mount: Path
    at: str = ""
    looks_for: str = ""

    @property
    def directory(self) -> Path:
        """The host directory that holds `bin/`."""
        return self.mount / self.at


@frozen
class Built:
    """What a finished build says of itself. Names are checked; values are as the pack gave them."""

    pack: str
    detected: str
    config_vars: Mapping[str, str]
    process_types: Mapping[str, str]


PROVIDED: tuple[Pack, ...] = (
    Pack("ruby", HERE, "ruby", "Gemfile, config.ru"),
    Pack(
        "python", HERE, "python", "requirements.txt, pyproject.toml, setup.py, Pipfile, manage.py"
    ),
    Pack("node", HERE, "node", "package.json"),
    Pack("static", HERE, "static", "index.html, static.json, Staticfile"),
    Pack("null", HERE, "null", "Procfile"),
)
"""The packs that come with the ship, in the one order in which they are asked."""
