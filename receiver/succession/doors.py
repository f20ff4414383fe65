"""The sockets on which a ship listens: opened once, and passed on from one process of it to the
next, so that whoever connects meanwhile only waits a moment."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet import unix
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IProtocolFactory


@define(eq=False)
class Door:
    """One that is open. Closed, it keeps who comes waiting; what was accepted goes on."""

    _port: Any

    def stopListening(self) -> Deferred[None]:
        self._port.stopReading()
        self._port.socket.close()
        self._port.factory.doStop()
        return succeed(None)


@define(eq=False)
class Doors:
    """Listens as a reactor does, by its method names; one socket for each address."""

    _reactor: Any
    _sockets: dict[str, socket.socket] = field(factory=dict)
    _heard: set[str] = field(factory=set)

    def listenTCP(
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> Door:
        """Raises `CannotListenError`."""
        listening = self.reserve(port, backlog, interface)
        port = self._reactor.adoptStreamPort(listening.fileno(), listening.family, factory)
        listening.listen(backlog)  # Twisted has said its own
        return Door(port)

    def reserve(self, port: int, backlog: int = 50, interface: str = "") -> socket.socket:
        """Have a socket for `listenTCP` already: who connects waits. Raises `CannotListenError`."""
        host = interface.strip("[]")
        name = f"{host} {port}"
        self._heard.add(name)
        if name not in self._sockets:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._sockets[name] = _bound(family, (host, port), backlog)
        return self._sockets[name]

    def listenUNIX(
        self, address: str, factory: IProtocolFactory, backlog: int = 50, mode: int = 0o666
    ) -> Door:
        """What an earlier ship left at the path `address` goes. Raises `CannotListenError`."""
        self._heard.add(address)
        if address not in self._sockets:
            Path(address).unlink(missing_ok=True)
            self._sockets[address] = _bound(socket.AF_UNIX, address, backlog, mode)
        descriptor = self._sockets[address].fileno()
        # As adoptStreamPort does, which would open the path to everybody.
        port: Any = unix.Port._fromListeningDescriptor(self._reactor, descriptor, factory)
        port.mode, port.backlog = mode, backlog
        port.startListening()
        return Door(port)

    @property
    def names(self) -> list[str]:
        return list(self._sockets)

    @property
    def descriptors(self) -> list[int]:
        """In the order of `names`."""
        return [each.fileno() for each in self._sockets.values()]

    def take(self, names: Sequence[str], descriptors: Sequence[int]) -> None:
        """Have these from another process; owns the descriptors."""
        for name, descriptor in zip(names, descriptors, strict=True):
            self._sockets[name] = socket.socket(fileno=descriptor)

    def let_go(self) -> None:
        """Close those on which nobody has listened here: the settings have others by now, and who
        connects there is not to wait for ever."""
        for name in self._sockets.keys() - self._heard:
            self._sockets.pop(name).close()

    def close(self) -> None:
        """Nothing listens here any more; another process that has them goes on."""
        for each in self._sockets.values():
            each.close()
        self._sockets.clear()


def _bound(family: int, address: Any, backlog: int, mode: int | None = None) -> socket.socket:
    listening = socket.socket(family)
    try:
        if family != socket.AF_UNIX:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        if mode is not None:  # nobody gets in before it listens
            Path(address).chmod(mode)
        listening.listen(backlog)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        host, port = address[:2] if mode is None else (None, address)
        raise CannotListenError(host, port, error) from error
    return listening
