"""What each account of the SSH server is for: `git` takes pushes, the others have no room yet."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from hooks.errors import Refused, ShipError
from hooks.layout import Layout
from hooks.naming import repository_name
from hooks.repository import Repository, serving_environment
from receiver.ssh.interface import Command, Login, Room, Words

_SERVICE = re.compile(r"git[ -](receive-pack|upload-pack) '/?([^']{0,300}?)(?:\.git)?'")


@frozen
class GitRoom:
    """`ssh git@ship`: git's own commands on the ship's repositories, and a greeting for people.

    `address` is how git reaches the ship, `hooks` the directory of git's hooks; bytes otherwise.
    """

    layout: Layout
    repository: Callable[[str], Repository]
    hooks: Path
    address: str
    free_disk: int
    max_pack: int

    def __call__(
        self, login: Login, command: str | None, git_protocol: str | None
    ) -> Command | Words:
        if command is None:
            return Words(self._greeting(login), 1)
        try:
            return self._git(login, command, git_protocol)
        except ShipError as error:
            return Words(f"starphleet: {error}\n", 1)

    def _git(self, login: Login, command: str, git_protocol: str | None) -> Command:
        match = _SERVICE.fullmatch(command)
        if match is None:
            raise Refused(
                f"{ascii(command)[:60]} is not for this account; it takes git push and git fetch"
            )
        service, name = match[1], repository_name(match[2])
        path = self.repository(name).path
        if service == "receive-pack":
            self.layout.require_room(self.free_disk)
            self.repository(name).ensure()
        elif not path.is_dir():
            raise Refused(f"there is no '{name}' on this ship; push it first: git push ship master")
        env = serving_environment(self.hooks, self.max_pack) | {
            "STARPHLEET_OWNER": login.key.owner,
            "STARPHLEET_REPOSITORY": name,
            "STARPHLEET_SOCKET": str(self.layout.socket),
        }
        if git_protocol is not None:
            env["GIT_PROTOCOL"] = git_protocol
        return Command(("git", service, str(path)), env, self.layout.root)

    def _greeting(self, login: Login) -> str:
        return (
            f"Hello {login.key.owner}, this is a ship of Starphleet. It has no shell here; "
            "it deploys what you push:\n\n"
            f"    git remote add ship {self.address}/NAME\n"
            "    git push ship master\n\n"
        )


def closed_room(login: Login, command: str | None, git_protocol: str | None) -> Words:
    """An account whose use this ship does not have."""
    return Words(
        f"Hello {login.key.owner}: the account '{login.account}' is not on this ship yet.\n", 1
    )


def rooms(git: GitRoom) -> dict[str, Room]:
    return {"git": git, "admiral": closed_room, "update": closed_room}
