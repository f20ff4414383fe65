"""A working directory in a container: as the app itself, or copied to where the app is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from buildpacks.packs import BuildError
from containers.interface import Container, Mount, Runtime
from containers.watching import in_thread
from hooks.errors import Refused
from hooks.say import Say
from hooks.working import UNBIND, Working, clear_away, copy

APP = "/app"
LEFT = (".heroku", ".built")  # by an earlier build, and not to be taken for this one's
NO_LINK = (
    "a working directory cannot be linked on this ship, which has no sandbox (bubblewrap): "
    f'export {UNBIND}="true" in the orders serves a copy of it'
)
NOT_SHARED = (
    "its file system has no access lists: the service and you write there as far as modes let you"
)


def app_mount(working: Path) -> Mount:
    """A working directory as the app of a container."""
    return Mount(working, APP, writable=True, theirs=True)


async def lay_working(
    reactor: Any, runtime: Runtime, container: Container, working: Working, place: Path, say: Say
) -> None:
    """Copy a working directory into `place`, or prepare one that is linked for a build there."""
    if not working.linked:
        say.header(f"Copying the working directory {working.path}")
        try:
            await in_thread(reactor, copy, working.path, place)
        except OSError as error:
            raise BuildError(f"{working.path} could not be copied: {error}") from error
        return
    app = app_mount(working.path)
    if runtime.seen_at(container, app) != app.at:
        raise Refused(NO_LINK)
    say.header(f"Linked to the working directory {working.path}")
    for left in LEFT:
        await in_thread(reactor, clear_away, working.path, left)
    if not await shared(reactor, runtime, working):
        say.line(NOT_SHARED)


async def shared(reactor: Any, runtime: Runtime, working: Working | None) -> bool:
    """Let service and developer both write in a directory that is linked; False if it cannot be."""
    if working is None or not working.linked:
        return True
    try:
        return await in_thread(reactor, runtime.share, working.path)
    except OSError:
        return False
