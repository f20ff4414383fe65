"""Which saves of a developer are deployed, and which sources nobody asks any more."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from attrs import evolve
from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase, TestCase

from hooks.layout import Layout
from hooks.ledger import Launch, Serving
from hooks.naming import Release
from hooks.orders import Orders
from hooks.standing import Source, StandingOrders
from hooks.working import Working, look
from receiver.headquarters import ordered as phases
from receiver.headquarters import workplaces
from receiver.headquarters.bringing import Bringing
from receiver.headquarters.loop import Loop
from receiver.headquarters.ordered import Ordered
from receiver.headquarters.workplaces import Workplaces, lasting
from tests.hooks.scene import scratch

UNBOUND = {"DEVMODE_UNBIND_GIT_DIR": "true"}
SOURCE = Source("https://example.com/app", "main")
LONG_AGO = time.time() - 3600


def standing(path: str = "app", **environment: str) -> StandingOrders:
    return StandingOrders(path, SOURCE, environment, "digest")


class Saves(TestCase):
    def setUp(self) -> None:
        layout = Layout(scratch(self))
        ship: Any = SimpleNamespace(
            reactor=reactor, layout=layout, settings=SimpleNamespace(devmode=True)
        )
        self.patch(workplaces, "REST", 0)
        self.places = Workplaces(ship, sources=SimpleNamespace())  # type: ignore[arg-type]
        self.tree = layout.working / "app"
        self.tree.mkdir(parents=True)
        self.save("file", "one")

    def save(self, name: str, text: str, when: float = LONG_AGO) -> None:
        path = self.tree / name
        path.write_text(text)
        os.utime(path, (when, when))

    async def ordered(self, phase: str, **environment: str) -> Ordered:
        """A service that was deployed as the tree is now."""
        one = Ordered(standing(**environment), phase=phase)
        one.commit = (await self.places.found(one.standing)).commit
        return one

    async def test_a_copy(self) -> None:
        """Each save is one; what is deployed already is none, and nothing is while it deploys."""
        one = await self.ordered(phases.LIVE, **UNBOUND)
        self.assertFalse(await self.places.changed(one))
        self.save("file", "more")
        self.assertTrue(await self.places.changed(one))
        for phase in (phases.DEPLOYING, phases.WAITING, phases.STOPPED, phases.UNREACHABLE):
            one.phase = phase
            self.assertFalse(await self.places.changed(one))
        one.phase = phases.FAILED
        self.assertTrue(await self.places.changed(one))

    async def test_in_the_middle_of_it(self) -> None:
        """What was saved this moment may not be all; a clock that is ahead holds nothing up."""
        one = await self.ordered(phases.LIVE, **UNBOUND)
        self.save("file", "more", time.time())
        self.assertFalse(await self.places.changed(one))
        self.save("file", "more", time.time() + 3600)
        self.assertTrue(await self.places.changed(one))

    async def test_linked(self) -> None:
        """Only what the ship itself reads is one."""
        one = await self.ordered(phases.LIVE)
        self.save("file", "more")
        self.assertFalse(await self.places.changed(one))
        self.save("Procfile", "web: x")
        self.assertTrue(await self.places.changed(one))
        (self.tree / "Procfile").unlink()
        self.assertFalse(await self.places.changed(one))
        (self.tree / "Procfile").symlink_to("file")
        self.assertTrue(await self.places.changed(one))

    async def test_linked_and_failed(self) -> None:
        """Every save is one, but not what the build that failed wrote itself."""
        one = await self.ordered(phases.FAILED)
        self.save("built", "by the build")
        await self.places.failed(one)
        self.assertFalse(await self.places.changed(one))
        self.save("file", "mended")
        self.assertTrue(await self.places.changed(one))

    async def test_a_directory_that_is_away(self) -> None:
        """Is nothing to deploy, and no error."""
        for environment in ({}, UNBOUND):
            one = await self.ordered(phases.LIVE, **environment)
            self.tree.rename(self.tree.with_name("away"))
            self.assertFalse(await self.places.changed(one))
            self.tree.with_name("away").rename(self.tree)

    async def test_a_look_that_took_long(self) -> None:
        """Is not repeated at once, however often somebody asks."""
        self.patch(workplaces, "REST", 10**9)
        one = await self.ordered(phases.LIVE, **UNBOUND)
        self.save("file", "more")
        self.assertTrue(await self.places.changed(one))
        self.assertFalse(await self.places.changed(one))


class Lasting(SynchronousTestCase):
    def test_what_is_linked_already_serves(self) -> None:
        """It keeps its stamp while it is linked to the same directory under the same orders."""
        working = Working(Path("/w/app"), linked=True)
        release = Release("/app", "c" * 12, look(scratch(self)).commit)
        orders = Orders(None, release, "ann", "", {}, {}, None, None, working=working)
        launch = Launch((), {}, working="/w/app", linked=True)
        older = evolve(release, commit="d261121d1814230123456789")
        serving = Serving(older, "ann", "", launch, "h", 1, 0.0, None)
        self.assertEqual(lasting(orders, serving).release, older)
        for other in (
            None,
            evolve(serving, launch=evolve(launch, linked=False)),
            evolve(serving, launch=evolve(launch, working="/w/other")),
            evolve(serving, release=evolve(older, configuration="d" * 12)),
        ):
            self.assertEqual(lasting(orders, other).release, release)
        copied = evolve(orders, working=evolve(working, linked=False))
        self.assertEqual(lasting(copied, serving).release, release)


class Followed(SynchronousTestCase):
    def test_what_is_told_of_its_source_is_not_about_it(self) -> None:
        """The headquarters' own repository is asked in any case: where another branch of it is, and
        that it is lost, concerns no service that is developed."""
        brought: list[Ordered] = []
        self.patch(Bringing, "bring", lambda _, one: brought.append(one))
        nothing: Any = None
        bringing = Bringing(nothing, nothing, nothing)
        bringing.workplaces = SimpleNamespace(has=lambda one: one.path == "a")  # type: ignore[assignment]
        bringing.ordered = {path: Ordered(standing(path)) for path in ("a", "b")}
        loop = Loop(nothing, nothing, nothing, bringing, nothing)
        loop.lost(SOURCE, "it is gone")
        self.flushLoggedErrors()
        waits = [one.phase for one in bringing.ordered.values()]
        self.assertEqual(waits, [phases.WAITING, phases.UNREACHABLE])
        loop.moved(SOURCE, "c" * 40)
        self.assertEqual(brought, [bringing.ordered["b"]])

    def test_a_source_that_was_cloned_is_not_asked(self) -> None:
        """Unless somebody else follows it: a remote, or a service that is not developed."""
        home, other = Source("https://example.com/hq"), Source("https://example.com/other")
        seen: list[set[Source]] = []
        developed = {"a", "b"}
        bringing = SimpleNamespace(
            workplaces=SimpleNamespace(has=lambda one: one.path in developed)
        )
        nothing: Any = None
        loop = Loop(nothing, nothing, nothing, bringing, nothing)  # type: ignore[arg-type]
        loop._following = SimpleNamespace(follow=lambda sources: seen.append(set(sources)))  # type: ignore[assignment]
        loop.location = home
        orders = {"a": standing("a"), "b": evolve(standing("b"), source=other)}
        for remotes, more in (({}, {}), ({"r": other}, {}), ({}, {"c": standing("c")})):
            named = {**orders, **more}
            sources = {one.source for one in named.values()} | set(remotes.values())
            loop.headquarters = SimpleNamespace(orders=named, remotes=remotes, sources=sources)  # type: ignore[assignment]
            loop._follow()
        self.assertEqual(seen, [{home}, {home, other}, {home, SOURCE}])
