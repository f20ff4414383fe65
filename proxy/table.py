"""Which backend each service's traffic goes to, as nginx is to know it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import evolve, frozen

from proxy.control import Control, ControlError, table_text
from proxy.files import write_whole
from proxy.protection import Protection
from proxy.routes import Backend, ProxyError


@frozen
class Entry:
    """Where a service's traffic goes, and who may use it."""

    backend: Backend
    protection: Protection


def entry(backend: Backend, protection: Protection) -> Entry:
    """What is asked for by its protection is guarded."""
    return Entry(evolve(backend, guarded=backend.guarded or protection.asks), protection)


class Table:
    """What is wanted; kept in the file that nginx fills its own table from when it starts.

    Raises `ProxyError`.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._entries: dict[str, Entry] = {}
        self._untold: set[str] = set()
        self._behind = False  # the file is

    def begin(self, entries: Mapping[str, Entry]) -> None:
        """Just these."""
        self._entries = dict(entries)
        self._write()

    def get(self, service: str) -> Entry | None:
        return self._entries.get(service)

    def put(self, service: str, entry: Entry | None, *, anyway: bool = False) -> None:
        """From now on this one; `None` for none. nginx, if it runs, is still to be told. Where it
        cannot be written, it stays as it was, unless it is to count `anyway`."""
        before = self._entries
        self._entries = {name: led for name, led in before.items() if name != service}
        if entry is not None:
            self._entries[service] = entry
        try:
            self._write()
        except ProxyError:
            self._behind |= anyway
            if not anyway:
                self._entries = before
            raise
        self._behind = False
        self._untold.add(service)

    def is_told(self, service: str) -> bool:
        """Whether nginx has heard what there is of a service, and would again if it started."""
        return service not in self._untold and not self._behind

    def asleep(self) -> frozenset[str]:
        """The services that the first request wakes."""
        return frozenset(name for name, entry in self._entries.items() if entry.backend.asleep)

    async def tell(self, control: Control, service: str) -> None:
        """Tell nginx what there is of one service by now."""
        entry = self._entries.get(service)
        if entry is None:
            await control.delete(service)
        else:
            await control.put(service, entry.backend)
        if self._entries.get(service) is entry:
            self._untold.discard(service)

    async def align(self, control: Control, *, patiently: bool = False) -> None:
        """Tell an adopted nginx all, as far as it knows something else.

        One of an older ship may not understand all of it: then it has to wait for the reload.
        """
        known, wanted = await control.backends(), self._backends()
        for service in known.keys() | wanted.keys():
            if known.get(service) != wanted.get(service):
                try:
                    await self.tell(control, service)
                except ControlError:
                    if not patiently:
                        raise

    def _backends(self) -> dict[str, Backend]:
        return {service: entry.backend for service, entry in self._entries.items()}

    def _write(self) -> None:
        try:
            write_whole(self._file, table_text(self._backends()))
        except OSError as error:
            raise ProxyError(f"cannot write nginx's table: {error}") from error
