"""Which TCP ports are given out: free on the host, and to one container at a time."""

from __future__ import annotations

import random
import socket

from attrs import define, field

from containers.interface import ContainerError


@define
class Ports:
    """Ports of `among`; each stays its owner's until released. Ownership is in memory."""

    among: range
    _owners: dict[int, str] = field(factory=dict)
    _next: int = field(init=False)

    @_next.default
    def _anywhere(self) -> int:
        # Two ships with the same range would otherwise race for the same ports.
        return random.randrange(len(self.among))  # noqa: S311 - no secret

    def reserve(self, owner: str, wanted: int | None = None) -> int:
        """A free port, `wanted` itself if that can be had. Raises `ContainerError` if none is.

        Goes round, so that a port just given back is the last to be given out again.
        """
        self.release(owner)
        candidates = [] if wanted is None else [wanted]
        candidates += [
            self.among[(self._next + i) % len(self.among)] for i in range(len(self.among))
        ]
        for port in candidates:
            if port not in self._owners and is_free(port):
                if port != wanted:
                    self._next = (self.among.index(port) + 1) % len(self.among)
                self._owners[port] = owner
                return port
        first, last = self.among.start, self.among.stop - 1
        raise ContainerError(f"no port is free between {first} and {last}")

    def claim(self, owner: str, port: int) -> None:
        """Note that `owner` has this port already."""
        self._owners[port] = owner

    def release(self, owner: str) -> None:
        """Give back what `owner` has, if anything."""
        for port in [port for port, other in self._owners.items() if other == owner]:
            del self._owners[port]


def is_free(port: int) -> bool:
    """Whether nobody on this host listens on it, on any address."""
    with socket.socket() as probe:
        # Without this, connections in TIME_WAIT would make a port look taken for a minute.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
