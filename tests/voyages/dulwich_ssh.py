"""dulwich over paramiko: a git that is not git, over an SSH that is not OpenSSH."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import paramiko
from attrs import frozen
from dulwich.client import SSHGitClient, SSHVendor
from dulwich.repo import Repo

from tests.voyages.harbour import App, Harbour

MASTER: Any = b"refs/heads/master"


class Conversation:
    """One command on a channel, as dulwich wants to read and write it."""

    def __init__(self, client: paramiko.SSHClient, channel: paramiko.Channel) -> None:
        self._client = client
        self._channel = channel
        self._input = channel.makefile("rb")
        self.stderr = channel.makefile_stderr("rb")

    def can_read(self) -> bool:
        return bool(self._channel.recv_ready())

    def read(self, count: int) -> bytes:
        return bytes(self._input.read(count))

    def write(self, data: bytes) -> int:
        self._channel.sendall(data)
        return len(data)

    def close(self) -> None:
        self._channel.close()
        self._client.close()


class ParamikoVendor(SSHVendor):
    """Logs in by one key alone."""

    def __init__(self, key: Path) -> None:
        self._key = paramiko.Ed25519Key.from_private_key_file(str(key))

    def run_command(
        self,
        host: str,
        command: bytes,
        username: str | None = None,
        port: int | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        alone = {"allow_agent": False, "look_for_keys": False}
        client.connect(host, port or 22, username, pkey=self._key, **alone)
        transport = client.get_transport()
        assert transport is not None
        channel = transport.open_session()
        channel.exec_command(command)
        return Conversation(client, channel)


@frozen
class Pushed:
    """What dulwich made of a push: no error if the branch was taken, and what the ship said."""

    error: str | None
    said: list[str]


def _client(harbour: Harbour) -> SSHGitClient:
    vendor = ParamikoVendor(harbour.key)
    return SSHGitClient("localhost", port=harbour.ssh_port, username="git", vendor=vendor)


def push(app: App, name: str) -> Pushed:
    """Push the app's HEAD to master of `name`."""
    said: list[bytes] = []
    with Repo(str(app.path)) as repository:
        data: Any = repository.generate_pack_data
        result = _client(app.harbour).send_pack(
            f"/{name}".encode(), lambda refs: {MASTER: repository.head()}, data, said.append
        )
    assert result.ref_status is not None
    return Pushed(result.ref_status[MASTER], b"".join(said).decode().splitlines())


def master_of(harbour: Harbour, name: str) -> str:
    """The commit of master, as dulwich lists it."""
    return (_client(harbour).get_refs(f"/{name}".encode()).refs[MASTER] or b"").decode()
