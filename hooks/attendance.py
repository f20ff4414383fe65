"""What goes on beside a service while it serves: its jobs, and the watchdog."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from buildpacks.launch import launch_argv
from containers.interface import Address, ContainerError, Runtime
from hooks.check import ask
from hooks.cron import Cron, Local
from hooks.journal.journal import IN_THE_JOURNAL, Journal
from hooks.journal.lines import DEPLOY, Wanted
from hooks.layout import Layout
from hooks.ledger import Serving
from hooks.limits import over
from hooks.mounts import job_script, mounts, start_mount
from hooks.say import clean
from hooks.settings import Settings
from hooks.standing import Job
from hooks.watchdog import watch_over

LOCAL = Local()
LONGEST_RUN = 86400.0  # seconds
MOST_OUTPUT = 4 << 20  # bytes of one run
PATIENCE = 30.0  # seconds for one answer to the watchdog

Now = Callable[[str], Awaitable[Serving | None]]


@define(eq=False)
class _One:
    """What is on beside one container."""

    service: str
    cron: Cron
    going: list[Deferred[None]] = field(factory=list)

    def rest(self) -> None:
        going, self.going = self.going, []
        for one in going:
            one.cancel()


@define(eq=False)
class Attendance:
    """`now` tells what serves as a service."""

    reactor: Any
    layout: Layout
    settings: Settings
    runtime: Runtime
    now: Now
    journal: Journal
    _attended: dict[str, _One] = field(factory=dict)
    _begun: dict[str, float] = field(factory=dict)
    unwell: set[str] = field(factory=set)
    """Containers whose service did not answer the watchdog well, when it asked last."""
    _log: Logger = Logger()

    def attend(self, serving: Serving) -> None:
        """Begin with the jobs and the watchdog of `serving`; the jobs of an earlier version start
        no more. Nothing changes for one that is attended already.
        """
        if not serving.jobs:  # those of a later version miss nothing by that
            self.layout.looked(serving.service).unlink(missing_ok=True)
        wanted = serving.jobs or serving.watch or serving.front.to_stderr
        if serving.container in self._attended or not wanted:
            return
        for one in self._attended.values():
            if one.service == serving.service:
                one.rest()
        one = _One(serving.service, self._cron(serving))
        self._attended[serving.container] = one
        if serving.jobs:
            one.going.append(self._going(one.cron.go(self._looked_at(serving))))
        if serving.watch is not None:
            one.going.append(self._going(self._watch(serving)))
        if serving.front.to_stderr:
            one.going.append(self._going(self._repeat(serving)))

    def begun(self, container: str) -> None:
        """The service in `container` was started again; it has a while for its first answer."""
        self._begun[container] = self.reactor.seconds()

    def rest(self, container: str) -> None:
        """Start no more jobs beside `container`, and watch it no more."""
        if container in self._attended:
            self._attended[container].rest()

    def leave(self, container: str) -> None:
        """As `rest`, and end the jobs that run."""
        self._begun.pop(container, None)
        self.unwell.discard(container)
        one = self._attended.pop(container, None)
        if one is not None:
            one.rest()
            one.cron.stop()

    def _going(self, work: Any) -> Deferred[None]:
        going: Deferred[None] = Deferred.fromCoroutine(work)
        going.addErrback(self._ended)
        return going

    def _ended(self, failure: Any) -> None:
        if failure.check(CancelledError) is None:
            self._log.failure("what goes on beside a service failed", failure)

    def _cron(self, serving: Serving) -> Cron:
        log = self.layout.service_log(serving.container)
        return Cron(
            self.reactor,
            serving.jobs,
            partial(self._run, serving),
            partial(_append, log),
            partial(_look, self.layout.looked(serving.service)),
            lambda: datetime.now(LOCAL),
        )

    def _looked_at(self, serving: Serving) -> datetime | None:
        """The last look at the clock for this service; none is younger than its first release."""
        try:
            seconds = float(self.layout.looked(serving.service).read_text())
        except (OSError, ValueError):
            return None
        return datetime.fromtimestamp(seconds, LOCAL)

    async def _run(self, serving: Serving, job: Job) -> None:
        container = self.runtime.find(serving.container)
        if container is None:
            raise ContainerError(f"the container {serving.container} is gone")
        now = await self.now(serving.service)
        moved = now is not None and now.container == serving.container
        port = now.port if now is not None and moved else serving.port
        log, began = self.layout.service_log(container.name), time.monotonic()
        lines = _Lines(f"[{job.name}] ", partial(_append, log))
        start = self.runtime.seen_at(container, start_mount(container))
        usual = over(self.settings.service_limits, serving.launch.limits)
        exit = await self.runtime.run(
            container,
            launch_argv(f"{start}/{job_script(job.name)}"),
            env={**serving.launch.env, "PORT": str(port)},
            output=lines.take,
            limits=evolve(usual, seconds=LONGEST_RUN, output=MOST_OUTPUT),
            mounts=mounts(self.layout, container, serving.launch),
        )
        lines.end()
        if not exit.ok:
            _append(log, f"[{job.name}] {exit.how} after {time.monotonic() - began:.1f} s")

    async def _repeat(self, serving: Serving) -> None:
        """Say what the service logs in the ship's own log too, from now on."""
        after, wanted = self.journal.newest, Wanted(frozenset({serving.service}))
        while True:
            batch = await self.journal.coming(after, wanted)
            for event in batch.events:
                if event.release == serving.container and event.process != DEPLOY:
                    told = {"service": serving.service, "line": event.content}
                    self._log.info("{service}: {line}", **told, **{IN_THE_JOURNAL: True})
            after = batch.upto

    async def _watch(self, serving: Serving) -> None:
        assert serving.watch is not None
        path, delay = serving.watch.path, serving.watch.delay

        async def healthy() -> bool:
            now = await self.now(serving.service)
            if now is None or now.container != serving.container:
                return True
            if await ask(self.reactor, Address(now.host, now.port), path, PATIENCE) == 200:
                self._begun.pop(serving.container, None)
                self.unwell.discard(serving.container)
                return True
            begun = self._begun.get(serving.container)
            starting = begun is not None and self.reactor.seconds() - begun < delay
            if not starting:
                self.unwell.add(serving.container)
            return starting

        async def restart(why: str) -> None:
            """Stopped, it is started again like any service that ends."""
            self._log.warn("{service}: {why}; it is stopped", service=serving.service, why=why)
            container = self.runtime.find(serving.container)
            if container is not None:
                await self.runtime.stop(container, grace=self.settings.stop_grace)

        await watch_over(self.reactor, serving.watch, healthy, restart)


@define(eq=False)
class _Lines:
    """Raw output on its way to lines, each with `mark` before it; `say` takes many at once."""

    mark: str
    say: Callable[[str], None]
    _rest: bytes = b""

    def take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if lines:
            self.say("\n".join(map(self._marked, lines)))

    def end(self) -> None:
        if self._rest:
            self.say(self._marked(self._rest))

    def _marked(self, line: bytes) -> str:
        return self.mark + clean(line.decode("utf-8", "replace"))


def _append(log: Path, line: str) -> None:
    with suppress(OSError), log.open("a") as file:  # a full disk ends no job
        file.write(f"{line}\n")


def _look(path: Path, at: datetime) -> None:
    with suppress(OSError):
        path.write_text(f"{at.timestamp()}\n")
