"""How a container ends: asked first, killed then, and nothing of it left."""

from __future__ import annotations

import signal
from typing import Any

from twisted.internet.defer import Deferred

from containers import stopping
from containers.lxc.cgroups import INIT, SHELL, Cgroups
from containers.proc import open_processes
from containers.watching import all_ended, in_thread, within

# Seconds for LXC to take away what it made. To unmount what was written waits for the disk, which
# may have much to do.
MONITORS_END = 15.0


async def ask(reactor: Any, cgroups: Cgroups, name: str, grace: float) -> None:
    """TERM to all of a service, and wait until all of it has ended, at most `grace` seconds."""
    cgroups.freeze(name, False)
    found = await in_thread(reactor, cgroups.members, name)
    shell, init = ([one.process for one in found if one.inside == which] for which in (SHELL, INIT))
    stopping.tell(shell, signal.SIGUSR1)
    asked = [one.process for one in found if one.inside > SHELL]
    await stopping.term(reactor, asked, init, grace)


async def kill(reactor: Any, cgroups: Cgroups, name: str) -> None:
    """End a container at once, if there is one, and remove what its monitor left, if that was
    killed.

    The kernel ends all that is in the namespace of an init that is killed; then its monitor takes
    away what LXC made, and ends.
    """
    if not cgroups.exists(name):
        return
    young = False
    while members := await in_thread(reactor, cgroups.members, name):
        young = not any(one.inside == SHELL for one in members)
        cgroups.freeze(name, False)  # what stands still does not even die
        ending = [one.process for one in members]
        inits = [one.process for one in members if one.inside == INIT]
        await stopping.kill(reactor, inits or ending, ending)
    if young:  # its monitor would wait for ever for what init was about to tell it
        stopping.tell(cgroups.monitors(name), signal.SIGKILL)
    over = Deferred.fromCoroutine(all_ended(reactor, open_processes(cgroups.monitors(name))))
    if not await within(reactor, over, MONITORS_END):
        stopping.tell(cgroups.monitors(name), signal.SIGKILL)
    cgroups.remove(name)
