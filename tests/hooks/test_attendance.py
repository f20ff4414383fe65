"""Jobs and watchdog beside a service: begun once, handed over, and ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from containers.interface import Container, Exit
from hooks.attendance import Attendance
from hooks.layout import Layout
from hooks.ledger import Launch, Serving
from hooks.naming import Release
from hooks.settings import Settings
from hooks.standing import Job
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
        launch=Launch(("web",), {"PORT": "1"}, ordered=True),
        host="127.0.0.1",
        port=20000,
        since=0.0,
        expires=None,
        jobs=jobs,
    )


class Attending(SynchronousTestCase):
    def setUp(self) -> None:
        self.layout = Layout(scratch(self) / "ship")
        self.layout.prepare()
        self.runtime = Containers(self.layout.containers)
        runtime: Any = self.runtime
        self.attendance = Attendance(Clock(), self.layout, Settings(), runtime, self.now)

    async def now(self, service: str) -> Serving | None:
        return None

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

    def test_nothing_to_do(self) -> None:
        """A service without jobs and without a check is not attended."""
        self.attendance.attend(serving("1", ()))
        self.assertEqual(self.runtime.ran, [])
        self.attendance.rest("nobody")
        self.attendance.leave("nobody")
