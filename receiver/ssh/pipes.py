"""The server's ends of a child's three pipes, with back-pressure both ways.

Twisted's own pipe ends read 8 KiB at a time and buffer without bound; these keep at most the
channel's window (towards the child) and one read (from it) in memory.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
from collections import deque
from collections.abc import Callable
from itertools import islice

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor, IWriteDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python.failure import Failure
from zope.interface import implementer

STDIN_PIPE = 1024 * 1024  # bytes the kernel holds between us and a slow child
READ = 128 * 1024
_SMALL = 4096
_JOINED = 64 * 1024
_PIECES = 64  # in one writev; 64 full packets are the whole window


@implementer(IWriteDescriptor)
class Inlet:
    """The child's stdin. `drained(n)` is called when n bytes no longer take memory here."""

    def __init__(self, reactor: IReactorFDSet, drained: Callable[[int], None]) -> None:
        self._reactor = reactor
        self._drained = drained
        self._queue: deque[memoryview | bytearray] = deque()
        self._offset = 0  # bytes of the first piece that were written already
        self._fd = -1
        self._waiting = False
        self._ending = False
        self._broken = False

    def open(self, fd: int) -> None:
        """Write to `fd` from now on, and close it at the end."""
        self._fd = fd
        os.set_blocking(fd, False)
        with contextlib.suppress(OSError):  # over the user's limit: the default size does too
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, STDIN_PIPE)
        self.flush()

    def feed(self, data: memoryview) -> None:
        """Take data; it is written at the next `flush`."""
        if self._broken:
            self._drained(len(data))
        elif len(data) >= _SMALL:
            self._queue.append(data)
        elif self._queue and isinstance(last := self._queue[-1], bytearray) and len(last) < _JOINED:
            last += data  # a million one-byte packets are not to become a million objects
        else:
            self._queue.append(bytearray(data))

    def flush(self) -> None:
        """Write what the pipe takes now, the rest as it drains."""
        if self._fd >= 0 and not self._waiting and self.doWrite():
            self.close()

    def end(self) -> None:
        """Nothing more will come: close the pipe once everything is written."""
        self._ending = True
        self.flush()

    def close(self) -> None:
        """Drop what is left and close the pipe."""
        self._broken = True
        left = sum(map(len, self._queue)) - self._offset
        self._queue.clear()
        self._offset = 0
        self._close_fd()
        if left:
            self._drained(left)

    def _close_fd(self) -> None:
        self._wait(False)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _wait(self, waiting: bool) -> None:
        if waiting != self._waiting:
            self._waiting = waiting
            (self._reactor.addWriter if waiting else self._reactor.removeWriter)(self)

    def doWrite(self) -> Exception | None:  # type: ignore[override]
        written, over = self._write()
        if not over:
            self._wait(bool(self._queue))
        if written:
            self._drained(written)
        return over

    def _write(self) -> tuple[int, Exception | None]:
        """Bytes written, and why there is nothing more to write ever, if so."""
        written = 0
        while self._queue:
            pieces: list[memoryview] = [memoryview(p) for p in islice(self._queue, _PIECES)]
            pieces[0] = pieces[0][self._offset :]
            try:
                count = os.writev(self._fd, pieces)
            except BlockingIOError:
                return written, None
            except OSError:  # EPIPE: the child closed its stdin and may live on
                return written, CONNECTION_LOST
            written += count
            self._forget(count)
        return written, CONNECTION_DONE if self._ending else None

    def _forget(self, count: int) -> None:
        count += self._offset
        while self._queue and count >= len(self._queue[0]):
            count -= len(self._queue.popleft())
        self._offset = count

    def fileno(self) -> int:
        return self._fd

    def connectionLost(self, reason: Failure) -> None:
        self.close()

    def logPrefix(self) -> str:
        return "stdin"


@implementer(IReadDescriptor)
class Outlet:
    """What goes to the client: a child's stdout or stderr, or a text.

    Holds one read in `pending`, which the owner sends and clears; `changed` is called when there
    is something to send, and at the end. Read only while `want(True)`.
    """

    def __init__(self, reactor: IReactorFDSet, changed: Callable[[], None]) -> None:
        self._reactor = reactor
        self._changed = changed
        self._fd = -1
        self._reading = False
        self._draining = False
        self.pending = memoryview(b"")

    @property
    def ended(self) -> bool:
        """Nothing is left to send, and nothing will come."""
        return self._fd < 0 and not self.pending

    def open(self, fd: int) -> None:
        """Read from `fd` from now on, and close it at the end."""
        self._fd = fd
        os.set_blocking(fd, False)

    def drain(self) -> None:
        """What there is to read now is all: whoever else holds the other end is not waited for."""
        self._draining = True

    def want(self, reading: bool) -> None:
        reading = reading and self._fd >= 0
        if reading and self._draining and not _readable(self._fd):
            self._close_fd()
            return
        if reading != self._reading:
            self._reading = reading
            (self._reactor.addReader if reading else self._reactor.removeReader)(self)

    def doRead(self) -> Exception | None:  # type: ignore[override]
        try:
            data = os.read(self._fd, READ)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        if not data:
            return CONNECTION_DONE
        self.pending = memoryview(data)
        self._changed()
        return None

    def close(self) -> None:
        """Drop what is left and close the pipe."""
        self.pending = memoryview(b"")
        self._close_fd()

    def _close_fd(self) -> None:
        self.want(False)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def fileno(self) -> int:
        return self._fd

    def connectionLost(self, reason: Failure) -> None:
        self._close_fd()
        self._changed()

    def logPrefix(self) -> str:
        return "output"


def _readable(fd: int) -> bool:
    looking = select.poll()
    looking.register(fd, select.POLLIN)
    return bool(looking.poll(0))
