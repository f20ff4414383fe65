"""The checker's process: `python -m proxy.guard PREFIX [USER]`.

It listens, leaves who started it, and ends with status 0 there, or with one line of why not.
`USER` is who nginx's workers are: nobody else may ask.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.python.logfile import LogFile

from proxy.guard import store
from proxy.guard.checker import Checker
from proxy.guard.keeper import digest
from proxy.guard.ldap import verify
from proxy.guard.server import site

LOG_LIMIT = 10_000_000  # bytes, and as many of the one before
BACKLOG = 512
THREADS = 64  # directories that say nothing must not keep passwords waiting


def main(argv: Sequence[str]) -> int:
    """Become the checker of a prefix; the exit status of who started it."""
    prefix, user = Path(argv[0]), argv[1] if len(argv) > 1 else ""
    here = store.place(prefix)
    lock = (here / "pid").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("another one runs already", file=sys.stderr)
        return 1
    lock.truncate(0)
    key = store.own_key(prefix)
    listening = _listen(here, user)
    told, tell = os.pipe()
    log = prefix / "logs" / "guard.log"
    if os.fork():
        os.close(tell)
        if os.read(told, 1):
            return 0
        print(f"see {log}", file=sys.stderr)
        return 1
    os.setsid()
    _leave(log)
    lock.write(f"{os.getpid()} {digest()}\n")
    lock.flush()
    reactor = _open(prefix, key, listening, log)
    os.write(tell, b".")
    os.close(tell)
    reactor.run()
    return 0


def _listen(here: Path, user: str) -> socket.socket:
    path = here / "socket"
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    if user:
        shutil.chown(path, user)
    listening.listen(BACKLOG)
    listening.setblocking(False)
    return listening


def _leave(log: Path) -> None:
    """No terminal, no pipe of who started it."""
    nothing = os.open(os.devnull, os.O_RDWR)
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor, to in enumerate((nothing, written, written)):
        os.dup2(to, descriptor)


def _open(prefix: Path, key: bytes, listening: socket.socket, log: Path) -> Any:
    """The reactor that answers whoever asks, once it runs."""
    from twisted.internet import reactor as installed  # after the fork, for it stays

    reactor: Any = installed
    file: Any = LogFile(log.name, str(log.parent), LOG_LIMIT, maxRotatedFiles=1)
    globalLogBeginner.beginLoggingTo([textFileLogObserver(file)], redirectStandardIO=False)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    reactor.suggestThreadPoolSize(THREADS)
    checker = Checker(store.Reader(prefix), key, verify, place=store.place(prefix))
    reactor.adoptStreamPort(listening.fileno(), socket.AF_UNIX, site(checker))
    listening.listen(BACKLOG)  # Twisted has said its own
    (store.place(prefix) / "socket").chmod(0o600)  # Twisted has opened it for everybody
    return reactor


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
