"""A `git-receive-pack` conversation by hand: what git's own client would not send."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence

from tests.voyages.harbour import App, Harbour, Said

ZERO = "0" * 40
CAPABILITIES = "report-status side-band-64k quiet agent=wire"


def packet(text: str | bytes) -> bytes:
    """One pkt-line."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    return b"%04x" % (len(data) + 4) + data


def packed(app: App, *commits: str) -> bytes:
    """A pack of these commits and all that they need."""
    argv = ["git", "pack-objects", "--revs", "--stdout", "-q"]
    text = "".join(f"{commit}\n" for commit in commits).encode()
    return subprocess.run(
        argv, cwd=app.path, env=app.harbour.git_env, input=text, capture_output=True, check=True
    ).stdout


def command(harbour: Harbour, words: str | bytes, stdin: bytes = b"") -> Said:
    """One command over SSH; its exit status and everything that came back."""
    done = subprocess.run(
        [*harbour.ssh, "git@localhost", words],
        input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=120,
    )  # fmt: skip
    return Said(done.returncode, done.stdout.decode("utf-8", "surrogateescape"), 0.0)


def receive_pack(
    harbour: Harbour, name: str, updates: Sequence[tuple[str, str, str]], pack: bytes
) -> Said:
    """Ask for `updates` (old, new, ref) of the repository `name`, as they are given."""
    lines = [f"{old} {new} {ref}" for old, new, ref in updates]
    sent = packet(f"{lines[0]}\0{CAPABILITIES}") + b"".join(map(packet, lines[1:])) + b"0000"
    return command(harbour, f"git-receive-pack '{name}'", sent + pack)


def verdict(said: Said, ref: str) -> str:
    """What the report says of `ref`: `ok`, or the reason of an `ng`, or nothing at all."""
    found = re.search(rf"(ok|ng) {re.escape(ref)} ?([^\n]*)", said.text)
    return (found[2] or found[1]) if found else ""
