"""An SFTP server on stdin and stdout, as the user that runs it: Conch's, where OpenSSH has none.

A program of its own, because it works on files without waiting for anything.
"""

# Conch is mostly without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from twisted.conch.ssh.filetransfer import FileTransferServer
from twisted.conch.unix import SFTPServerForUnixConchUser
from twisted.internet.error import ReactorNotRunning
from twisted.internet.protocol import connectionDone
from twisted.internet.stdio import StandardIO
from twisted.python.failure import Failure
from twisted.python.filepath import FilePath


class Here:
    """What Conch asks of a user: the directory to begin in, and to do something as them."""

    def getHomeDir(self) -> FilePath[str]:
        return FilePath(str(Path.cwd()))

    def _runAsUser(
        self, what: Callable[..., Any] | Iterable[tuple[Any, ...]], *args: object
    ) -> object:
        steps = [(what, args)] if callable(what) else what
        result = None
        for step, *given in steps:
            result = step(*(given[0] if given else ()))
        return result


class Server(FileTransferServer):
    """Ends the program when the client has gone."""

    def __init__(self, ended: Callable[[], object]) -> None:
        super().__init__(avatar=SFTPServerForUnixConchUser(Here()))
        self._ended = ended

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._ended()


def main() -> None:
    """Serve until stdin ends."""
    from twisted.internet import reactor as installed

    reactor: Any = installed

    def stop() -> None:
        try:
            reactor.stop()
        except ReactorNotRunning:
            reactor.callWhenRunning(reactor.stop)

    StandardIO(Server(stop), reactor=reactor)
    reactor.run()


if __name__ == "__main__":
    main()
