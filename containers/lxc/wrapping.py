"""The script that a container's first shell reads: the environment, the command, and its end."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping

APP = "/app"


def script(env: Mapping[str, str], *, without: Iterable[str] = ()) -> bytes:
    """What `sh -s` reads from its stdin, so that nothing secret is ever in an argv.

    When the command ends, what it left behind is killed. Unless USR1 came before: then the service
    is being stopped, and the rest of it has its grace; LXC's init waits for it.
    """
    lines = [f"cd {APP} || exit"]
    lines += [f"unset {name}" for name in ("PWD", "OLDPWD", "SHLVL", "container", *without)]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in env.items()]
    lines += [
        "unset __left",
        "trap '__left=1' USR1",
        # No trap for TERM: a command that was just forked would have it, and not hear it.
        '"$@" </dev/null',
        "__status=$?",
        # As often as there is somebody to kill: the rest of the container, but for init.
        # Not for ever: a job of root's is not this user's to kill, and yet no error.
        "__more=1000",
        '[ -n "$__left" ] || while [ "$((__more -= 1))" -gt 0 ] && kill -s KILL -- -1 2>/dev/null',
        "do :; done",
        'exit "$__status"',
    ]
    # In braces, so that the shell has read all of it before it runs any of it.
    return os.fsencode("{\n" + "\n".join(lines) + "\n}\n")
