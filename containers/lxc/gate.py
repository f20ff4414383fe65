"""The last word before anything of a container runs. It is the ship's.

LXC has made the container, and its init waits. LXC's start-host hook, a line of shell in its
configuration, says into one pipe which process that is, and waits for a word in another. Then it
says that the container is up.
"""

from __future__ import annotations

import _thread
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from containers.collect import fire
from containers.lxc import network, nftables
from containers.lxc.cgroups import Setting
from containers.lxc.config import GO, UNBOUNDED, UP, Cage
from containers.watching import Reader


@contextmanager
def kept(reactor: Any, cage: Cage) -> Iterator[Deferred[str]]:
    """Answer the hook of one start. Fires with `UP` when it is, or why nothing of it may run."""
    told: Deferred[str] = Deferred()
    for pipe in (cage.files.up, cage.files.go):
        os.mkfifo(pipe, 0o600)
    fd = os.open(cage.files.up, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def said(words: bytes) -> None:
        for word in words.decode().split():
            if word == UP:
                fire(told, UP)
            elif word == UNBOUNDED:
                fire(told, "the kernel does not take its bounds: is /proc/sys read-only?")
            else:
                # One of its own: a thread that was in a container's network is good for nothing
                # else. And one that nobody waits for, as `threading` would until it runs.
                _thread.start_new_thread(_answer, (reactor, cage, int(word), told))

    reader = Reader(reactor, fd, said, told.errback)
    try:
        yield told
    finally:
        reader.drain()  # a short command may have ended before its word was read
        reader.close()


def _answer(reactor: Any, cage: Cage, init: int, told: Deferred[str]) -> None:
    try:
        why = secure(cage, init)
    except Exception as error:
        why = str(error)
    if why:  # told before the hook is, in whose end there is no reason
        reactor.callFromThread(fire, told, why)
    with suppress(OSError):  # the hook was killed meanwhile
        _say(cage.files.go, "no" if why else GO)


def _say(pipe: Path, word: str) -> None:
    fd = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(fd, f"{word}\n".encode())
    finally:
        os.close(fd)


def secure(cage: Cage, init: int) -> str:
    """Put in force what LXC does not, and look at what it did; why that is not so, or ""."""
    why = unlimited(cage.settings)
    if why or not cage.online:
        return why
    return unbounded(cage.plan.veth(cage.address), init, cage.port)


def unlimited(settings: Sequence[Setting]) -> str:
    """Which limit is not in force, or ""."""
    for one in settings:
        found = one.file.read_text().partition("\n")[0]
        if found != one.reads:
            return f"the limit {one.reads} is not in force: {one.file.name} {found}"
    return ""


def unbounded(veth: str, init: int, port: int | None) -> str:
    """Cut a container off from its neighbours, keep it to its own addresses and lead its ports to
    its service; why that cannot be, or "". Only in a thread that ends then."""
    try:
        (network.INTERFACES / veth / "brport" / "isolated").write_text("1")
    except OSError as error:
        return f"its network is not cut off: {error.strerror}"
    try:
        nftables.load(init, network.own(port))
    except (OSError, nftables.NftError) as error:
        return f"its network is not bounded: {error}"
    return ""
