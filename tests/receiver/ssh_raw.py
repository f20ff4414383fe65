"""Clients that do what no honest client does."""

from __future__ import annotations

import contextlib
import socket
import struct

import paramiko

from receiver.ssh.ciphers import Clear


def text(value: bytes) -> bytes:
    return struct.pack(">L", len(value)) + value


class Raw:
    """A client that has no manners: sends what it is told, unencrypted."""

    def __init__(self, port: int, *, version: bool = True) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        if version:
            self._socket.sendall(b"SSH-2.0-raw\r\n")

    def send(self, *payloads: bytes) -> None:
        with contextlib.suppress(OSError):  # it may have thrown us out by now
            self._socket.sendall(b"".join(Clear().seal(0, payload) for payload in payloads))

    def kexinit(self, *extra: bytes) -> bytes:
        kex = b",".join((b"curve25519-sha256", *extra))
        cipher, mac = b"aes128-gcm@openssh.com", b"hmac-sha2-256-etm@openssh.com"
        names = (kex, b"ssh-ed25519", cipher, cipher, mac, mac, b"none", b"none", b"", b"")
        return bytes((20,)) + bytes(16) + b"".join(map(text, names)) + bytes(5)

    def farewell(self) -> str:
        """Everything until the server closes; the text of its disconnect message."""
        said = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := self._socket.recv(65536):
                said += chunk
        self.close()
        _, _, packets = said.partition(b"\r\n")
        while packets:
            size = 4 + struct.unpack(">L", packets[:4])[0]
            payload, packets = bytes(Clear().open(0, memoryview(packets[:size]))), packets[size:]
            if payload[0] == 1:
                return payload[9 : 9 + struct.unpack(">L", payload[5:9])[0]].decode()
        return ""

    def close(self) -> None:
        self._socket.close()


class Forged(paramiko.Ed25519Key):  # type: ignore[misc]
    """Signs with its own key, and says that it is another."""

    claim = b""

    def asbytes(self) -> bytes:
        return self.claim
