"""`ssh admiral@ship`: a login shell on the host, and what goes with one."""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from attrs import field, frozen

from containers.sandbox import SYSTEM_PATH
from receiver.ssh.interface import Command, Login, Request, Words
from receiver.verbs import Starphleet, asker

ACCOUNT = "admiral"
SFTP_SERVERS = (
    "/usr/lib/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/libexec/sftp-server",
)
_KNOWN_SHELLS = ("sh", "bash", "dash", "zsh", "ksh", "ash")
# The profile of the host may have set PATH anew; `starphleet` is found after it all the same.
_WITH_PATH = 'PATH="$PATH:$1"; export PATH; exec "$0"'


@frozen
class Person:
    """A system account: `uid` and `gid` are `None` for the user that the ship runs as."""

    name: str
    home: Path
    shell: str
    uid: int | None = None
    gid: int | None = None

    @property
    def prefix(self) -> tuple[str, ...]:
        """An argv in front of another, which makes that one run as this person."""
        if self.uid is None:
            return ()
        return (
            "/usr/bin/setpriv",
            f"--reuid={self.uid}",
            f"--regid={self.gid}",
            "--init-groups",
            "--inh-caps=-all",
            "--",
        )


def person() -> Person:
    """The system account `admiral` if the ship is root and there is one, else the ship's user."""
    if os.geteuid() == 0:
        try:
            found = pwd.getpwnam(ACCOUNT)
        except KeyError:
            pass
        else:
            home, shell = Path(found.pw_dir), found.pw_shell or "/bin/sh"
            return Person(found.pw_name, home, shell, found.pw_uid, found.pw_gid)
    try:
        own = pwd.getpwuid(os.geteuid())
    except KeyError:  # a container may run the ship as nobody that is listed
        return Person(str(os.geteuid()), Path("/"), "/bin/sh")
    return Person(own.pw_name, Path(own.pw_dir), own.pw_shell or "/bin/sh")


def shell_argv(shell: str, command: str | None, tools: str) -> tuple[str, ...]:
    """As sshd runs a login shell, or a command by that shell; `tools` is to be on PATH after all
    else, "" if it is there anyway."""
    if command is not None:
        return (shell, "-c", command)
    if tools and PurePosixPath(shell).name in _KNOWN_SHELLS:
        return (shell, "-l", "-c", _WITH_PATH, shell, tools)
    return (shell, "-l")


def sftp_argv() -> tuple[str, ...]:
    """OpenSSH's server where it is installed, else Conch's."""
    for path in SFTP_SERVERS:
        if os.access(path, os.X_OK):
            return (path,)
    return (sys.executable, "-I", "-m", "receiver.ssh.sftp")


@frozen
class AdmiralRoom:
    """`starphleet` is the ship's own; `tools` the directory that it is in."""

    starphleet: Starphleet
    tools: str = field(factory=lambda: str(Path(sys.executable).parent))

    def __call__(self, login: Login, request: Request) -> Command | Words:
        who = person()
        tools = "" if self.tools in SYSTEM_PATH.split(":") else self.tools
        if request.subsystem and request.command != "sftp":
            return Words(f"starphleet: there is no subsystem {ascii(request.command)[:60]}\n")
        argv = sftp_argv() if request.subsystem else shell_argv(who.shell, request.command, tools)
        cwd = who.home if who.home.is_dir() else Path("/")
        env = self._environment(who, login, request, tools)
        return Command((*who.prefix, *argv), env, cwd, uid=who.uid, spared=True)

    def _environment(
        self, who: Person, login: Login, request: Request, tools: str
    ) -> Mapping[str, str]:
        """Built from nothing."""
        there = login.connection.split()
        return {
            "HOME": str(who.home),
            "USER": who.name,
            "LOGNAME": who.name,
            "SHELL": who.shell,
            "PATH": f"{SYSTEM_PATH}:{tools}" if tools else SYSTEM_PATH,
            "LANG": "C.UTF-8",
            **request.env,
            **({"TERM": request.term} if request.term else {}),
            "SSH_CONNECTION": login.connection,
            "SSH_CLIENT": " ".join((*there[:2], *there[3:])),
            **self.starphleet.env,
            **asker(login),
        }
