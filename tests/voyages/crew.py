"""People with keys of their own, and browsers that they let in by links."""

from __future__ import annotations

import http.client
import re
import shlex
import ssl
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from attrs import frozen

from tests.voyages.harbour import Answer, Harbour, Said


@frozen
class Person:
    """Somebody of the rank whose directory is `below`, with a key that the ship may know."""

    harbour: Harbour
    key: Path

    @classmethod
    def new(cls, harbour: Harbour, name: str, rank: str | None) -> Person:
        """Somebody of that rank; `None` for who is not known to the ship."""
        key = harbour.home / name
        argv = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
        subprocess.run(argv, check=True)
        if rank is not None:
            harbour.starphleet("key", "add", name, f"{key}.pub", "--rank", rank)
        return cls(harbour, key)

    @property
    def options(self) -> list[str]:
        """ssh and all that stands before the destination."""
        ours = str(self.harbour.key)
        return [str(self.key) if each == ours else each for each in self.harbour.ssh]

    def run(self, *argv: str, cwd: Path | None = None) -> Said:
        """One program, git with this key."""
        env = {**self.harbour.git_env, "GIT_SSH_COMMAND": shlex.join(self.options)}
        return self.harbour._said(list(argv), cwd or self.harbour.home, check=False, env=env)

    def ssh(self, account: str, *words: str) -> Said:
        return self.run(*self.options, f"{account}@localhost", *words)

    def open(self, what: str) -> str:
        """The URL that `open` prints, alone."""
        said = self.ssh("git", "open", what)
        assert re.fullmatch(r"https?://\S+\n", said.text), said.text
        return said.text.strip()

    def come_in(self, what: str) -> dict[str, str]:
        """The headers of a browser that was let in by a link."""
        answer = ask(self.open(what))
        assert answer.status == 302, answer
        assert "starphleet_link" not in answer.headers["Location"]
        return {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}


def ask(url: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Answer:
    """One request by way of the loopback, whatever host the URL names."""
    parts = urlsplit(url)
    assert parts.port is not None
    if parts.scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        to: http.client.HTTPConnection = http.client.HTTPSConnection(
            "127.0.0.1", parts.port, timeout=30, context=context
        )
    else:
        to = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=30)
    query = f"?{parts.query}" if parts.query else ""
    try:
        to.request(
            method, f"{parts.path}{query}", headers={"Host": parts.netloc, **(headers or {})}
        )
        answer = to.getresponse()
        if answer.getheader("Content-Type", "").startswith("text/event-stream"):
            text = answer.readline().decode()  # it has no end
        else:
            text = answer.read().decode("utf-8", "replace")
        return Answer(answer.status, text, dict(answer.getheaders()))
    finally:
        to.close()
