"""Guessing takes time: who failed too often has to wait, by address and by name."""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address, ip_network

from attrs import define, field

FREE = 5  # failures that cost nothing
WINDOW = 60.0  # seconds after which a failure is forgotten
LONGEST = 30.0  # seconds that somebody has to wait
MOST = 20_000  # addresses and names that are remembered


@define
class _Failures:
    count: int
    last: float


@define
class Slowing:
    """Counts failures, in bounded memory. Times are seconds of one clock."""

    _failed: OrderedDict[str, _Failures] = field(factory=OrderedDict)

    def wait(self, address: str, service: str, user: str, now: float) -> float:
        """How many seconds the next try has to wait; 0 when it may be made at once.

        A name that many guess at waits too, but only where somebody has just failed: nobody is
        locked out by others.
        """
        network = _network(address)
        named = self._left(f"{service} {user}", now) if self._recent(network, now) else 0.0
        return max(self._left(network, now), named)

    def failed(self, address: str, service: str, user: str, now: float) -> None:
        """A try did not succeed."""
        for key in (_network(address), f"{service} {user}"):
            known = self._recent(key, now)
            self._failed[key] = _Failures(known.count + 1 if known else 1, now)
            self._failed.move_to_end(key)
        while len(self._failed) > MOST:
            self._failed.popitem(last=False)

    def _recent(self, key: str, now: float) -> _Failures | None:
        known = self._failed.get(key)
        return known if known is not None and now - known.last < WINDOW else None

    def _left(self, key: str, now: float) -> float:
        known = self._recent(key, now)
        if known is None or known.count < FREE:
            return 0.0
        pause = min(LONGEST, 2.0 ** min(known.count - FREE, 10))
        return max(0.0, known.last + pause - now)


def _network(address: str) -> str:
    """Who is taken for one: an address, and of IPv6 a whole /64."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if not isinstance(found, IPv6Address):
        return address
    mapped = found.ipv4_mapped  # as a socket for both shows an address of IPv4
    return str(mapped or ip_network((found, 64), strict=False))
