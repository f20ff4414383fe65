"""What the SSH server asks of the rest of the ship, in values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from attrs import field, frozen

from proxy.ranks import Rank as Rank
from proxy.ranks import may


@frozen
class Key:
    """A public key that may log in: whose it is (its file's name), its SHA-256 fingerprint, and
    what its owner may do."""

    owner: str
    fingerprint: str
    rank: Rank = Rank.PUSHER


@frozen
class Login:
    """Who is here: the account asked for, the key whose signature was checked, the peer's IP.

    `connection` is both ends of the TCP connection, as SSH_CONNECTION has them.
    """

    account: str
    key: Key
    peer: str
    connection: str = ""


@frozen
class Request:
    """What a client asks of a session: `command` is `None` for a shell, and the subsystem's name
    when `subsystem`. `env` holds the variables that the account takes from clients, well-formed.
    `term` names the client's kind of terminal when there is to be one.
    """

    command: str | None
    subsystem: bool = False
    env: Mapping[str, str] = field(factory=dict)
    term: str | None = None


@frozen
class Command:
    """A process to join to the channel, in both directions. The environment is exactly `env`.

    `uid` owns its terminal and its agent's socket, if it has them; `argv` sees to it that it runs
    as that user. With `spared` what ignores SIGHUP goes on when the client leaves.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    uid: int | None = None
    spared: bool = False


@frozen
class Words:
    """A text for the person (to stderr, LF ended) and the exit status that goes with it."""

    text: str
    status: int = 1


Room = Callable[[Login, Request], Command | Words]
"""`room(login, request)`: what a login gets for what it asks."""


@frozen
class Account:
    """What a name to log in as leads to, and the least rank that comes in.

    `whole` accounts have everything of SSH: terminals, subsystems, signals, the locale, agent and
    port forwarding. The others have commands, and of the environment a well-formed GIT_PROTOCOL.
    """

    room: Room
    rank: Rank = Rank.PUSHER
    whole: bool = False

    def admits(self, key: Key) -> bool:
        return may(key.rank, self.rank)


@frozen
class Entry:
    """One thing that somebody did here: `did` in words or as they typed it, how it `ended`, when
    it `began` (epoch) and how long it took (`seconds`)."""

    login: Login
    did: str
    ended: str
    began: float
    seconds: float


Record = Callable[[Entry], None]
"""Takes one entry of the audit log. It may not raise."""
