"""Many who read a log stream at a time."""

from __future__ import annotations

import re
import selectors
import socket
import threading

ID = re.compile(rb"\nid: ([0-9]+)\n")


class Crowd:
    """Those who read as fast as they can, in a thread of their own."""

    def __init__(self) -> None:
        self._last: dict[socket.socket, int] = {}
        self._rest: dict[socket.socket, bytes] = {}
        self._going = True
        self._thread = threading.Thread(target=self._read)

    @property
    def heard(self) -> int:
        """The newest event that all have heard."""
        return min(self._last.values())

    def add(self, sockets: list[socket.socket]) -> None:
        self._last, self._rest = dict.fromkeys(sockets, 0), dict.fromkeys(sockets, b"")
        self._thread.start()

    def end(self) -> None:
        self._going = False
        self._thread.join()

    def _read(self) -> None:
        with selectors.DefaultSelector() as ready:
            for one in self._last:
                ready.register(one, selectors.EVENT_READ)
            while self._going:
                for key, _ in ready.select(0.05):
                    self._take(key.fileobj)  # type: ignore[arg-type]

    def _take(self, one: socket.socket) -> None:
        data = self._rest[one] + one.recv(1 << 18)
        ids = ID.findall(data)
        if ids:
            self._last[one] = int(ids[-1])
        self._rest[one] = data[-30:]
