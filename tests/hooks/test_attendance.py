"""Jobs and watchdog beside a service: begun once, handed over, and ended."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from containers.interface import Container, Exit
from hooks.attendance import Attendance
from hooks.journal.journal import Journal
from hooks.layout import Layout
from hooks.ledger import Launch, Serving
from hooks.naming import Release
from hooks.settings import Settings
from hooks.standing import Job, Watch
from tests.hooks.scene import scratch

AT_ONCE = (Job("wake", "@reboot"),)


class Containers:
    """A runtime that writes down what it is to run, and lets it go on until it is told."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ran: list[tuple[str, str]] = []
        self.ends: dict[str, Deferred[Exit]] = {}

    def find(self, name: str) -> Container:
        return Container(name, self.directory / name)

    def seen_at(self, container: Container, mount: Any) -> str:
        return str(mount.source)

    async def run(
        self, container: Container, argv: Sequence[str], *, output: Any, env: Mapping[str, str],
        **options: Any,
    ) -> Exit:  # fmt: skip
        self.ran.append((container.name, env["PORT"]))
        self.seen = dict(env)
        output(b"first\nsec")
        output(b"ond")
        end: Deferred[Exit] = Deferred()
        self.ends[container.name] = end
        return await end


def serving(commit: str, jobs: tuple[Job, ...] = AT_ONCE) -> Serving:
    return Serving(
        release=Release("/app", "0" * 12, commit * 40),
        owner="ann",
        branch="",
        launch=Launch(("web",), {"PORT": "1", "COLOUR": "blue"}, ordered=True),
        host="127.0.0.1",
        port=20000,
        since=0.0,
        expires=None,
        jobs=jobs,
    )


def journal(layout: Layout) -> Journal:
    return Journal(reactor, layout, Settings())


class Attending(SynchronousTestCase):
    def setUp(self) -> None:
        self.layout = Layout(scratch(self) / "ship")
        self.layout.prepare()
        self.runtime = Containers(self.layout.containers)
        runtime: Any = self.runtime
        self.clock = Clock()
        self.serves: Serving | None = None
        self.attendance = Attendance(
            self.clock, self.layout, Settings(), runtime, self.now, journal(self.layout)
        )

    async def now(self, service: str) -> Serving | None:
        return self.serves

    def log(self, one: Serving) -> list[str]:
        return self.layout.service_log(one.container).read_text().splitlines()

    def test_a_job_runs_as_its_service_does(self) -> None:
        """In its container, with its port; what it prints is in its log, line by line, with its
        name, and how it ended if not well."""
        one = serving("1")
        self.attendance.attend(one)
        self.assertEqual(self.runtime.ran, [(one.container, "20000")])
        self.runtime.ends[one.container].callback(Exit(3, None))
        self.assertEqual(self.log(one)[:2], ["[wake] first", "[wake] second"])
        self.assertIn("[wake] exit status 3 after", self.log(one)[2])

    def test_begun_once(self) -> None:
        """Attending to what is attended already begins nothing twice."""
        one = serving("1")
        self.attendance.attend(one)
        self.attendance.attend(evolve(one, owner="bob"))
        self.assertEqual(len(self.runtime.ran), 1)

    def test_the_new_version_alone_starts_jobs(self) -> None:
        """When another version of a service is attended, the older starts nothing more, and what it
        runs goes on until it is left."""
        every = (Job("tick", "* * * * *"), *AT_ONCE)
        old, new = serving("1", every), serving("2", every)
        self.attendance.attend(old)
        self.attendance.attend(new)
        going = self.attendance._attended
        self.assertEqual([len(going[one.container].going) for one in (old, new)], [0, 1])
        self.assertNotIn("ended", "".join(self.log(old)))
        self.attendance.leave(old.container)
        self.assertIn("[wake] ended with the service", self.log(old))

    def test_a_job_sees_what_its_service_sees(self) -> None:
        """The environment of the service, and the port where it is now."""
        one = serving("1")
        self.serves = evolve(one, port=20007)
        self.attendance.attend(one)
        self.assertEqual(self.runtime.ran, [(one.container, "20007")])
        self.assertEqual(self.runtime.seen, {"PORT": "20007", "COLOUR": "blue"})

    def test_it_goes_on_from_the_last_look(self) -> None:
        """What another version, or the ship before, did not get to see to is told."""
        self.layout.looked("/app").write_text(f"{time.time() - 7200}\n")
        one = serving("1", (Job("tick", "@hourly"),))
        self.attendance.attend(one)
        self.assertIn("[tick] missed", self.log(one)[0])

    def test_at_rest_nothing_starts(self) -> None:
        """Of a service at rest no job falls due any more."""
        one = serving("1", (Job("tick", "* * * * *"),))
        self.attendance.attend(one)
        self.attendance.rest(one.container)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nothing_to_do(self) -> None:
        """A service without jobs and without a check is not attended."""
        self.attendance.attend(serving("1", ()))
        self.assertEqual(self.runtime.ran, [])
        self.attendance.rest("nobody")
        self.attendance.leave("nobody")


class Web(Protocol):
    """Answers every request with its factory's `status`; 0 leaves it waiting."""

    factory: Any

    def dataReceived(self, data: bytes) -> None:
        self.factory.asked += 1
        self.factory.waiting.callback(None)
        self.factory.waiting = Deferred()
        if self.factory.status:
            answer = f"HTTP/1.1 {self.factory.status} x\r\nContent-Length: 0\r\n\r\n"
            self.transport.write(answer.encode())  # type: ignore[union-attr]

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.lost.callback(None)
        self.factory.lost = Deferred()


class Watching(TestCase):
    def setUp(self) -> None:
        self.layout = Layout(scratch(self) / "ship")
        self.layout.prepare()
        self.web = cast(Any, Factory.forProtocol(Web))
        self.web.status, self.web.asked = 200, 0
        self.web.waiting, self.web.lost = Deferred(), Deferred()
        net: Any = reactor
        port = net.listenTCP(0, self.web, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        watch = Watch("/up", 10.0, 1)
        self.one = evolve(serving("1", ()), port=port.getHost().port, watch=watch)
        self.serves: Serving | None = self.one
        self.stopped: list[str] = []
        self.pulse = Clock()
        self.pulse.connectTCP = net.connectTCP  # type: ignore[attr-defined]
        runtime: Any = Containers(self.layout.containers)
        runtime.stop = self.stop
        self.attendance = Attendance(
            self.pulse, self.layout, Settings(), runtime, self.now, journal(self.layout)
        )
        self.attendance.attend(self.one)
        self.addCleanup(self.attendance.leave, self.one.container)

    async def now(self, service: str) -> Serving | None:
        return self.serves

    async def stop(self, container: Container, *, grace: float) -> None:
        self.stopped.append(container.name)

    async def question(self) -> None:
        """One pulse, and the question that it brings, answered."""
        self.pulse.advance(10)
        while [one.getTime() - self.pulse.seconds() for one in self.pulse.getDelayedCalls()] != [
            10
        ]:
            await deferLater(reactor, 0.005)

    async def test_only_a_200_is_well(self) -> None:
        """Anything else counts, and the container is stopped after one more than is allowed."""
        await self.question()
        self.web.status = 204
        await self.question()
        self.assertEqual(self.stopped, [])
        await self.question()
        self.assertEqual(self.stopped, [self.one.container])

    async def test_what_is_unwell_is_known(self) -> None:
        """From a bad answer to the next good one, but not while it starts, nor once it is left."""
        name = self.one.container
        self.attendance.begun(name)
        for status, unwell in ((503, False), (200, False), (503, True), (200, False), (503, True)):
            self.web.status = status
            await self.question()
            self.assertEqual(name in self.attendance.unwell, unwell)
        self.attendance.leave(name)
        self.assertEqual(self.attendance.unwell, set())

    async def test_a_slow_start_is_waited_for(self) -> None:
        """What was started again has its time for the first answer before a failure counts; from
        that answer on every one does."""
        self.web.status = 503
        self.attendance.begun(self.one.container)
        for _ in range(5):
            await self.question()
        self.assertEqual(self.stopped, [])
        for _ in range(2):
            await self.question()
        self.assertEqual(self.stopped, [self.one.container])
        self.attendance.begun(self.one.container)
        for status in (200, 503, 503):
            self.web.status = status
            await self.question()
        self.assertEqual(len(self.stopped), 2)

    async def test_what_serves_no_more_is_not_asked(self) -> None:
        """Neither when nothing serves nor when another version does."""
        for serves in (None, serving("2")):
            self.serves = serves
            self.pulse.advance(10)
        self.assertEqual((self.web.asked, self.pulse.getDelayedCalls() != []), (0, True))

    async def test_at_rest_nothing_is_asked(self) -> None:
        """Also when it is put to rest, or left, while a question is out."""
        for end in (self.attendance.rest, self.attendance.leave):
            self.web.status = 0
            self.attendance.leave(self.one.container)
            self.attendance.attend(self.one)
            asked, lost = self.web.waiting, self.web.lost
            self.pulse.advance(10)
            await asked
            end(self.one.container)
            await lost
            self.assertEqual(self.pulse.getDelayedCalls(), [])
