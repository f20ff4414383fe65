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
from receiver.headquarters.hosting import NAME as HEADQUARTERS
from receiver.ssh.interface import Command, Login, Room, Words

_WAIT = re.compile(r"hq wait ([0-9a-f]{4,64})")
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
        if waited := _WAIT.fullmatch(command):
            argv = (str(self.hooks / "hq-wait"), waited[1])
            return Command(argv, self._environment(login, HEADQUARTERS), self.layout.root)
        match = _SERVICE.fullmatch(command)
        if match is None:
            raise Refused(
                f"{ascii(command)[:60]} is not for this account; it takes git push, git fetch "
                "and hq wait COMMIT"
            )
        service = match[1]
        name = HEADQUARTERS if match[2] == HEADQUARTERS else repository_name(match[2])
        path = self.repository(name).path
        if service == "receive-pack":
            self.layout.require_room(self.free_disk)
            self.repository(name).ensure()
        elif not path.is_dir():
            raise Refused(f"there is no '{name}' on this ship; push it first: git push ship master")
        env = serving_environment(self.hooks, self.max_pack) | self._environment(login, name)
        if git_protocol is not None:
            env["GIT_PROTOCOL"] = git_protocol
        return Command(("git", service, str(path)), env, self.layout.root)

    def _environment(self, login: Login, name: str) -> dict[str, str]:
        """By which the hooks find the ship, and say who asks about what."""
        return {
            "STARPHLEET_OWNER": login.key.owner,
            "STARPHLEET_REPOSITORY": name,
            "STARPHLEET_SOCKET": str(self.layout.socket),
        }

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
