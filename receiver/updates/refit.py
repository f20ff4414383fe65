"""`ssh update@ship`: the ship's own update, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve, field, frozen

from receiver.ssh.interface import Command, Login, Request, Words
from receiver.verbs import Starphleet


@frozen
class UpdateRoom:
    """`installing` is what of the ship's environment an installer of packages goes by."""

    starphleet: Starphleet
    installing: Mapping[str, str] = field(factory=dict, repr=False)

    def __call__(self, login: Login, request: Request) -> Command | Words:
        if request.command is not None:
            return Words(
                f"Hello {login.key.owner}: this account updates Starphleet on this ship, and takes "
                "no command\n"
            )
        command = self.starphleet.command(["update"])
        # Who leaves stops watching; an update that has begun goes on.
        return evolve(command, env={**self.installing, **command.env}, spared=True)
