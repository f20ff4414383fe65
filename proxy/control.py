"""The control socket of the ship's nginx: backends, open requests, workers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from proxy.routes import Backend, ProxyError

# Twisted gives these two no types.
_unix: Any = UNIXClientEndpoint
_connect: Any = connectProtocol

FLAGS = ("asleep", "guarded", "starting", "stopped")  # of a backend, see there
PATIENCE = 5.0  # seconds that connecting may take, and then the answer


class ControlError(ProxyError):
    """nginx did not answer on its control socket, or refused what was asked."""


@frozen
class Worker:
    """A living worker, the generation of its configuration, and whether it still accepts."""

    pid: int
    generation: int
    serving: bool


class _Exchange(Protocol):
    """One HTTP/1.0 request; `answer` fires with all that came until nginx closed."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._received: list[bytes] = []
        self.answer: Deferred[bytes] = Deferred(self._abort)

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        self._received.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.answer.called:
            self.answer.callback(b"".join(self._received))

    def _abort(self, _: Deferred[bytes]) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


def backend_line(backend: Backend) -> str:
    """The form in which nginx keeps a backend: `HOST PORT CONTAINER[ FLAG]…`."""
    more = [flag for flag in FLAGS if getattr(backend, flag)]
    return " ".join((backend.host, str(backend.port), backend.container, *more))


def table_text(backends: Mapping[str, Backend]) -> str:
    """The file that nginx fills its table from when it starts: one service to a line."""
    return "".join(f"{s} {backend_line(b)}\n" for s, b in sorted(backends.items()))


class Control:
    """Speaks to nginx over its socket. Every method raises `ControlError`."""

    def __init__(self, reactor: IReactorTime, socket: Path) -> None:
        self._reactor = reactor
        self._socket = socket

    async def _ask(self, method: str, path: str, body: str = "") -> str:
        request = f"{method} {path} HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        endpoint = _unix(self._reactor, str(self._socket), timeout=PATIENCE)
        exchange = _Exchange(request.encode())
        try:
            await _connect(endpoint, exchange)
            answer = await exchange.answer.addTimeout(PATIENCE, self._reactor)
        except ConnectError as error:
            raise ControlError(f"nginx does not listen on {self._socket}: {error}") from error
        except defer.TimeoutError as error:
            raise ControlError(f"nginx gave no answer to {method} {path}") from error
        head, _, text = answer.decode(errors="replace").partition("\r\n\r\n")
        status = head.split(" ", 2)[1:2]
        if status != ["200"]:
            said = " ".join((text or head).split())[:200] or "nothing"
            raise ControlError(f"nginx refused {method} {path}: {said}")
        return text.strip()

    async def put(self, service: str, backend: Backend) -> None:
        """From now on, new requests for `service` go to `backend`."""
        await self._ask("PUT", f"/backends/{service}", backend_line(backend))

    async def delete(self, service: str) -> None:
        """From now on, `service` has no backend."""
        await self._ask("DELETE", f"/backends/{service}")

    async def backends(self) -> dict[str, Backend]:
        """What nginx knows, by service."""
        found = {}
        for line in (await self._ask("GET", "/backends")).splitlines():
            service, host, port, container, *more = line.split()
            flags = {flag: flag in more for flag in FLAGS}
            found[service] = Backend(container, host, int(port), **flags)
        return found

    async def forget(self) -> None:
        """From now on nginx asks the guard anew, whatever it said before."""
        await self._ask("PUT", "/epoch")

    async def cut_off(self) -> None:
        """What is open of the ship's own pages ends before anything more is sent."""
        await self._ask("PUT", "/left")

    async def set_online(self, online: bool) -> None:
        """From now on `/starphleet/nginx/status` says so."""
        await self._ask("DELETE" if online else "PUT", "/offline")

    async def close_connections(self) -> None:
        """For 10 s, or until a reload, have every answer be the last of its connection."""
        await self._ask("PUT", "/closing")

    async def open_requests(self, container: str) -> int:
        """Requests that are on their way to `container`, or being answered by it."""
        return int(await self._ask("GET", f"/open/{container}"))

    async def last_used(self, container: str) -> float:
        """When `container` was last asked for something, in epoch seconds; 0 for never."""
        return float(await self._ask("GET", f"/used/{container}"))

    async def workers(self) -> list[Worker]:
        """Every living worker, old generations that still finish their requests included."""
        found = []
        for line in (await self._ask("GET", "/workers")).splitlines():
            pid, generation, state = line.split()
            found.append(Worker(int(pid), int(generation), state == "serving"))
        return found
