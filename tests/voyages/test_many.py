"""Many pushes at once: each ends right, and the ship is afterwards what it was before."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from attrs import frozen

from tests.voyages.harbour import App, Harbour, Said, until, whole

NAMES = 50
COMMITS = 10
MB = 2**20
SERVER = """\
import os, socket
listening = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
body = open("says", "rb").read()
while True:
    with listening.accept()[0] as client:
        client.recv(65536)
        head = b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n"
        client.sendall(head % len(body) + body)
"""


@pytest.fixture
def fleet(harbour: Harbour) -> App:
    """A repository for commits that are made without a work tree."""
    return harbour.app(
        {"Procfile": "web: exec python3 -SE server.py\n", "server.py": SERVER, "says": ""}
    )


def versions(app: App, count: int, *, in_a_row: bool) -> list[str]:
    """`count` commits of the app that say their numbers, each upon the first or upon the last."""
    stream = []
    for i in range(count):
        mark, parent = i + 1, i if in_a_row and i else "refs/heads/master"
        stream.append(
            f"commit refs/versions/{i}\nmark :{mark}\n"
            f"committer Ann <ann@example.com> {1700000000 + i} +0000\ndata 0\n"
            f"from {f':{parent}' if isinstance(parent, int) else parent}\n"
            f"M 100644 inline says\ndata {len(str(i))}\n{i}\n"
        )
    subprocess.run(
        ["git", "fast-import", "--quiet", "--force"], cwd=app.path, env=app.harbour.git_env,
        input="".join(stream), text=True, check=True,
    )  # fmt: skip
    listed = [f"refs/versions/{i}" for i in range(count)]
    return app.git("rev-parse", *listed).text.split()


@frozen
class Weight:
    """What the ship's process holds: open descriptors, and bytes of memory."""

    descriptors: int
    resident: int

    @classmethod
    def of(cls, harbour: Harbour) -> Weight:
        """As soon as nothing runs for a push any more."""
        until(lambda: at_rest(harbour), "the pushes are over")
        return cls(harbour.ship.num_fds(), harbour.ship.memory_info().rss)


def at_rest(harbour: Harbour) -> bool:
    """Whether there is a container and a process group for each service, and nothing else: no git,
    no hook, no build, nothing that is being replaced."""
    status = json.loads(harbour.starphleet("status", "--json").text)
    containers = {path.name for path in (harbour.root / "containers").iterdir()} - {".accounts"}
    commits = sorted(service["commit"][:12] for service in status["services"])
    found = processes(harbour)
    return (
        sorted(name.rpartition("-")[2] for name in containers) == commits
        and running(harbour) == containers
        and all(supports(line, containers) for line in found)
        and found.count("init") == (len(containers) if harbour.runtime == "lxc" else 0)
        and not [child for child in harbour.ship.children() if child.status() == "zombie"]
    )


def supports(line: str, containers: set[str]) -> bool:
    """Whether this is a process that stands around those of services: nginx, the sandbox of one,
    or LXC's monitor and init of one. A build has a monitor of another name."""
    words = line.split()
    if words[0].endswith("lxc-execute"):
        return words[words.index("-n") + 1] in containers
    return words == ["init"] or "bwrap" in line or "nginx:" in line


def running(harbour: Harbour) -> set[str]:
    """The containers in which something runs."""
    found = (environment(process).get("STARPHLEET_CONTAINER") for process in psutil.process_iter())
    return {Path(name).name for name in found if name and Path(name).is_relative_to(harbour.root)}


def processes(harbour: Harbour) -> list[str]:
    """Command lines of all processes that have to do with the ship, but for itself."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            line = " ".join(process.cmdline())
            told = line + "".join(environment(process).values())
            if str(harbour.root) in told and process.pid != harbour.ship.pid:
                found.append(line)
    return found


def environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}


def test_fifty_names_at_once(fleet: App) -> None:
    """50 simultaneous pushes to 50 names all succeed, and each URL answers its own content; no
    container, process, descriptor or memory is left over but for what each service needs."""
    harbour, names = fleet.harbour, whole(NAMES)
    commits = versions(fleet, names + 2, in_a_row=False)
    fleet.push("first", f"{commits.pop()}:refs/heads/master")
    one = Weight.of(harbour)
    fleet.push("second", f"{commits.pop()}:refs/heads/master")
    two = Weight.of(harbour)
    with ThreadPoolExecutor(names) as pool:
        pushes = [
            pool.submit(fleet.push, f"ship{i}", f"{commit}:refs/heads/master")
            for i, commit in enumerate(commits)
        ]
        urls = [push.result().url for push in pushes]
    assert [harbour.get(url).text for url in urls] == [str(i) for i in range(names)]
    all_of_them = Weight.of(harbour)
    each = two.descriptors - one.descriptors
    assert each <= 2, "a service is watched by a descriptor or two"
    assert all_of_them.descriptors <= two.descriptors + names * each + 5
    assert all_of_them.resident <= two.resident + 32 * MB


def test_ten_commits_of_one_branch_at_once(fleet: App) -> None:
    """10 simultaneous pushes to one name each succeed, or are told in words that a newer one took
    their place or came first; one of those that succeeded serves, and the branch points to it."""
    harbour = fleet.harbour
    fleet.push("one")
    before = Weight.of(harbour)
    commits = versions(fleet, COMMITS, in_a_row=True)
    with ThreadPoolExecutor(COMMITS) as pool:
        pushes = [
            pool.submit(fleet.push, "one", f"{commit}:refs/heads/master", check=False)
            for commit in commits
        ]
        said = [push.result() for push in pushes]
    for each in said:
        assert each.status == 0 or ends_in_words(each), each.text
    tip = fleet.git("ls-remote", harbour.remote("one"), "refs/heads/master").text.split()[0]
    assert said[commits.index(tip)].status == 0
    assert harbour.get(f"http://one.localhost:{harbour.http_port}/").text == str(commits.index(tip))
    after = Weight.of(harbour)
    assert after.descriptors <= before.descriptors + 5
    assert after.resident <= before.resident + 32 * MB


def ends_in_words(said: Said) -> bool:
    """Whether a push that failed says which of the two things happened: on the ship's last line,
    or from git itself, when the client saw before it sent anything that it came too late."""
    last = said.remote[-1] if said.remote else ""
    words = ("superseded by", "git pull, then push again")
    return any(each in last for each in words) or "(non-fast-forward)" in said.text
