"""What the SSH server asks of the rest of the ship, in values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from attrs import frozen


@frozen
class Key:
    """A public key that may log in: whose it is (its file's name) and its SHA-256 fingerprint."""

    owner: str
    fingerprint: str


@frozen
class Login:
    """Who is here: the account asked for, the key whose signature was checked, the peer's IP."""

    account: str
    key: Key
    peer: str


@frozen
class Command:
    """A process to join to the channel, in both directions. The environment is exactly `env`."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path


@frozen
class Words:
    """A text for the person (to stderr, LF ended) and the exit status that goes with it."""

    text: str
    status: int = 1


Room = Callable[[Login, str | None, str | None], Command | Words]
"""`room(login, command, git_protocol)`: what a login gets for an exec request, or for a shell
request when `command` is `None`. `git_protocol` is the client's well-formed GIT_PROTOCOL, if any.
"""
