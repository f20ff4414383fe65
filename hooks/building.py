"""Building in a container: the buildpack protocol, where its places are, and what comes out."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define

from buildpacks.build import Outcome, Output, build
from buildpacks.launch import launch_argv, launch_script, write_env_dir
from buildpacks.packs import PROVIDED, BuildError, Built, Pack
from buildpacks.remote import fetch, parse_buildpack_url
from containers.files import remove
from containers.interface import Container, Limits, Runtime
from containers.spawn import run
from containers.watching import in_thread
from hooks import linking
from hooks.elsewhere import Fetching, elsewhere, origin_of
from hooks.errors import Unreachable
from hooks.layout import Layout
from hooks.linking import lay_working
from hooks.mounts import ANY, job_script, shared, start_mount
from hooks.orders import Orders
from hooks.repository import Repository
from hooks.say import Say
from hooks.settings import Settings
from hooks.site import Site, outcome
from hooks.standing import Job

FETCH_SECONDS = 120.0
IN_THE_APP = 'cd "$1" && exec "$0"'
NOTHING = Built("none", "", {}, {})
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
        what it kept instead of copying it. `on_containerize` and `after_containerize` of standing
        orders run before and after. Raises `BuildError`.
        """
        chosen = await self._chosen(orders.environment.get("BUILDPACK_URL", ""), say)
        cache = self.layout.cache(orders.service)
        place = self.layout.build_place(cache, container.name)
        await in_thread(self.reactor, _fresh, place)
        try:
            await self._lay(container, orders, cache, place, say)
            await self._prescribed("on_containerize", container, orders, cache, say)
            built = NOTHING
            if orders.has_source:
                built = await self._compile(container, orders, chosen, cache, say)
            await self._prescribed("after_containerize", container, orders, cache, say)
            if orders.linked is None:
                _move(place, container.app)
        finally:
            await in_thread(self.reactor, _clear, place.parent)
            await linking.shared(self.reactor, self.runtime, orders.working)  # what it made, too
        return built

    async def _lay(
        self, container: Container, orders: Orders, cache: Path, place: Path, say: Say
    ) -> None:
        """Write the source into `place`; one that is linked is where it is."""
        if orders.repository is not None:
            await orders.repository.lay(orders.release.commit, place, self.layout.scratch)
            await self._complete(orders.repository, container, orders, cache, say)
        elif orders.working is not None:
            reactor, runtime = self.reactor, self.runtime
            await lay_working(reactor, runtime, container, orders.working, place, say)

    async def _complete(
        self, repository: Repository, container: Container, orders: Orders, cache: Path, say: Say
    ) -> None:
        """Fetch what the commit keeps elsewhere."""
        wanted = await elsewhere(repository, orders.release.commit)
        if not wanted.submodules and not wanted.large:
            return
        site = Site(self, container, (), cache, self.layout.scratch, ordered=False)
        await in_thread(self.reactor, self.runtime.own, container, [site.place])
        env = {**self.settings.build_env, **site.roots}
        search = self.git_env.get("PATH", "")
        await Fetching(site.run, site.app, site.cache, env, search, say).fetch(
            wanted, origin_of(orders)
        )

    async def _compile(
        self, container: Container, orders: Orders, chosen: Pack | None, cache: Path, say: Say
    ) -> Built:
        env_dir = container.directory / "env"
        write_env_dir(env_dir, orders.environment)
        packs = (chosen,) if chosen else PROVIDED
        ordered, app = orders.standing is not None, orders.linked
        site = Site(self, container, packs, cache, env_dir, ordered, app)
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

    async def _prescribed(
        self, name: str, container: Container, orders: Orders, cache: Path, say: Say
    ) -> None:
        """Run the executable `name` beside the orders, in the app's directory; none is no harm."""
        if orders.standing is None or name not in orders.standing.files:
            return
        if not orders.standing.files[name].executable:
            say.header(f"{name} is not executable, so it does not run: chmod +x")
            return
        say.header(f"Running {name}")
        scratch, app = self.layout.scratch, orders.linked
        site = Site(self, container, (), cache, scratch, ordered=True, linked=app)
        await in_thread(self.reactor, self.runtime.own, container, [site.place])
        script = f"{self.runtime.seen_at(container, shared(self.layout, container)[1])}/{name}"
        env = {**self.settings.build_env, **site.roots, **orders.environment}
        env |= {"ORDERS_IN": site.app, "ORDERS_NAME": orders.service.lstrip("/")}
        argv = ["/bin/sh", "-c", IN_THE_APP, script, site.app]
        ended = await site.run(argv, env, say.output, root=True)
        if not ended.ok:
            raise BuildError(f"{name}: {ended}")

    async def ready(
        self, container: Container, command: str, built: Built, jobs: Sequence[Job]
    ) -> tuple[str, ...]:
        """Write the scripts that start `command` and each job, all in the same environment; the
        argv that runs the command in `container`.
        """
        beside = self.runtime.seen_at(container, shared(self.layout, container)[1])
        scripts: dict[str, str | None] = {SCRIPT: command, ANY: None}
        scripts |= {job_script(job.name): shlex.quote(f"{beside}/{job.name}") for job in jobs}
        directory = container.directory / "start"
        directory.mkdir(exist_ok=True)
        for name, line in scripts.items():
            script = directory / name
            script.touch(mode=0o600)
            app = self.runtime.app_at(container)
            script.write_text(launch_script(line, built.config_vars, app=app))
        await in_thread(self.reactor, self.runtime.own, container, [directory])
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

        try:
            return await fetch(url, ref, self.layout.buildpacks, on_the_ship, self.git_env)
        except BuildError as error:
            raise Unreachable(str(error)) from error


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
