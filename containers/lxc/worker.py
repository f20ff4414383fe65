"""The work on root file systems that takes long, in a process of its own: it can be ended, and the
ship serves meanwhile. `python -m containers.lxc.worker VERB …`; a failure is one line on stderr."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred

from containers.interface import ContainerError, Limits
from containers.lxc.pack import pack
from containers.lxc.tree import furnish, shift, size_of
from containers.lxc.unpack import unpack
from containers.spawn import run
from containers.watching import in_thread, shielded

P = ParamSpec("P")

SECONDS = 1800.0
# Services come first, and nothing goes on where the ship has been killed.
BEHIND = ("/usr/bin/nice", "-n", "10", "/usr/bin/setpriv", "--pdeathsig", "KILL", "--")
MEMORY = 1 << 30  # bytes; what xz may ask for is in it


@frozen
class Worker:
    """Runs one piece of work, in a process of its own; cancelling ends it."""

    reactor: Any

    async def unpack(self, file: Path, directory: Path, budget: int) -> int:
        """Make the empty `directory` the root file system that is in `file`, shifted, whole.

        Where the archive has a `rootfs/`, that is it, and is `directory / "rootfs"` then.
        Answers its bytes on disk.
        """
        return int(await self._do("unpack", str(file), str(directory), str(budget)))

    async def shift(self, directory: Path) -> int:
        """Hand the root file system in `directory`, as packages or images made it, to `idmap`.

        Answers its bytes on disk.
        """
        return int(await self._do("shift", str(directory)))

    async def pack(self, layers: Sequence[Path], file: Path) -> None:
        """Write layers, topmost first, into a new file, with the owners that are seen inside."""
        await self._do("pack", str(file), *map(str, layers))

    async def checksum(self, file: Path) -> str:
        """The SHA-256 of a file, in hexadecimal."""
        return await self._do("checksum", str(file))

    async def size(self, directory: Path) -> int:
        """Bytes on disk of a tree."""
        return int(await self._do("size", str(directory)))

    async def _do(self, *words: str) -> str:
        argv = [*BEHIND, sys.executable, "-I", "-m", __name__, *words]
        limits = Limits(seconds=SECONDS, memory=MEMORY)
        done = await run(self.reactor, argv, env={}, limits=limits, merge=False)
        if done.exit.ok:
            return done.output.decode().strip()
        lines = done.errors.decode(errors="replace").strip().splitlines()
        raise ContainerError(done.exit.reason or (lines[-1] if lines else "it was killed"))


async def settle(reactor: Any, work: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> None:
    """Do short work in a thread. Who is cancelled meanwhile goes on when the thread has ended."""
    ended = in_thread(reactor, work, *args, **kwargs)
    try:
        await shielded(_end_of(ended))
    except CancelledError:
        await ended
        raise


async def _end_of(work: Deferred[Any]) -> None:
    await work


def _unpack(file: str, directory: str, budget: str) -> None:
    with Path(file).open("rb") as source:
        os.chdir(directory)
        os.chroot(".")  # should a member lead out nevertheless, nothing is there
        here = Path()
        unpack(source, here, int(budget))
        inner = here / "rootfs"
        top = inner if inner.is_dir() and not inner.is_symlink() else here
        furnish(top)
        print(size_of(top))


def _shift(directory: str) -> None:
    print(shift(Path(directory)))
    furnish(Path(directory))


def _pack(file: str, *layers: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with os.fdopen(os.open(file, flags, 0o600), "wb") as target:
        pack([Path(layer) for layer in layers], target)
        os.fsync(target.fileno())


def _checksum(file: str) -> None:
    with Path(file).open("rb") as source:
        print(hashlib.file_digest(source, "sha256").hexdigest())


def _size(directory: str) -> None:
    print(size_of(Path(directory)))


VERBS: Mapping[str, Callable[..., None]] = {
    "unpack": _unpack,
    "shift": _shift,
    "pack": _pack,
    "checksum": _checksum,
    "size": _size,
}


def main(words: Sequence[str]) -> int:
    """Do what the words say; answers the exit status."""
    try:
        VERBS[words[0]](*words[1:])
    except (ContainerError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
