"""The dashboard of a ship with services in every state, none of which runs.

What is asked of a ship is real where it holds something (ledger, queue, git, vitals, journal); the
rest is only said. `python -m tests.receiver.dashboard_scene DIRECTORY SERVICES RELEASES [hostile]`
serves it: it prints its port, and then takes `log LINE` and `say LINE` on stdin.
"""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO
from twisted.internet.threads import deferToThread

from hooks.journal.journal import Journal
from hooks.layout import Layout
from hooks.ledger import Entry, Launch, Ledger, Serving
from hooks.naming import Release
from hooks.orders import Orders
from hooks.queue import Queue
from hooks.repository import Repository
from hooks.settings import Settings
from hooks.standing import Job, Place, Source, StandingOrders
from hooks.underway import Deploys, Underway
from hooks.vitals import Sample, Vitals, write
from receiver.headquarters import ordered as phases
from receiver.headquarters.ordered import Ordered
from receiver.web.dashboard import resource
from receiver.web.site import Access, Pages
from receiver.web.sources import Sources
from receiver.web.stream import Logstream

HOSTILE = (
    "<img src=x onerror=\"document.title='taken'\">'</script><script>taken=1</script>\x1b[31m&amp;"
)
SUBJECTS = (
    "Prices are rounded where the customer sees them", "Cache the index for a minute",
    "Search finds words with umlauts", "Drop the old checkout", "Update dependencies",
    "The form keeps what was typed when the connection breaks off half way through sending",
)  # fmt: skip
AUTHORS = ("Ada Lovelace", "Grace Hopper", "Mary Jackson", "Ann Example")
SOURCE = Source("https://git.example.org/fleet/services.git", "master")
BUILDING = """\
-----> Buildpack: python
-----> Installing Python 3.13.2
-----> Installing dependencies with uv
       Resolved 41 packages in 212ms
       Prepared 41 packages in 1.92s
       Installed 41 packages in 61ms
-----> Collecting static files
       128 static files copied to 'static'
-----> Starting web: gunicorn shop.wsgi --bind 0.0.0.0:$PORT""".splitlines()


async def git(
    argv: Sequence[str], *, env: Mapping[str, str], stdin: bytes = b""
) -> tuple[int, bytes]:
    done = await deferToThread(
        subprocess.run, argv, env=dict(env), input=stdin, capture_output=True, check=False
    )
    return done.returncode, done.stdout


def committed(repository: Repository, count: int, hostile: str) -> list[str]:
    """The ids of `count` new commits."""
    repository.ensure()
    lines = []
    for at in range(1, count + 1):
        subject = hostile or SUBJECTS[at % len(SUBJECTS)]
        author = hostile.translate({60: None, 62: None, 10: None}) or AUTHORS[at % len(AUTHORS)]
        lines += [
            f"commit refs/heads/master\nmark :{at}",
            f"author {author} <a@example.org> {int(time.time()) - at * 5000} +0000",
            f"committer A <a@example.org> {int(time.time()) - at * 5000} +0000",
            f"data {len(subject.encode())}\n{subject}\n",
        ]
    marks = repository.path / "marks"
    subprocess.run(
        ["git", "--git-dir", repository.path, "fast-import", "--quiet", f"--export-marks={marks}"],
        input="\n".join(lines).encode(),
        check=True,
    )
    found = dict(line.split() for line in marks.read_text().splitlines())
    return [found[f":{at}"] for at in range(1, count + 1)]


class Scene:
    """Puts services in their states. All text that comes from people is `hostile`, if given."""

    def __init__(self, reactor: Any, root: Path, hostile: str = "") -> None:
        self.reactor = reactor
        self.hostile = hostile
        self.now = time.time()
        self.layout = Layout(root)
        self.layout.prepare()
        self.ledger = Ledger(reactor, self.layout.ledger)
        self.queue = Queue(2, lambda: 0)
        self.settings = Settings(ship_name=hostile or "endeavour", host="ship.example.org")
        self.journal = Journal(reactor, self.layout, self.settings)
        self.held: list[Deferred[None]] = []
        self.ended: dict[str, str] = {}
        self.unwell: set[str] = set()
        self.asleep: set[str] = set()
        self.ordered: dict[str, Ordered] = {}
        self.refused: dict[str, str] = {}
        self.source = Repository(self.layout.sources / "fleet.git", git)
        self.commits = committed(self.source, 40, hostile)
        self.ship = self._ship()
        self.deploys = Deploys(self.ship)

    def _ship(self) -> Any:
        async def serving(service: str) -> Serving | None:
            return (await self.ledger.serving()).get(service)

        attendance = SimpleNamespace(unwell=self.unwell)
        return SimpleNamespace(
            reactor=self.reactor,
            layout=self.layout,
            settings=self.settings,
            ledger=self.ledger,
            runtime=SimpleNamespace(dropped=()),
            proxy=SimpleNamespace(
                traffic=SimpleNamespace(asleep=lambda: frozenset(self.asleep)), online=True
            ),
            services=SimpleNamespace(
                keeping=SimpleNamespace(ended=self.ended), attendance=attendance
            ),
            queue=self.queue,
            door=SimpleNamespace(certificates={}),
            journal=self.journal,
            vitals=Vitals(self.reactor, self.layout.vitals, self.layout.root),
            repository=lambda name: Repository(self.layout.repository(name), git),
            serving=serving,
        )

    @property
    def loop(self) -> Any:
        return SimpleNamespace(
            bringing=SimpleNamespace(ordered=self.ordered),
            headquarters=SimpleNamespace(
                held=frozenset(self.refused),
                refused={f"{path}/orders": why for path, why in self.refused.items()},
            ),
            location=Source("https://git.example.org/fleet/headquarters.git"),
            commit=self.commits[0],
            trouble="",
            following=SimpleNamespace(troubles={}),
            sources=SimpleNamespace(kept=lambda url: self.source),
        )

    def sources(self) -> Sources:
        return Sources(self.reactor, self.ship, self.deploys, self.loop, None)  # type: ignore[arg-type]

    def serving(self, service: str, at: int = 0, **more: Any) -> Serving:
        place = Place(f"{service}/") if service.startswith("/") else None
        return Serving(
            release=Release(service, "a" * 12, self.commits[at % len(self.commits)]),
            owner=self.hostile or AUTHORS[at % len(AUTHORS)].split()[0].lower(),
            branch="master",
            launch=Launch(
                ("bash",), {"STARPHLEET_DEPLOY_GITURL": f"{SOURCE.url}#{self.commits[0]}"}
            ),
            host="127.0.0.1",
            port=20000 + at % 8000,
            since=more.pop("since", self.now - 4000 * (at + 1)),
            expires=more.pop("expires", None),
            place=more.pop("place", place),
            **more,
        )

    def entry(
        self, service: str, at: int, outcome: str = "live", reason: str = "", ago: float = 0.0
    ) -> Entry:
        steps = {"build": 1.5 + at % 7, "start": 0.31, "check": 0.2 + at % 3, "switch": 0.02}
        if outcome != "live":
            steps = {"build": 0.9 + at % 4}
        began = self.now - ago
        commit = self.commits[at % len(self.commits)]
        owner = self.hostile or AUTHORS[at % len(AUTHORS)].split()[0].lower()
        why = "new commit" if service.startswith("/") else "pushed"
        release = str(Release(service, "a" * 12, commit))
        ended = began + sum(steps.values())
        return Entry(service, release, commit, owner, began, ended, outcome, reason, steps, why)

    async def live(self, service: str, at: int = 0, **more: Any) -> Serving:
        serving = self.serving(service, at, **more)
        await self.ledger.record(serving, self.entry(service, at, ago=self.now - serving.since))
        return serving

    def order(self, service: str, phase: str = phases.LIVE, reason: str = "", at: int = 0) -> None:
        path = service.removeprefix("/")
        standing = StandingOrders(path, SOURCE, {}, "", place=Place(f"/{path}/"))
        one = Ordered(standing, self.commits[at], phase, self.hostile or reason)
        self.ordered[path] = one

    def begin(self, service: str, at: int, lines: Sequence[str]) -> Underway:
        """A deploy that is under way, or waits if two are."""
        release = Release(service, "b" * 12, self.commits[at])
        orders = Orders(None, release, self.hostile or "ada", "master", {}, {}, None, None)
        if service.startswith("/"):
            orders = evolve(orders, why="new commit")
        one = self.deploys._underway[str(release)] = Underway(orders, began=time.time() - 14)
        for line in lines:
            one.transcript(line)
        self.held.append(Deferred.fromCoroutine(self._hold(service)))
        return one

    async def _hold(self, service: str) -> None:
        async with self.queue.berth(service, lambda ahead: None):
            await Deferred()

    async def every_state(self) -> None:
        """One service in each state, and a log."""
        await self.journal.open()
        say = self.hostile
        await self.live("/shop", 0, jobs=(Job(say or "nightly", "0 3 * * *"),))
        self.order("/shop")
        await self.live("/shop/api", 1)
        self.order("/shop/api", phases.DEPLOYING)
        self.begin("/shop/api", 7, [*BUILDING, *filter(None, [say])])
        await self.live("/blog", 2)
        why = say or "GET /health answered 500 for 60 s"
        self.order("/blog", phases.FAILED, why)
        await self.ledger.note(self.entry("/blog", 8, "failed", why, ago=900))
        why = say or "requirements.txt: no version of flask==99 was found"
        self.order("/newsletter", phases.FAILED, why)
        await self.ledger.note(self.entry("/newsletter", 3, "failed", why, ago=5000))
        await self.live("/billing", 4)
        self.refused["billing"] = (
            say or "billing/orders:3: autodeploi: no such command; autodeploy?"
        )
        await self.live("/maps", 5)
        self.order("/maps", phases.UNREACHABLE, "git.example.org does not answer")
        await self.live("/intranet", 6, stopped=True)
        self.order("/intranet", phases.STOPPED)
        await self.live("/old-campaign", 9, orphaned=True)
        self.unwell.add((await self.live("/reports", 10)).container)
        self.order("/reports")
        self.ended[(await self.live("/queue", 11)).container] = "exit status 137"
        self.order("/queue")
        await self._pushed()
        self.journal.write(
            "/shop", "shop-1", "web", [say or f"GET /basket/{i} 200 in {i} ms" for i in range(30)]
        )
        self.journal.write(
            "", "", "ship", [say or "atlas: live", "/blog: GET /health answered 500 for 60 s"]
        )
        self.journal.write("/shop/api", "", "deploy", [*BUILDING, *filter(None, [say])])
        await self.journal.settle()
        await self._looked_at()

    async def _pushed(self) -> None:
        for name in ("atlas", "sketch", "sounding"):
            committed(self.ship.repository(name), 40, self.hostile)
        await self.live("atlas", 12, expires=self.now + 3 * 3600 + 90)
        await self.live("atlas--dark-mode", 13, expires=self.now + 7200)
        self.asleep.add("atlas--dark-mode")
        self.begin("sounding", 14, BUILDING[:4])
        self.begin("sketch--try", 15, ["-----> Waiting: 2 ahead"])
        reason = self.hostile or "the service ended by itself (exit status 1)"
        await self.ledger.note(self.entry("sketch", 16, "failed", reason, ago=3000))

    async def _looked_at(self) -> None:
        """A day of the host, with a hole in it."""
        day = []
        for minute in range(1440):
            at = self.now - (1440 - minute) * 60
            if 300 < minute < 390:
                continue
            work = max(0.03, 0.35 * math.sin(minute / 229) ** 2 + 0.12 * math.sin(minute / 7) ** 8)
            used = int(3.1e9 + 1.2e9 * math.sin(minute / 400))
            day.append(
                Sample(
                    at, work, used, int(8.3e9), int(4.1e10 + minute * 2e6), int(1.2e11), 2.2 * work
                )
            )
        write(self.layout.vitals, day)
        self.held.append(Deferred.fromCoroutine(self.ship.vitals.keep()))

    async def many(self, services: int, releases: int) -> None:
        """So many more services, and a past of `/shop` of so many releases."""
        db = self.ledger._db
        db.execute("BEGIN")
        for at in range(services):
            name = f"/fleet/service-{at:03}"
            serving = self.serving(name, at, since=self.now - 600 * at)
            self.ledger._put(serving)
            self.ledger._add(self.entry(name, at, ago=600 * at + 10))
            self.order(name, at=at % 40)
        for at in range(releases):
            outcome, reason = ("failed", "it broke") if at % 17 == 3 else ("live", "")
            self.ledger._add(
                self.entry("/shop", at, outcome, reason, ago=60.0 * (releases - at) + 90)
            )
        db.execute("COMMIT")

    def pages(self) -> Pages:
        stream = Logstream(self.reactor, self.journal, "endeavour", None)
        shown = {"dashboard": resource(self.sources()), "logstream": stream}
        return Pages(Access("endeavour", {}), shown)


class _Told(Protocol):
    """What a test wants to happen: a line of the log, or of a deploy."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def dataReceived(self, data: bytes) -> None:
        for text in data.decode().splitlines():
            what, _, line = text.partition(" ")
            if what == "log":
                self._scene.journal.write("/shop", "shop-1", "web", [line])
            else:
                next(iter(self._scene.deploys.underway)).transcript(line)

    def connectionLost(self, reason: Any = None) -> None:
        self._scene.reactor.stop()


def main(root: str, services: str, releases: str, *hostile: str) -> None:
    from twisted.internet import reactor as the_reactor

    reactor: Any = the_reactor
    scene = Scene(reactor, Path(root), HOSTILE if hostile else "")

    async def serve() -> None:
        await scene.every_state()
        await scene.many(int(services), int(releases))
        port = reactor.listenTCP(0, scene.pages(), interface="127.0.0.1")
        StandardIO(_Told(scene))
        print(port.getHost().port, flush=True)

    def failed(failure: Any) -> None:
        failure.printTraceback()
        reactor.stop()

    serving = Deferred.fromCoroutine(serve())
    serving.addErrback(failed)
    reactor.run()
    scene.ledger.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
