"""What people read: the pusher's terminal, and the ship's log."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

from tests.voyages.advisories.scene import MB, refused, services
from tests.voyages.apps import slow_build
from tests.voyages.harbour import Harbour, until
from tests.voyages.test_watching import read_until

SAFE = re.compile(r"(?:[^\x00-\x08\x0b-\x1f\x7f-\x9f]|\x1b\[[0-9;:]*m)*")
ESCAPES = (
    "\x1b]0;pwned\x07\x1b[2J\x1b[1;1H\x9b31m\x1b]52;c;cm0gLXJm\x07\x1bP+q\x1b\\"
    "\x1b[?1049h\x08\x08\x00\x7f\u202e"
)


def test_terminal_escapes_in_output(harbour: Harbour) -> None:
    """soft-serve CVE-2025-64494, git CVE-2024-52005: what a build, a failing service, an author or
    a branch says commands no terminal, in the pusher's output and in the ship's log."""
    script = f"process.stdout.write({json.dumps(ESCAPES + 'from the build')} + '\\n')"
    app = harbour.app(
        {
            "package.json": '{"name": "x", "scripts": {"build": "node say.js"}}',
            "say.js": script,
            "Procfile": "web: node say.js; exit 3\n",
        },
        "escapes",
    )
    app.git("config", "user.name", "x")
    env = {"GIT_AUTHOR_NAME": f"A{ESCAPES}".replace("\0", ""), "GIT_COMMITTER_NAME": "A\x1b[2JB"}
    subprocess.run(
        ["git", "commit", "-q", "--allow-empty", "-m", ESCAPES.replace("\0", "")],
        cwd=app.path, env=harbour.git_env | env, check=True,
    )  # fmt: skip
    log = len(harbour.log)
    for branch in ("master", "\u009b31m", "\u202eevil"):
        said = app.push("escapes", f"master:refs/heads/{branch}", check=False)
        assert said.status != 0
        assert said.text.count("from the build") == 2, said.text
        ours = "\n".join(said.remote)
        assert SAFE.fullmatch(ours), ascii(ours)
        assert not set("\u202e\u009b") & set(ours), ascii(ours)
    assert SAFE.fullmatch(harbour.log[log:]), ascii(harbour.log[log:])
    said = app.push("escapes", "master", "-o", "\x1b[2Jpwned\u202e", check=False)
    assert SAFE.fullmatch("\n".join(said.remote))
    assert "is not known" in said.text


def test_output_over_the_limit(tmp_path: Path) -> None:
    """STARPHLEET_BUILD_OUTPUT: a build that never stops talking is ended, and says so last."""
    with Harbour(tmp_path / "harbour", {"STARPHLEET_BUILD_OUTPUT": "1M"}) as harbour:
        harbour.up()
        app = harbour.app(slow_build("loud", "tr '\\\\0' x < /dev/zero"), "loud")
        said = refused(app, "loud", "printed more than 1048576 bytes")
        assert "printed more than 1048576 bytes" in said.remote[-1]
        assert len(said.text) < 2 * MB


def test_output_that_nobody_reads(harbour: Harbour) -> None:
    """A client that stands still while its build talks costs the ship no memory; when it goes on
    it is told what was left out, and how the push ended."""
    app = harbour.app(slow_build("still", "yes | head -c 1000000; echo said"), "still")
    push = app.pushing("still")
    seen = read_until(push, "building")
    os.killpg(push.pid, signal.SIGSTOP)
    before = harbour.ship.memory_info().rss
    until(lambda: "still" in services(harbour), "the build is over")
    grown = harbour.ship.memory_info().rss - before
    os.killpg(push.pid, signal.SIGCONT)
    assert push.stdout is not None
    said = seen + push.stdout.read().decode()
    assert push.wait() == 0
    assert grown < 16 * MB
    assert re.search(r"\(\d{6,} lines left out", said)
    assert "       said" in said
    assert f"http://still.localhost:{harbour.http_port}/" in said
