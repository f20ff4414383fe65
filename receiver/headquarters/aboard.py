"""What a headquarters means for a ship besides its services: keys, scripts, its own entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from containers.watching import in_thread
from hooks.frontdoor import FrontDoor
from hooks.layout import Layout
from receiver.headquarters.admirals import write_admirals
from receiver.headquarters.headquarters import Headquarters
from receiver.headquarters.laying import lay_overlay
from receiver.headquarters.ships import PushBack, addresses
from receiver.headquarters.shipscripts import Shipscripts, scripts, scripts_digest

PULSE = 5.0  # seconds between two looks at the ship's addresses


@define(eq=False)
class Aboard:
    """`environment` is that of ship scripts, without what this adds. Nothing is written to the
    headquarters `here`: who pushes to it would have to pull first, to learn where it is. `overlay`
    says whether its files are laid over the host's.
    """

    reactor: Any
    layout: Layout
    door: FrontDoor
    push_back: PushBack
    shipscripts: Shipscripts
    environment: Mapping[str, str]
    here: str
    overlay: bool = False
    _headquarters: Headquarters | None = None
    _digest: str = ""
    _addresses: tuple[str, ...] = field(factory=addresses)
    _writing: Deferred[None] | None = None
    _log: Logger = Logger()

    async def adopt(self, headquarters: Headquarters) -> None:
        """Let the keys of `headquarters` in, and do what it changes."""
        self._headquarters = headquarters
        await self.door.adopt(headquarters.commons, headquarters.certificates, headquarters.refused)
        warnings = await in_thread(
            self.reactor, write_admirals, self.layout.admirals, headquarters.keys
        )
        for warning in warnings:
            self._log.warn("{warning}", warning=warning)
        await in_thread(
            self.reactor, _write, self.layout.standing / "known_hosts", headquarters.known_hosts
        )
        if self.overlay:
            for line in await in_thread(
                self.reactor, lay_overlay, headquarters.tree, headquarters.files
            ):
                self._log.info("{line}", line=line)
        digest = scripts_digest(headquarters.files)
        if digest != self._digest:
            self._digest = digest
            self._run_scripts("the headquarters says so")
        self._push_back()

    async def watch_addresses(self) -> None:
        """Run the ship scripts when the ship is elsewhere, and say where; until cancelled."""
        while True:
            await deferLater(self.reactor, PULSE)
            try:
                now = await in_thread(self.reactor, addresses)
            except CancelledError:
                raise
            except Exception:
                self._log.failure("the addresses of the ship could not be read")
                continue
            if now != self._addresses:
                self._addresses = now
                self._run_scripts("the addresses of the ship changed")
            self._push_back()

    def stop(self) -> None:
        self.shipscripts.stop()
        if self._writing is not None:
            self._writing.cancel()

    def _run_scripts(self, why: str) -> None:
        if self._headquarters is not None:
            env = {**self.environment, "SHIP_ADDRESSES": " ".join(self._addresses)}
            names: Sequence[str] = scripts(self._headquarters.files)
            self.shipscripts.run(why, self._headquarters.tree, names, env)

    def _push_back(self) -> None:
        """Nothing happens where the entry is right already, or may not be written."""
        if self._headquarters is None or self._writing is not None:
            return
        source, commit = self._headquarters.source, self._headquarters.commit
        if source.url == self.here:
            return
        self._writing = Deferred.fromCoroutine(
            self.push_back.write(source, commit, self._addresses)
        )
        self._writing.addErrback(self._not_written)
        self._writing.addBoth(self._written)

    def _not_written(self, failure: Any) -> None:
        if failure.check(CancelledError) is None:
            self._log.failure("the entry of this ship was not written", failure)

    def _written(self, _: object) -> None:
        self._writing = None


def _write(path: Path, data: bytes) -> None:
    growing = path.with_name(f".{path.name}")
    growing.write_bytes(data)
    growing.rename(path)
