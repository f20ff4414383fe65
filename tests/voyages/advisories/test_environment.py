"""What the programs of a push are given: hooks, configuration, variables, and what they see."""

from __future__ import annotations

import json
import os
import shlex
import stat
import subprocess
from pathlib import Path

import psutil

from tests.voyages.advisories.scene import OF_THE_SHIP, repository, touch
from tests.voyages.apps import slow_build, web
from tests.voyages.harbour import Harbour
from tests.voyages.test_watching import read_until

HOOKS = (
    *("pre-receive", "update", "post-receive", "post-update"),
    *("proc-receive", "reference-transaction"),
)
HOSTILE = ("LD_PRELOAD=/x.so", "GIT_DIR=/x", "BASH_ENV=/x", "GIT_EXEC_PATH=/x", "PYTHONPATH=/x")


def test_hooks_are_outside_the_repositories(harbour: Harbour) -> None:
    """Gitea CVE-2026-60004: git's hooks are the ship's and not the repository's. What stands in a
    repository's `hooks`, or is named by its configuration, is never run."""
    app = harbour.app(web("hooks"), "hooks")
    app.push("hooks")
    inside = repository(harbour, "hooks")
    assert not (inside / "hooks").exists()
    (inside / "hooks").mkdir()
    for name in (
        "pre-receive",
        "update",
        "post-receive",
        "post-update",
        "proc-receive",
        "reference-transaction",
    ):
        (inside / "hooks" / name).write_text(f"#!/bin/sh\n{touch(harbour, name)}\n")
        (inside / "hooks" / name).chmod(0o755)
    with (inside / "config").open("a") as config:
        config.write(f"\thooksPath = {inside / 'hooks'}\n[receive]\n\tprocReceiveRefs = none\n")
    app.commit(web("hooks again"))
    assert harbour.get(app.push("hooks").url).text == "hooks again"
    hooks = harbour.root / "run" / "hooks"
    assert (hooks.stat().st_uid, stat.S_IMODE(hooks.stat().st_mode)) == (os.getuid(), 0o700)


def test_cve_2024_41956_environment_of_git(harbour: Harbour) -> None:
    """soft-serve and Gogs: git and its hooks on the ship have an environment that is made for
    them; nothing of the client's is in it but GIT_PROTOCOL, nothing of the ship's."""
    app = harbour.app(slow_build("environment", "sleep 3"), "environment")
    sent = " ".join(f"-o SetEnv={variable}" for variable in HOSTILE)
    env = harbour.git_env | {"GIT_SSH_COMMAND": f"{shlex.join(harbour.ssh)} {sent}"}
    argv = ["git", "push", harbour.remote("environment"), "master"]
    push = subprocess.Popen(
        argv, cwd=app.path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    read_until(push, "building")
    found = environments(harbour, "environment")
    push.communicate()
    assert {line.split()[-1] for line in found} >= {"receive-pack", "proc-receive"}
    for environ in found.values():
        assert OF_THE_SHIP not in environ.values()
        assert not {f"{name}={value}" for name, value in environ.items()} & set(HOSTILE)
        others = {name for name in environ if not name.startswith(("GIT_", "STARPHLEET_"))}
        assert others <= {"PATH", "HOME", "LC_ALL"}


def environments(harbour: Harbour, name: str) -> dict[str, dict[str, str]]:
    """The environment of each process that receives a push to `name`: git, and git's hook."""
    found = {}
    for process in harbour.ship.children(recursive=True):
        environ = process.environ()
        if environ.get("STARPHLEET_REPOSITORY") == name:
            words = [Path(word).name for word in process.cmdline()]
            what = next((word for word in words if word in ("receive-pack", "proc-receive")), "")
            found[f"{process.pid} {what}"] = environ
    return found


def test_environment_of_services_and_builds(harbour: Harbour) -> None:
    """Neither a build nor a service sees a variable of the ship's own process."""
    app = harbour.app(
        {
            "Procfile": "web: env > seen; exec python3 -m http.server $PORT\n",
            "package.json": '{"name": "x", "scripts": {"build": "env > built"}}',
        },
        "seen",
    )
    url = app.push("seen").url
    for file in ("seen", "built"):
        text = harbour.get(url + file).text
        assert "PATH=" in text
        assert OF_THE_SHIP not in text
        assert "STARPHLEET_SOCKET" not in text
        assert str(harbour.root) not in text


def test_env_values_do_not_reach_a_shell(harbour: Harbour) -> None:
    """Dokku #8588, #8590: values of `.env` are data, whatever a shell would make of them; the
    service gets them byte for byte."""
    evil = touch(harbour)
    values = {
        "A": f"$({evil})",
        "B": f"`{evil}`",
        "C": f"; {evil} #",
        "D": f"' ; {evil} ; '",
        "E": f'" ; {evil} ; "',
        "F": f"a\n{evil}\n",
        "G": "${HOME} $HOME ~ * ? \\ \\\\",
        "H": f"}}; {evil}; {{",
        "I": "\x1b[2J",
        "J": " a  b ",
        "BASH_ENV": "/app/evil.sh",
        "ENV": "/app/evil.sh",
        "PS4": f"$({evil})",
        "PROMPT_COMMAND": evil,
        "LD_PRELOAD": "/app/evil.so",
        "LD_LIBRARY_PATH": "/app",
        "PYTHONSTARTUP": "/app/evil.py",
        "GIT_SSH_COMMAND": evil,
    }
    quoted = {
        name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in values.items()
    }
    app = harbour.app(
        {
            **web(),
            ".env": "".join(f'{name}="{value}"\n' for name, value in quoted.items()),
            "evil.sh": f"{touch(harbour)}\n",
            "server.py": "import json, os, http.server as h\n"
            "class A(h.BaseHTTPRequestHandler):\n"
            "    def do_GET(self):\n"
            "        self.send_response(200); self.end_headers()\n"
            "        self.wfile.write(json.dumps(dict(os.environ)).encode())\n"
            "h.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), A).serve_forever()\n",
        },
        "values",
    )
    got = json.loads(harbour.get(app.push("values").url).text)
    assert {name: got.get(name) for name in values} == values


def test_secrets_not_shown(harbour: Harbour) -> None:
    """A value of `.env` is in the service's environment and nowhere else: not in any command line
    while it is built or serves, not in what the pusher reads, the ship's log, the configuration
    of nginx or a page; what the ship keeps of it is for the ship's user alone."""
    secret = "correct-horse-battery"
    files = slow_build("secretive", "sleep 2")
    app = harbour.app({**files, ".env": f"{files['.env']}SECRET={secret}\n"}, "secretive")
    push = app.pushing("secretive")
    seen = read_until(push, "building")
    building = command_lines()
    assert push.stdout is not None
    said = seen + push.stdout.read().decode()
    assert push.wait() == 0
    serving = command_lines()
    assert any("secretive" in line for line in building)
    assert not any(secret in line for line in building + serving)
    assert secret not in said
    assert secret not in harbour.log
    assert (
        secret
        not in harbour.starphleet("status").text + harbour.starphleet("status", "--json").text
    )
    for page in ("", "env", ".env", "~secretive/.env"):
        assert (
            secret not in harbour.get(f"http://secretive.localhost:{harbour.http_port}/{page}").text
        )
    for path in harbour.root.rglob("*"):
        if path.is_file() and not path.is_symlink() and secret.encode() in path.read_bytes():
            assert readable_by_nobody_else(harbour, path), path


def command_lines() -> list[str]:
    return [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]


def readable_by_nobody_else(harbour: Harbour, path: Path) -> bool:
    """Whether the file, or a directory on the way to it, is closed to other users."""
    way = [path, *(parent for parent in path.parents if parent.is_relative_to(harbour.root))]
    return any(each.stat().st_mode & (0o004 if each == path else 0o001) == 0 for each in way)


PROBE = """\
import json, os, socket, sys

def connects(path):
    try:
        socket.socket(socket.AF_UNIX).connect(path)
    except OSError:
        return False
    return True

def writes(path):
    try:
        os.mkdir(path)
    except OSError:
        return False
    return True

def identity(path):
    try:
        return [os.stat(path).st_dev, os.stat(path).st_ino]
    except OSError:
        return []

root, *outside = sys.argv[1:]
found = {root: os.path.exists(root)}
found |= {path: connects(f"{root}/{path}") for path in ("run/ship", "nginx/control/socket")}
found |= {path: writes(path) for path in ("/evil", "/usr/evil", "/etc/evil")}
found["processes of others"] = len([name for name in os.listdir("/proc") if name.isdigit()]) > 20
found["root"] = os.getuid() == 0
found["files"] = {path: identity(path) for path in outside}
open("index.html", "w").write(json.dumps(found))
"""


def test_services_cannot_reach_the_ship(harbour: Harbour) -> None:
    """CVE-2026-22253 and its like: code that runs on a ship cannot ask the ship for anything. Its
    sockets, its files, other services' files and processes are out of reach, and what the host
    has for itself."""
    outside = ("/root", "/home", "/etc/shadow", "/var/lib")
    probe = f"python3 probe.py {harbour.root} {' '.join(outside)}"
    serve = f"{probe} && exec python3 -m http.server $PORT"
    app = harbour.app({"Procfile": f"web: {serve}\n", "probe.py": PROBE}, "probe")
    found = json.loads(harbour.get(app.push("probe").url).text)
    for path, seen in found.pop("files").items():
        assert seen != [Path(path).stat().st_dev, Path(path).stat().st_ino], path
        assert seen == [] or harbour.runtime == "lxc", path
    assert [what for what, reached in found.items() if reached] == []
