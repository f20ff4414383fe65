"""People on a ship: an admiral's shell, a captain's verbs, what a pusher may ask, who did what."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from attrs import frozen

from tests.voyages.apps import web
from tests.voyages.harbour import Harbour, until

RANKS = ("pushers", "captains")


@frozen
class Crew:
    """A person with a key of their own."""

    harbour: Harbour
    key: Path

    @classmethod
    def sign_on(cls, harbour: Harbour, name: str, below: str = "") -> Crew:
        """Let somebody in, of the rank whose directory is `below`."""
        key = harbour.home / name
        if not key.exists():
            argv = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
            subprocess.run(argv, check=True)
            directory = harbour.root / "authorized_keys" / below
            directory.mkdir(exist_ok=True)
            (directory / f"{name}.pub").write_text(key.with_name(f"{name}.pub").read_text())
        return cls(harbour, key)

    def argv(self, account: str, *words: str) -> list[str]:
        own = [
            str(self.key) if each == str(self.harbour.key) else each for each in self.harbour.ssh
        ]
        return [*own, f"{account}@localhost", *words]

    def ssh(self, account: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(account, *words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def audit(harbour: Harbour) -> list[dict[str, Any]]:
    path = harbour.root / "logs" / "audit.log"
    return [json.loads(line) for line in path.open()] if path.exists() else []


def test_an_admiral_asks_without_a_terminal(port_of_call: Harbour) -> None:
    """`ssh admiral@ship starphleet status` is this ship's own status."""
    port_of_call.app(web(), "asked").push("asked")
    ann = Crew(port_of_call, port_of_call.key)
    for words in ("starphleet status", "starphleet-status"):
        said = ann.ssh("admiral", words)
        assert said.returncode == 0, said.stderr
        assert f"the ship is up: ssh://git@localhost:{port_of_call.ssh_port}" in said.stdout
        assert "asked" in said.stdout


def test_a_pusher_asks(port_of_call: Harbour) -> None:
    """Whoever may push has status, logs, history and help of `git@`, and nothing more."""
    pia = Crew.sign_on(port_of_call, "pia", "pushers")
    port_of_call.app(web(), "seen").push("seen")
    assert "seen" in pia.ssh("git", "status", "seen").stdout
    status = json.loads(pia.ssh("git", "status", "--json").stdout)
    assert "seen" in [one["service"] for one in status["services"]]
    assert "by ann" in pia.ssh("git", "history", "seen").stdout
    assert pia.ssh("git", "logs", "seen", "-n", "5").returncode == 0
    helped = pia.ssh("git", "help")
    assert (helped.returncode, "logs SERVICE" in helped.stderr) == (0, True)
    for words in ("stop seen", "logs", "logs seen; id", "sh", "key", "attach seen", "up"):
        said = pia.ssh("git", words)
        assert (said.returncode, said.stdout) == (1, ""), words
        assert len(said.stderr.splitlines()) == 1, said.stderr
    said = pia.ssh("git", "logs", "nobody")
    assert (said.returncode, said.stderr) == (1, "starphleet: nothing serves as nobody\n")


def test_a_pusher_is_no_admiral(port_of_call: Harbour) -> None:
    """A pusher pushes services; the headquarters, a shell and a captain's verbs are closed."""
    pia = Crew.sign_on(port_of_call, "pia", "pushers")
    app = port_of_call.app(web(), "pias")
    env = {**port_of_call.git_env, "GIT_SSH_COMMAND": " ".join(pia.argv("")[:-1])}
    pushed = app.harbour._said(
        ["git", "push", port_of_call.remote("pias"), "master"], app.path, env=env
    )
    assert "pushed by pia" in pushed.text
    refused = app.harbour._said(
        ["git", "push", port_of_call.remote("headquarters"), "master"],
        app.path,
        env=env,
        check=False,
    )
    assert refused.status != 0
    assert "the headquarters is for admirals" in refused.text
    for account in ("admiral", "captain", "update"):
        assert "Permission denied" in pia.ssh(account, "id").stderr


def test_a_captain_restarts(port_of_call: Harbour) -> None:
    """A captain stops, starts and restarts services, and has no shell."""
    cat = Crew.sign_on(port_of_call, "cat", "captains")
    url = port_of_call.app(web(), "held").push("held").url
    assert cat.ssh("captain", "stop", "held").returncode == 0
    until(lambda: port_of_call.get(url).status != 200, "it is stopped")
    for verb in ("start", "restart"):
        said = cat.ssh("captain", f"starphleet-{verb}", "held")
        assert said.returncode == 0, said.stderr
        until(lambda: port_of_call.get(url).status == 200, "it serves")
    for words in ("id", "sh -c id", "attach held", "key add x y", "stop"):
        assert cat.ssh("captain", words).returncode == 1
    assert "Permission denied" in cat.ssh("admiral").stderr


def test_logs_are_followed_until_the_client_leaves(port_of_call: Harbour) -> None:
    """`logs -f` goes on as the log grows, and ends with its client."""
    ann = Crew(port_of_call, port_of_call.key)
    port_of_call.app(web(), "followed").push("followed")
    argv = ann.argv("git", "logs", "-f", "followed")
    client = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    (log,) = (port_of_call.root / "logs").glob("followed-*.log")
    with log.open("a") as file:
        file.write("a line of later\n")
    assert client.stdout is not None
    assert any("a line of later" in line for line in iter(client.stdout.readline, ""))
    client.send_signal(signal.SIGKILL)
    client.communicate()
    until(
        lambda: not any("followed" in argv for argv in port_of_call.processes()),
        "nobody follows any more",
    )


def test_who_did_what(port_of_call: Harbour) -> None:
    """Pushes, questions and shells are in the audit log, each with its key's owner."""
    ann = Crew(port_of_call, port_of_call.key)
    port_of_call.app(web(), "noted").push("noted")
    ann.ssh("admiral", "exit 4")
    ann.ssh("git", "history", "noted")
    wanted = {
        ("git", "git-receive-pack 'noted'", "exit 0"),
        ("admiral", "exit 4", "exit 4"),
        ("git", "history noted", "exit 0"),
    }

    def there() -> bool:
        lines = [each for each in audit(port_of_call) if each["owner"] == "ann"]
        return wanted <= {(each["account"], each["did"], each["ended"]) for each in lines}

    until(there, "all of it is in the audit log")


def test_an_admiral_starts_the_ship_anew(port_of_call: Harbour) -> None:
    """`starphleet` in an admiral's session has the settings that the ship was started with."""
    ann = Crew(port_of_call, port_of_call.key)
    said = ann.ssh("admiral", "env").stdout.splitlines()
    for name in ("STARPHLEET_SSH_PORT", "STARPHLEET_HTTP_PORT", "STARPHLEET_ROOT"):
        assert f"{name}={port_of_call.env[name]}" in said
    assert str(Path(sys.executable).parent) in ann.ssh("admiral", "echo $PATH").stdout
    assert str(os.geteuid()) == ann.ssh("admiral", "id -u").stdout.strip()
