"""Building in a container: the buildpack protocol, where its places are, and what comes out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define, frozen

from buildpacks.build import Outcome, Output, build
from buildpacks.launch import launch_argv, launch_script, write_env_dir
from buildpacks.packs import PROVIDED, BuildError, Built, Pack
from buildpacks.remote import fetch, parse_buildpack_url
from containers.files import remove
from containers.interface import Container, Exit, Limits, Mount, Runtime
from containers.spawn import run
from containers.watching import in_thread
from hooks.layout import Layout
from hooks.orders import Orders
from hooks.say import Say
from hooks.settings import Settings

FETCH_SECONDS = 120.0
ROOTS_VARIABLES = (
    "SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO",
)  # fmt: skip
SCRIPT = "web"  # the launch script's name, in the container's directory `start`


@define(eq=False)
class Workshop:
    """Makes containers runnable. `tools` is a directory of programs for the packs (uv);
    `git_env` what git needs to fetch a buildpack from elsewhere."""

    reactor: Any
    runtime: Runtime
    layout: Layout
    settings: Settings
    tools: Path
    git_env: Mapping[str, str]

    async def build(self, container: Container, orders: Orders, say: Say) -> Built:
        """Lay the source, choose a buildpack, let it compile; what comes out is `container.app`.

        It is built below the service's cache, so that both are on one mount and a pack can link
        what it kept instead of copying it. Raises `BuildError`.
        """
        chosen = await self._chosen(orders.environment.get("BUILDPACK_URL", ""), say)
        cache = self.layout.cache(orders.service)
        place = self.layout.build_place(cache, container.name)
        await in_thread(self.reactor, _fresh, place)
        try:
            await orders.repository.lay(orders.release.commit, place, self.layout.scratch)
            built = await self._compile(container, orders, chosen, cache, say)
            _move(place, container.app)
        finally:
            await in_thread(self.reactor, _clear, place.parent)
        return built

    async def _compile(
        self, container: Container, orders: Orders, chosen: Pack | None, cache: Path, say: Say
    ) -> Built:
        env_dir = container.directory / "env"
        write_env_dir(env_dir, orders.environment)
        site = _Site(self, container, (chosen,) if chosen else PROVIDED, cache, env_dir)
        own = [env_dir, site.place]
        await in_thread(self.reactor, self.runtime.own, container, own)
        env = {**self.settings.build_env, **site.roots, "STARPHLEET_TOOLS": site.tools}
        env["STARPHLEET_APP"] = self.runtime.app_at(container)
        try:
            return await build(
                site, PROVIDED, chosen=chosen, env=env, say=say.plain, output=say.output
            )
        finally:
            shutil.rmtree(env_dir, ignore_errors=True)

    async def ready(self, container: Container, command: str, built: Built) -> tuple[str, ...]:
        """Write the script that starts `command`; the argv that runs it in `container`."""
        script = container.directory / "start" / SCRIPT
        script.parent.mkdir(exist_ok=True)
        app = self.runtime.app_at(container)
        script.touch(mode=0o600)
        script.write_text(launch_script(command, built.config_vars, app=app))
        await in_thread(self.reactor, self.runtime.own, container, [script.parent])
        mount = start_mount(container)
        return tuple(launch_argv(f"{self.runtime.seen_at(container, mount)}/{SCRIPT}"))

    async def _chosen(self, wish: str, say: Say) -> Pack | None:
        if not wish:
            return None
        url, ref = parse_buildpack_url(wish)
        say.header(f"Fetching the buildpack of BUILDPACK_URL{f', {ref}' if ref else ''}")

        async def on_the_ship(
            argv: Sequence[str], env: Mapping[str, str], output: Output
        ) -> Outcome:
            limits = Limits(seconds=FETCH_SECONDS)
            done = await run(self.reactor, argv, env=env, output=output, limits=limits)
            return outcome(done.exit)

        return await fetch(url, ref, self.layout.buildpacks, on_the_ship, self.git_env)


def _fresh(place: Path) -> None:
    """Make the directory `place`, in a parent of its own, in a cache that may not be there yet."""
    cache = place.parent.parent
    cache.mkdir(exist_ok=True)
    os.utime(cache)  # when it was last of use
    _clear(place.parent)
    place.parent.mkdir()
    place.mkdir(mode=0o700)


def _clear(directory: Path) -> None:
    """Remove what is there. A build may have put a link in its place: it is never followed."""
    if directory.is_symlink() or directory.is_file():
        directory.unlink()
    remove(directory)


def _move(place: Path, app: Path) -> None:
    """Put what was built where it runs; nothing of the build is alive that could interfere."""
    if any(path.is_symlink() or not path.is_dir() for path in (place.parent, place)):
        raise BuildError("the build replaced its own directory by something else")
    app.rmdir()
    place.rename(app)


def start_mount(container: Container) -> Mount:
    """Where the launch script is, for the service alone."""
    return Mount(container.directory / "start", "/start")


def outcome(exit: Exit) -> Outcome:
    """How a command ended, in the words of the buildpacks' room."""
    killed = f"signal {exit.signal}" if exit.signal is not None else ""
    return Outcome(exit.status, exit.reason or killed)


@frozen
class _Site:
    """A container as a place to build in (the protocol `buildpacks.build.Site`)."""

    workshop: Workshop
    container: Container
    packs: tuple[Pack, ...]
    cache_source: Path
    env_source: Path

    @property
    def place(self) -> Path:
        return self.workshop.layout.build_place(self.cache_source, self.container.name)

    @property
    def app(self) -> str:
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

    async def run(self, argv: Sequence[str], env: Mapping[str, str], output: Output) -> Outcome:
        mounts = [self._cache_mount, self._env_mount, self._tools_mount, *self._roots_mount]
        mounts += dict.fromkeys(map(self._pack_mount, self.packs))
        exit = await self.workshop.runtime.run(
            self.container,
            argv,
            env=env,
            output=output,
            limits=self.workshop.settings.build_limits,
            mounts=mounts,
        )
        return outcome(exit)

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
