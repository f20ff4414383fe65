"""What containers stand on: stacks of read-only root file systems, made when first asked for.

Every file of a base belongs to the user that `idmap` has for its owner, so that the base can be
the lower layers of an unprivileged container's overlay as it is.
"""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from containers.interface import ContainerError, Exit, Limits
from containers.lxc import store
from containers.lxc.backup import restore
from containers.lxc.fetch import fetch
from containers.lxc.images import pull
from containers.lxc.kinds import (
    FULL,
    PROVIDED,
    Archive,
    Base,
    Image,
    Restored,
    Script,
    Standard,
    key,
    label,
    parse,
    restored,
)
from containers.lxc.progress import Lines, Progress
from containers.lxc.sharing import Say, Shared
from containers.lxc.worker import BEHIND, Worker, settle
from containers.room import Room, bounded
from containers.spawn import Completed, run
from containers.watching import in_thread

__all__ = [
    "Archive",
    "Base",
    "Bases",
    "Image",
    "Provision",
    "Say",
    "Script",
    "Standard",
    "label",
    "parse",
]

Provision = Callable[[Sequence[Path], Path, bytes, Say], Awaitable[Exit]]
"""Runs a script as the container's root: (layers below, topmost first; the directory that becomes
the new top layer; the script's text; progress)."""

BELOW_SCRIPTS = Standard(FULL)
SECONDS = 1800.0  # for the provided script
CAUSES = ("E: ", "dpkg: error", "starphleet-base: ")
MOST_FETCHED = 8 << 30  # bytes of an archive
MOST_UNPACKED = 32 << 30  # bytes, and at most half of what is free


class Bases:
    """Makes bases below `root`, finds and collects them. A base is its content: see `kinds.key`.

    `script` is the provided `starphleet-base`; `env` has PATH, and says which proxies and roots
    downloads use. One may come to take `most` bytes, and leaves `least` free on the disk.
    """

    def __init__(
        self,
        reactor: Any,
        root: Path,
        *,
        script: Path,
        provision: Provision,
        env: Mapping[str, str],
        most: int | None = None,
        least: int = 0,
    ) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._reactor = reactor
        self._root = root
        self._script = script
        self._provision = provision
        self._env = env
        self._most, self._least = most, least
        self._worker = Worker(reactor)
        self._provided = script.read_bytes() + _distribution().encode()
        self._making: dict[str, tuple[Base, Shared]] = {}

    def named(self, text: str, scripts: Mapping[str, bytes]) -> Base:
        """The base that a value of `STARPHLEET_BASE` means here: see `kinds.parse`; what was
        restored under this name, if no script and nothing provided has it."""
        if text not in scripts and text not in PROVIDED and _is_restored(self._root, text):
            return restored(text)
        return parse(text, scripts)

    def find(self, base: Base) -> tuple[Path, ...] | None:
        """The layers of `base`, topmost first, if it is made whole."""
        layers = [store.layer(self._root, self._name(part)) for part in _stack(base)]
        return tuple(layer for layer in layers if layer) if all(layers) else None

    async def layers(self, base: Base, say: Say) -> tuple[Path, ...]:
        """The layers of `base`, topmost first; it is made if it is not there.

        It is made once however many ask: each gets the outcome, and every line of progress in
        `say`. Cancelling one leaves it to the others. Raises `ContainerError` with one line.
        """
        name = self._name(base)
        while (found := self.find(base)) is None:
            _, shared = self._making.get(name, (base, None))
            if shared is None:
                await self._begin(base, name, say)
            elif shared.left:
                await shared.ended()
            else:
                await shared.join(say)
        store.touch(found)
        return found

    async def collect(self, used: Collection[Path], *, age: float, budget: int) -> list[str]:
        """Remove bases without a layer in `used` that nobody asked for in the last `age` seconds,
        and the oldest of them while all together have more than `budget` bytes; and what was left
        half-made. Answers what was removed, for people. What a base that stays stands on stays.
        """
        # What goes is put aside in the turn that decides it: nobody can be given it any more.
        gone = [store.put_aside(path) for path in store.left_over(self._root, self._in_use(()))]
        bases = await in_thread(self._reactor, store.kept, self._root)
        before = time.time() - age
        going = store.going(bases, self._in_use(used), before=before, budget=budget)
        going = [base for base in going if store.unasked(self._root, base)]
        gone += [store.put_aside(self._root / base.name) for base in going]
        for path in gone:
            await in_thread(self._reactor, store.discard, path)
        return [base.label for base in going]

    def _in_use(self, used: Collection[Path]) -> set[str]:
        making = {self._name(part) for base, _ in self._making.values() for part in _stack(base)}
        return making | {path.parent.name for path in used if path.parent.parent == self._root}

    def _name(self, base: Base) -> str:
        return key(base, self._provided)

    async def _begin(self, base: Base, name: str, say: Say) -> None:
        shared = Shared()
        joined = shared.join(say)
        self._making[name] = (base, shared)
        shared.start(self._made(base, name, shared))
        await joined

    async def _made(self, base: Base, name: str, shared: Shared) -> None:
        try:
            await self._make(base, name, Progress(self._reactor, shared.say, label(base)))
        except (ContainerError, OSError) as error:
            raise ContainerError(f"{label(base)}: {error}") from error
        finally:
            del self._making[name]

    async def _make(self, base: Base, name: str, progress: Progress) -> None:
        """Make it beside, then rename; a failure or a cancellation leaves nothing."""
        new = store.beside(self._root, name)
        try:
            await settle(self._reactor, store.begin, new)
            below = await self.layers(BELOW_SCRIPTS, progress.say) if len(_stack(base)) > 1 else ()
            progress.begin()
            filling = self._fill(base, new, below, progress)
            room = Room((new,), self._most, self._least)
            made, size = await bounded(self._reactor, filling, room)
            await run(self._reactor, ["sync", "-f", str(new)], env=self._env)
            under = below[0].parent.name if below else ""
            await settle(self._reactor, store.finish, new, made, label(base), under, size)
        except BaseException:
            await settle(self._reactor, store.discard, new)
            raise
        progress.end(size)

    async def _fill(
        self, base: Base, new: Path, below: Sequence[Path], progress: Progress
    ) -> tuple[Path, int]:
        """Make the layer of `base` in the directory `new`; answers where it is."""
        match base:
            case Standard(variant):
                return await self._standard(variant, new, progress)
            case Script():
                return await self._scripted(base, new, below, progress)
            case Archive():
                return await self._archive(base, new, progress)
            case Restored(_, source):
                return await self._restored(source, new, progress)
            case Image():
                made = await pull(self._reactor, base, new, self._env, progress.stage)
                return made, await self._worker.shift(made)

    async def _standard(self, variant: str, new: Path, progress: Progress) -> tuple[Path, int]:
        made = new / store.LAYER
        argv = [*BEHIND, "/bin/sh", str(self._script), variant, str(made)]
        lines = Lines(progress.stage)
        done = await run(
            self._reactor,
            argv,
            env={**self._env, "LC_ALL": "C"},
            output=lines.take,
            limits=Limits(seconds=SECONDS),
            merge=False,
        )
        if not done.exit.ok:
            raise ContainerError(_why(done))
        size = await self._worker.shift(made)
        progress.stage("handed its files to the container's users")
        return made, size

    async def _scripted(
        self, base: Script, new: Path, below: Sequence[Path], progress: Progress
    ) -> tuple[Path, int]:
        made = store.empty_layer(new)
        exit = await self._provision(below, made, base.text, progress.say)
        if not exit.ok:
            how = f"with status {exit.status}" if exit.signal is None else f"by {exit.signal}"
            raise ContainerError(f"its script {exit.reason or 'ended ' + how}")
        progress.stage("ran its script")
        return made, await self._worker.size(made)

    async def _restored(self, source: str, new: Path, progress: Progress) -> tuple[Path, int]:
        if not source:
            raise ContainerError("its backup is gone")
        file = Path(source)
        if "://" in source:
            file = new / "archive"
            await fetch(self._reactor, source, file, most=MOST_FETCHED, env=self._env)
            progress.stage("fetched the backup")
        made = new / store.LAYER
        await restore(self._reactor, file, made)
        progress.stage("unpacked it")
        return made, await self._worker.size(made)

    async def _archive(self, base: Archive, new: Path, progress: Progress) -> tuple[Path, int]:
        file = new / "archive"
        await fetch(self._reactor, base.url, file, most=MOST_FETCHED, env=self._env)
        progress.stage("fetched the archive")
        if base.sha256 and (found := await self._worker.checksum(file)) != base.sha256:
            raise ContainerError(f"its SHA-256 is {found}, not {base.sha256}")
        made = store.empty_layer(new)
        free = shutil.disk_usage(new).free
        size = await self._worker.unpack(file, made, min(MOST_UNPACKED, free // 2))
        progress.stage("unpacked it")
        return store.inner(made), size


def _is_restored(root: Path, name: str) -> bool:
    try:
        return store.layer(root, key(restored(name), b"")) is not None
    except ContainerError:
        return False


def _stack(base: Base) -> tuple[Base, ...]:
    return (base, BELOW_SCRIPTS) if isinstance(base, Script) else (base,)


def _distribution() -> str:
    """The distribution that the provided script takes packages of."""
    with suppress(OSError):
        release = platform.freedesktop_os_release()
        return f"{release.get('ID', '')} {release.get('VERSION_CODENAME', '')}"
    return ""


def _why(done: Completed) -> str:
    """What the provided script, mmdebstrap or apt says went wrong: what is first is the cause."""
    lines = done.errors.decode(errors="replace").strip().splitlines()
    causes = [line for line in lines if line.startswith(CAUSES)]
    return done.exit.reason or (causes or lines[-1:] or ["it was killed"])[0]
