"""dulwich over paramiko: the vendor that makes dulwich's SSH client independent of OpenSSH."""

from __future__ import annotations

from pathlib import Path

import paramiko
from dulwich.client import SSHGitClient, SSHVendor

from tests.voyages.harbour import Harbour


class Conversation:
    """One command on a channel, as dulwich wants to read and write it."""

    def __init__(self, client: paramiko.SSHClient, channel: paramiko.Channel) -> None:
        self._client = client
        self._channel = channel
        self._input = channel.makefile("rb")
        self.stderr = channel.makefile_stderr("rb")

    def can_read(self) -> bool:
        return self._channel.recv_ready()

    def read(self, count: int) -> bytes:
        return self._input.read(count)

    def write(self, data: bytes) -> int:
        self._channel.sendall(data)
        return len(data)

    def close(self) -> None:
        self._channel.close()
        self._client.close()


class ParamikoVendor(SSHVendor):
    """Logs in by the harbour's key alone."""

    def __init__(self, key: Path) -> None:
        self._key = key

    def run_command(
        self, host: str, command: bytes, username: str | None = None, port: int | None = None,
        **_: object,
    ) -> Conversation:  # fmt: skip
        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        client.connect(
            host, port or 22, username, pkey=paramiko.Ed25519Key.from_private_key_file(str(self._key)),
            allow_agent=False, look_for_keys=False,
        )  # fmt: skip
        transport = client.get_transport()
        assert transport is not None
        channel = transport.open_session()
        channel.exec_command(command)
        return Conversation(client, channel)


def dulwich_client(harbour: Harbour) -> SSHGitClient:
    """A dulwich client of the ship."""
    return SSHGitClient(
        "localhost", port=harbour.ssh_port, username="git", vendor=ParamikoVendor(harbour.key)
    )
