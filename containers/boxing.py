"""How this host can box commands: bubblewrap is tried once, since it may be there but forbidden."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

from containers import files, sandbox
from containers.interface import Container, ContainerError, Limits
from containers.sandbox import Box, User
from containers.spawn import in_memory, run_at_start

DEFAULT_USER = User(20000, 20000)
PROBE_SECONDS = 10.0


def choose(
    root: Path, wanted: bool | None, user: User | None, readable: Sequence[Path]
) -> tuple[Box, str]:
    """The best box that works here, and why it is not a sandbox ("" if it is).

    `wanted` True insists on the sandbox (raises `ContainerError` with the reason), False declines.
    Blocks for some 10 ms: for the start of the ship.
    """
    shown = _shown(root, readable)
    accounts = root / ".accounts"
    is_root = os.geteuid() == 0
    user = (user or DEFAULT_USER) if is_root else None
    files.write_accounts(accounts, user or User(os.getuid(), os.getgid()))
    bare = Box(None, user, counted=False, accounts=accounts)
    if wanted is False:
        return _searchable(bare, root), "not wanted"
    program = shutil.which("bwrap", path=sandbox.SYSTEM_PATH)
    if program is None:
        why = "bubblewrap is not installed"
    elif Path(program).stat().st_mode & stat.S_ISUID:
        why = f"{program} is setuid, so that its processes could not be found again"
    else:
        for counted in (True, False) if is_root else (True,):
            box = Box(program, user, counted, accounts, _tops(), shown)
            why = _trial(box, root)
            if not why:
                return box, ""
    if wanted:
        raise ContainerError(f"no sandbox: {why}")
    return _searchable(bare, root), why


def _shown(root: Path, readable: Sequence[Path]) -> tuple[Path, ...]:
    """Those of `readable` that are to be bound; what is below `/usr` is seen anyway."""
    shown = []
    for path in readable:
        if root.is_relative_to(path.resolve()):
            raise ContainerError(f"{path} cannot be made readable: the containers are in it")
        if path.is_relative_to("/usr"):
            continue
        if not sandbox.is_place(str(path)) and not path.is_relative_to(sandbox.TMP):
            raise ContainerError(f"{path} cannot be made readable: it has another meaning inside")
        shown.append(path)
    return tuple(shown)


def _tops() -> tuple[tuple[str, str], ...]:
    found = []
    for name in sandbox.TOPS:
        path = Path("/") / name
        if path.is_symlink():
            found.append((name, str(path.readlink())))
        elif path.is_dir():
            found.append((name, ""))
    return tuple(found)


def _trial(box: Box, root: Path) -> str:
    """Why a command cannot be run in `box`, "" if it can."""
    container = Container("trial", root / ".trial")
    files.make(container, box.user)
    options = in_memory(sandbox.as_arguments(sandbox.view(box, container, ())))
    script = in_memory(sandbox.script({"PATH": sandbox.SYSTEM_PATH}, cwd=sandbox.APP))
    argv = [*sandbox.outer(box, options), *sandbox.chain(box, Limits(files=64)), "/bin/true"]
    try:
        done = run_at_start(argv, env={}, seconds=PROBE_SECONDS, stdin=script, inherit=(options,))
    except ContainerError as error:
        return str(error)
    finally:
        os.close(options)
        os.close(script)
        files.remove(container.directory)
    if done.exit.ok:
        return ""
    lines = done.output.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"bubblewrap ended with {done.exit.status}"


def _searchable(box: Box, root: Path) -> Box:
    """Without a view of its own, another user must be able to pass through to its files."""
    if box.user is not None:
        for directory in (root, *root.parents):
            if not directory.stat().st_mode & 0o001:
                raise ContainerError(
                    f"{directory} cannot be passed by other users (chmod o+x), so that services,"
                    f" which run as user {box.user.uid}, could not reach {root}"
                )
    return box
