"""Whether the ports that a ship wants are there for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import psutil
from attrs import frozen

_OURS = ("/opt/starphleet/", "/var/starphleet/")
_SSHD = ("sshd", "systemd")  # systemd listens for it on some distributions


@frozen
class Listener:
    """Who listens on a TCP port: the name of the process, and its command with those it is of."""

    port: int
    name: str
    command: str


def taken(
    wanted: Iterable[int], listeners: Sequence[Listener], *, movable: int | None
) -> list[str]:
    """The wanted ports that somebody else has, each in words. `movable` is one that sshd may have,
    for it is going to be moved."""
    return [
        f"port {one.port} is taken by {one.name}"
        for port in sorted(set(wanted))
        for one in listeners
        if one.port == port
        and not any(place in one.command for place in _OURS)
        and not (port == movable and one.name in _SSHD)
    ]


def listeners() -> list[Listener]:
    """Of this host, as far as it tells."""
    found = []
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr:
            found.append(_listener(connection.laddr[1], connection.pid))
    return list(dict.fromkeys(found))


def _listener(port: int, pid: int | None) -> Listener:
    try:
        process = psutil.Process(pid) if pid else None
        if process is not None:
            line = [process, *process.parents()]
            return Listener(port, process.name(), "\n".join(" ".join(o.cmdline()) for o in line))
    except psutil.Error:
        pass
    return Listener(port, "a process that is gone or not to be seen", "")
