"""What each account of the SSH server is for, and who comes in."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from attrs import field, frozen

from hooks.errors import Refused, ShipError
from hooks.layout import Layout
from hooks.naming import repository_name
from hooks.repository import Repository, serving_environment
from proxy.ranks import Deed, may
from receiver.admiral import AdmiralRoom
from receiver.headquarters.hosting import NAME as HEADQUARTERS
from receiver.ssh.interface import Account, Command, Login, Rank, Request, Words
from receiver.updates.refit import UpdateRoom
from receiver.verbs import Starphleet, help_text, read

_WAIT = re.compile(r"hq wait ([0-9a-f]{4,64})")
_ADDRESS = re.compile(r"ssh://git@\[?([^\[\]/]+?)\]?(?::([0-9]+))?")
_SERVICE = re.compile(r"git[ -](receive-pack|upload-pack) '/?([^']{0,300}?)(?:\.git)?'")


@frozen
class GitRoom:
    """`ssh git@ship`: git's own commands on the ship's repositories, a few verbs of `starphleet`,
    and a greeting for people.

    `address` is how git reaches the ship, `hooks` the directory of git's hooks, `given` the ship's
    settings of its environment, for `starphleet`; bytes otherwise.
    """

    layout: Layout
    repository: Callable[[str], Repository]
    hooks: Path
    address: str
    free_disk: int
    max_pack: int
    given: Mapping[str, str] = field(factory=dict, repr=False)

    def __call__(self, login: Login, request: Request) -> Command | Words:
        if request.command is None:
            return Words(self._greeting(login), 1)
        if request.command == "help":
            return Words(self._help(), 0)
        try:
            return self._run(login, request.command, request.env.get("GIT_PROTOCOL"))
        except ShipError as error:
            return Words(f"starphleet: {error}\n", 1)

    @property
    def starphleet(self) -> Starphleet:
        return Starphleet(self.layout, self.given)

    def _run(self, login: Login, command: str, git_protocol: str | None) -> Command:
        if waited := _WAIT.fullmatch(command):
            argv = (str(self.hooks / "hq-wait"), waited[1])
            return Command(argv, self._environment(login, HEADQUARTERS), self.layout.root)
        if match := _SERVICE.fullmatch(command):
            return self._git(login, match[1], match[2], git_protocol)
        if command.startswith("git"):
            raise Refused(f"{ascii(command)[:60]} is not for this account; git push and fetch are")
        return self.starphleet.command(read(command, Rank.PUSHER), login)

    def _git(self, login: Login, service: str, asked: str, git_protocol: str | None) -> Command:
        name = HEADQUARTERS if asked == HEADQUARTERS else repository_name(asked)
        if name == HEADQUARTERS and not may(login.key.rank, Deed.HEADQUARTERS):
            raise Refused("the headquarters is for admirals; push services by their names")
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

    def _help(self) -> str:
        at = f"ssh {_reached(self.address, 'git')}"
        wait = f"    {at} {'hq wait COMMIT':<32} until that commit of the headquarters is live\n"
        return help_text(at, Rank.PUSHER) + wait

    def _greeting(self, login: Login) -> str:
        return (
            f"Hello {login.key.owner}, this is a ship of Starphleet. It has no shell here; "
            "it deploys what you push:\n\n"
            f"    git remote add ship {self.address}/NAME\n"
            "    git push ship master\n\n"
            "and it answers:\n\n"
            f"{self._help()}\n"
        )


@frozen
class CaptainRoom:
    """`ssh captain@ship`: verbs of `starphleet` about services, and no shell."""

    starphleet: Starphleet
    address: str

    def __call__(self, login: Login, request: Request) -> Command | Words:
        listed = help_text(f"ssh {_reached(self.address, 'captain')}", Rank.CAPTAIN)
        if request.command is None:
            return Words(f"Hello {login.key.owner}, this account has no shell. It has:\n\n{listed}")
        if request.command == "help":
            return Words(listed, 0)
        try:
            return self.starphleet.command(read(request.command, Rank.CAPTAIN), login)
        except ShipError as error:
            return Words(f"starphleet: {error}\n", 1)


def _reached(address: str, account: str) -> str:
    """The options and destination for ssh, of how git reaches the ship."""
    match = _ADDRESS.fullmatch(address)
    assert match is not None
    return f"-p {match[2]} {account}@{match[1]}" if match[2] else f"{account}@{match[1]}"


def rooms(git: GitRoom, installing: Mapping[str, str] | None = None) -> dict[str, Account]:
    """Every account, and the least rank that comes in; `installing` is of the environment."""
    return {
        "git": Account(git, Deed.PUSH.least),
        "captain": Account(CaptainRoom(git.starphleet, git.address), Deed.COMMAND.least),
        "admiral": Account(AdmiralRoom(git.starphleet), Deed.SHELL.least, whole=True),
        "update": Account(UpdateRoom(git.starphleet, installing or {}), Deed.UPDATE.least),
    }
