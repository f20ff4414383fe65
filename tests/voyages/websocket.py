"""A client of a websocket, as much of RFC 6455 as the voyages need."""

from __future__ import annotations

import base64
import os
import socket
from types import TracebackType


class Websocket:
    """One open connection to `url` by way of the loopback; texts of at most 125 bytes. `cookie` is
    sent with it."""

    def __init__(self, url: str, port: int, cookie: str = "") -> None:
        host, _, path = url.removeprefix("http://").partition("/")
        self._socket = socket.create_connection(("127.0.0.1", port), 10)
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        self._stream = self._socket.makefile("rb")
        head = [self._stream.readline()]
        while head[-1].strip():
            head.append(self._stream.readline())
        assert head[0].startswith(b"HTTP/1.1 101"), b"".join(head).decode()

    def __enter__(self) -> Websocket:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def ask(self, text: str) -> str:
        """Send `text`; the text that comes back."""
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(text.encode()))
        self._socket.sendall(bytes((0x81, 0x80 | len(masked))) + mask + masked)
        length = self._stream.read(2)[1]
        return self._stream.read(length).decode()

    def ended(self) -> bool:
        """Whether the other side has closed; waits for it for a moment only."""
        self._socket.settimeout(0.05)
        try:
            return self._socket.recv(1) == b""
        except TimeoutError:
            return False
        except ConnectionError:
            return True
        finally:
            self._socket.settimeout(10)

    def close(self) -> None:
        self._stream.close()
        self._socket.close()
