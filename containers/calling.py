"""Programs of the host, each called and waited for: by commands, never by a ship that serves."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

from attrs import frozen


@frozen
class Called:
    """How it ended, and all that it printed."""

    status: int
    text: str


def call(argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> Called:
    """Run `argv`, with the environment of this process if none is given. 127: there is no such
    program."""
    try:
        done = subprocess.run(
            argv,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
    except FileNotFoundError:
        return Called(127, f"there is no {argv[0]} on this host")
    return Called(done.returncode, done.stdout.decode("utf-8", "replace"))
