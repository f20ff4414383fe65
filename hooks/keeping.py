"""A service is kept running: started, watched, and started again whenever it ends by itself."""

from __future__ import annotations

from collections import Counter
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from containers.interface import Address, Container, ContainerError, Exit, Runtime
from containers.keep import keep
from hooks.attendance import Attendance
from hooks.holding import Holding
from hooks.journal.journal import Journal
from hooks.layout import Layout
from hooks.leading import Leading
from hooks.ledger import Launch, Ledger, Serving
from hooks.limits import over
from hooks.mounts import mounts
from hooks.settings import Settings

SOON = 1.0  # seconds that requests for a service that ended wait for its next start


@define(eq=False)
class Keeping:
    """Looks after each service from `watch_over` on, until `stop_watching`."""

    reactor: Any
    layout: Layout
    settings: Settings
    ledger: Ledger
    runtime: Runtime
    attendance: Attendance
    journal: Journal
    holding: Holding
    leading: Leading
    ended: dict[str, str] = field(factory=dict)
    """Why the service in a container ended by itself, until it is started again."""
    restarts: Counter[str] = field(factory=Counter)
    """How often each service ended by itself since this ship started."""
    _keepers: dict[str, Deferred[None]] = field(factory=dict)
    _log: Logger = Logger()

    async def start(
        self, container: Container, launch: Launch, had: Address | None = None
    ) -> Address:
        """Start what `launch` says, at the address it `had` if that is free."""
        return await self.runtime.start(
            container,
            launch.argv,
            env=launch.env,
            log=self.layout.service_log(container.name),
            limits=over(self.settings.service_limits, launch.limits),
            mounts=mounts(self.layout, container, launch),
            address=had,
        )

    async def start_again(self, serving: Serving, container: Container) -> None:
        """Start `serving` once more; requests wait until it listens."""
        async with self.holding.until_started(serving.service, container):
            had = await self.ledger.now(serving.service) or serving
            address = await self.start(container, serving.launch, Address(had.host, had.port))
            self.attendance.begun(container.name)
            self.ended.pop(container.name, None)
            await self._lead_to(serving, address)
        self.holding.end_when_it_listens(container, address)

    def watch_over(self, serving: Serving, container: Container) -> None:
        """Start the service again whenever it ends, until it is retired. Its jobs begin."""

        async def restart() -> None:
            try:
                await self.start_again(serving, container)
            except (CancelledError, ContainerError):
                raise
            except Exception as error:  # nginx or the disk: that must not be the last try
                raise ContainerError(f"cannot start {container.name}: {error}") from error

        def on_exit(exit: Exit, delay: float) -> None:
            self.ended[container.name] = exit.how
            self.restarts[serving.service] += 1
            if delay <= SOON:
                Deferred.fromCoroutine(self.holding.begin(serving.service, container))
            self._log.warn(
                "{service} ended ({how}), it is started again in {delay} s",
                service=serving.service,
                how=exit.how,
                delay=delay,
            )

        keeper = keep(self.reactor, self.runtime, container, restart, on_exit=on_exit)
        watching: Deferred[None] = Deferred.fromCoroutine(keeper)
        watching.addErrback(lambda _: None)  # it is cancelled when the service is over
        self._keepers[container.name] = watching
        jobs = [job.name for job in serving.jobs]
        self.journal.follow(container.name, serving.service, jobs)
        self.attend(serving)

    def attend(self, serving: Serving) -> None:
        """Run the jobs and the watchdog of what serves now; those of an orphan rest."""
        if serving.orphaned or serving.stopped:
            self.attendance.leave(serving.container)
        else:
            self.attendance.attend(serving)

    def stop_watching(self, name: str) -> None:
        """It is to end, or is another's to look after."""
        self.attendance.rest(name)
        self.ended.pop(name, None)
        watching = self._keepers.pop(name, None)
        if watching is not None:
            watching.cancel()

    def let_go(self) -> None:
        """Let all go on without us, for another ship process to look after."""
        for name in list(self._keepers):
            self.stop_watching(name)
        self.holding.let_go()

    async def _lead_to(self, serving: Serving, address: Address) -> None:
        """Let the traffic of `serving` follow it, if its port was taken and it serves yet."""
        now = await self.ledger.now(serving.service)
        if now is not None and now.release == serving.release:
            moved = evolve(now, host=address.host, port=address.port)
            if moved != now:
                await self.leading.publish(moved)
                await self.ledger.keep(moved)
