"""Which addresses are given out."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from ipaddress import IPv4Address

from attrs import define, field

from containers.interface import ContainerError
from containers.lxc.network import Plan, Zone


@define
class Pool:
    """Which addresses are given out, each to one container at a time. Ownership is in memory."""

    plan: Plan
    _owners: dict[IPv4Address, str] = field(factory=dict)
    _next: dict[str, int] = field(factory=dict)

    def reserve(self, owner: str, zone: Zone, wanted: IPv4Address | None = None) -> IPv4Address:
        """An address of `zone`, `wanted` if that is free. Goes round, so that one just given back
        is the last to be given out again. Raises `ContainerError` if none is free.
        """
        self.release(owner)
        if wanted is not None and wanted in self._round(zone) and wanted not in self._owners:
            self._owners[wanted] = owner
            return wanted
        for address in self._round(zone):
            if address not in self._owners:
                self._next[zone.bridge] = int(address) - int(zone.network[0]) + 1
                self._owners[address] = owner
                return address
        raise ContainerError(f"no address is free in {zone.network}")

    def claim(self, owner: str, address: IPv4Address) -> None:
        """Note that `owner` has this address already."""
        self._owners[address] = owner

    @property
    def owned(self) -> Collection[IPv4Address]:
        """Those that are given out."""
        return self._owners.keys()

    def release(self, owner: str) -> None:
        """Give back what `owner` has, if anything."""
        for address in [one for one, other in self._owners.items() if other == owner]:
            del self._owners[address]

    def _round(self, zone: Zone) -> Iterator[IPv4Address]:
        first, count = 2, zone.network.num_addresses - 3  # not the network, the ship, all at once
        begin = self._next.get(zone.bridge, first)
        for step in range(count):
            yield zone.network[first + (begin - first + step) % count]
