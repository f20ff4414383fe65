"""A container as a place to build in: what a build sees there, and how its commands run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from buildpacks.build import Outcome, Output
from buildpacks.packs import Pack
from containers.files import remove
from containers.interface import Container, Exit, Mount
from containers.room import NoRoom, Room, bounded
from containers.watching import in_thread
from hooks.linking import app_mount
from hooks.mounts import shared

if TYPE_CHECKING:
    from hooks.building import Workshop

ROOTS_VARIABLES = (
    "SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO",
)  # fmt: skip


def outcome(exit: Exit) -> Outcome:
    """How a command ended, in the words of the buildpacks' room."""
    killed = f"signal {exit.signal}" if exit.signal is not None else ""
    return Outcome(exit.status, exit.reason or killed)


@frozen
class Site:
    """A container as a place to build in (the protocol `buildpacks.build.Site`)."""

    workshop: Workshop
    container: Container
    packs: tuple[Pack, ...]
    cache_source: Path
    env_source: Path
    ordered: bool
    linked: Path | None = None

    @property
    def place(self) -> Path:
        return self.workshop.layout.build_place(self.cache_source, self.container.name)

    @property
    def app(self) -> str:
        if self.linked is not None:
            return self._seen(app_mount(self.linked))
        return f"{self.cache}/{self.place.relative_to(self.cache_source)}"

    @property
    def cache(self) -> str:
        return self._seen(self._cache_mount)

    @property
    def env_dir(self) -> str:
        return self._seen(self._env_mount)

    @property
    def tools(self) -> str:
        return self._seen(self._tools_mount)

    @property
    def roots(self) -> dict[str, str]:
        """Where each package client finds the certificate authorities that the ship trusts."""
        return {name: self._seen(mount) for mount in self._roots_mount for name in ROOTS_VARIABLES}

    def pack(self, pack: Pack) -> str:
        seen = self._seen(self._pack_mount(pack))
        return f"{seen}/{pack.at}" if pack.at else seen

    async def run(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        output: Output,
        *,
        root: bool = False,
        online: bool = True,
    ) -> Outcome:
        mounts = [self._cache_mount, self._env_mount, self._tools_mount, *self._roots_mount]
        mounts += dict.fromkeys(map(self._pack_mount, self.packs))
        mounts += shared(self.workshop.layout, self.container) if self.ordered else ()
        mounts += [app_mount(self.linked)] if self.linked is not None else ()
        workshop, limits = self.workshop, self.workshop.settings.build_limits
        running = workshop.runtime.run(
            self.container,
            argv,
            env=env,
            output=output,
            limits=limits,
            mounts=mounts,
            root=root,
            online=online,
        )
        writes = [self.container.directory, self.cache_source]
        writes += [self.linked] if self.linked is not None else ()
        room = Room(tuple(writes), limits.disk, workshop.settings.free_disk)
        try:
            return outcome(await bounded(workshop.reactor, running, room))
        except NoRoom as error:  # what fills the disk may be what it kept
            await in_thread(workshop.reactor, remove, self.cache_source)
            return outcome(Exit(reason=str(error)))

    @property
    def _cache_mount(self) -> Mount:
        return Mount(self.cache_source, "/cache", writable=True)

    @property
    def _env_mount(self) -> Mount:
        return Mount(self.env_source, "/env")

    @property
    def _tools_mount(self) -> Mount:
        return Mount(self.workshop.tools, "/tools")

    @property
    def _roots_mount(self) -> tuple[Mount, ...]:
        roots = self.workshop.settings.roots
        return (Mount(roots, "/roots.pem"),) if roots else ()

    def _pack_mount(self, pack: Pack) -> Mount:
        return Mount(pack.mount, "/buildpacks")

    def _seen(self, mount: Mount) -> str:
        return self.workshop.runtime.seen_at(self.container, mount)
