"""A box for one command that is to compute and nothing else: no network, nothing to write to."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from attrs import evolve

from containers import boxing, sandbox
from containers.interface import Container, ContainerError, Limits, Mount
from containers.sandbox import User
from containers.spawn import Completed, in_memory, run

NOBODY = User(20001, 20001)  # not the user of services, whose files it must not reach
EMPTY = "/tmp"  # noqa: S108 - inside, its own
LOCALES = "/usr/share/locale"
MEMORY = 16 << 20  # bytes that may be written to /tmp


class Closed:
    """Runs commands that see the host's system and one directory, read-only, and each other not.

    bubblewrap makes the box; without it nothing is run at all. `directory` is for the names of the
    box's accounts. Making one blocks for some 10 ms.
    """

    def __init__(self, reactor: Any, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._reactor = reactor
        self._nothing = Container("closed", directory / "nothing")
        for place in (self._nothing.app, self._nothing.directory / "tmp"):
            place.mkdir(parents=True, exist_ok=True)
        self._box, self.reason = boxing.choose(directory, None, NOBODY, ())

    async def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        view: Path,
        at: str,
        limits: Limits,
        keep: int,
    ) -> Completed:
        """Run `argv` with the directory `view` to be seen at `at`, which is the working directory.

        The environment is `env` and PATH, HOME, LANG, TMPDIR. stdout is `output`, stderr `errors`;
        `keep` bytes of each. Raises `ContainerError` when there is no box.
        """
        if not self._box.sandboxed:
            raise ContainerError(f"there is no box to run it in: {self.reason}")
        whole = sandbox.environment(env, home=EMPTY, tmp=EMPTY, path=())
        with ExitStack() as stack:
            options = in_memory(sandbox.as_arguments(self._view(view, at)))
            stack.callback(os.close, options)
            chain = sandbox.chain(self._box, evolve(limits, seconds=None, output=None))
            return await run(
                self._reactor,
                [*sandbox.outer(self._box, options), *chain, *argv],
                env={},
                cwd=Path("/"),
                stdin=sandbox.script(whole, cwd=at),
                limits=Limits(seconds=limits.seconds, output=limits.output),
                keep=keep,
                merge=False,
                grace=0,
                inherit=(options,),
            )

    def _view(self, view: Path, at: str) -> list[str]:
        """bubblewrap's options: those of a service, less what that could write to or reach."""
        seen = sandbox.view(self._box, self._nothing, [Mount(view, at)])
        empty = ["--perms", "1777", "--size", str(MEMORY), "--tmpfs", EMPTY]
        app = ["--ro-bind", str(self._nothing.app), sandbox.APP]
        # What bash says is read, and LANGUAGE must not change it.
        untranslated = ["--tmpfs", LOCALES] if Path(LOCALES).is_dir() else []
        return ["--unshare-net", "--die-with-parent", *seen, *empty, *app, *untranslated]
