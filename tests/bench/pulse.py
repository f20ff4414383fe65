"""A pulse in which nothing moves, over many repositories, and what bad ones among them do to it."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hooks.layout import Layout
from receiver.headquarters.git import environment
from tests.bench.measure import Figure, Line, more, ratio
from tests.bench.scene import Scene
from tests.buildpacks.gitserver import GitServer

# In a PID namespace of its own the processes that were started can be counted.
ALONE = (
    *("unshare", "--pid", "--fork", "--mount-proc", "--kill-child"),
    *(() if os.geteuid() == 0 else ("--map-root-user",)),
)
LS_REMOTE = """
before=$(cat /proc/sys/kernel/ns_last_pid)
for url; do git ls-remote --quiet "$url" HEAD >/dev/null 2>&1 || exit 1; done
after=$(cat /proc/sys/kernel/ns_last_pid)
echo $((after - 1 - before))
"""
MANY, FEW, BY_SSH = 200, 50, 40
ROUNDS = 3


def pulse(scene: Scene) -> Iterator[Line]:
    """A quiet pulse against `git ls-remote` of the same; more against fewer; bad against none."""
    served = scene.harbour.home / "served"
    served.mkdir()
    first = bare(served / "0.git")
    repositories = [first, *(served / f"{n}.git" for n in range(1, MANY))]
    for path in repositories[1:]:
        shutil.copytree(first, path)
    server = GitServer(served)
    try:
        yield from costs(scene, server, repositories)
        yield from growth(scene, server)
        yield delays(scene, server, first)
    finally:
        server.stop()


def costs(scene: Scene, server: GitServer, repositories: Sequence[Path]) -> Iterator[Line]:
    """CPU of the client's side alone. One round of `git ls-remote` will do: it varies little."""
    user = getpass.getuser()
    for name, urls, bound in [
        ("https", [f"{server.url}/{path.name}" for path in repositories], 0.2),
        ("path", [str(path) for path in repositories], 1.5),
        (
            "ssh",
            [f"ssh://{user}@localhost:{scene.sshd_port}{p}" for p in repositories[:BY_SSH]],
            0.3,
        ),
    ]:
        ours, started = asked(scene, server, urls)
        against, theirs = ls_remote(scene, server, urls)
        what = f"of a pulse, {len(urls)} by {name}; git ls-remote"
        yield Line(f"CPU {what}", ours, against, ratio(bound))
        yield Line(f"processes {what}", started, theirs, ratio(1.1))


def growth(scene: Scene, server: GitServer) -> Iterator[Line]:
    """What counts is how many URLs there are, and no more than that."""
    urls = [f"{server.url}/{n}.git" for n in range(MANY)]
    many, few = in_turn(scene, server, urls, urls[:FEW])
    yield Line(f"CPU of a pulse, {MANY} URLs; {FEW} URLs", many, few, ratio(1.1 * MANY / FEW))
    shared = [f"{url}#b{n}" for url in urls[:20] for n in range(10)]
    services, alone = in_turn(scene, server, shared, [f"{url}#b0" for url in urls[:20]])
    yield Line("CPU of a pulse, 200 services of 20 URLs; 20 of 20", services, alone, ratio(2))


def in_turn(
    scene: Scene, server: GitServer, ours: Sequence[str], against: Sequence[str]
) -> tuple[Figure, Figure]:
    """Both asked in turn, so that what else goes on here does the same to both."""
    rounds = [[asked(scene, server, urls)[0].samples for urls in (ours, against)] for _ in range(2)]
    first, second = (
        [one for samples in side for one in samples] for side in zip(*rounds, strict=True)
    )
    return Figure(tuple(first)), Figure(tuple(second))


def delays(scene: Scene, server: GitServer, moving: Path) -> Line:
    """Seconds from a push to its being seen, with a pulse of one second."""
    good = [f"{server.url}/{n}.git" for n in range(20)]
    with silent() as port:
        bad = [f"https://127.0.0.1:{port}/hangs.git"]
        bad += [f"{server.url}/none-{n}.git" for n in range(10)]
        ours = seen(scene, server, [*good, *bad], moving)
    against = seen(scene, server, good, moving)
    return Line("push to seen, 1 of 31 URLs hangs, 10 fail; 20 URLs", ours, against, more(0.5))


def bare(path: Path) -> Path:
    """A bare repository with ten branches at one commit."""
    env = {
        "PATH": os.environ["PATH"],
        "GIT_CONFIG_GLOBAL": "/dev/null",
        **{f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in NAMES},
    }

    def git(*words: str) -> str:
        argv = ["git", "--git-dir", str(path), *words]
        return subprocess.check_output(argv, env=env, text=True).strip()

    git("init", "-q", "--bare", "-b", "b0")
    tree = git("hash-object", "-w", "-t", "tree", "/dev/null")
    commit = git("commit-tree", tree, "-m", "one")
    for n in range(10):
        git("update-ref", f"refs/heads/b{n}", commit)
    return path


NAMES = ("NAME", "EMAIL")


@contextmanager
def asker(
    scene: Scene, server: GitServer, urls: Sequence[str], rounds: int
) -> Iterator[subprocess.Popen[str]]:
    """The process that asks, which ends with the block."""
    root = scene.harbour.home / "asker"
    known(scene, root)
    process = subprocess.Popen(
        [*ALONE, sys.executable, "-m", __package__ + ".asker", root, server.pem, str(rounds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    try:
        process.stdin.write("\n".join(urls))
        process.stdin.close()
        yield process
    finally:
        process.kill()
        process.wait()


def known(scene: Scene, root: Path) -> Layout:
    """The root of what asks, with the key that sshd lets in."""
    layout = Layout(root)
    layout.prepare()
    (layout.private_keys / "key").write_bytes(scene.harbour.key.read_bytes())
    (layout.private_keys / "key").chmod(0o600)
    return layout


def asked(scene: Scene, server: GitServer, urls: Sequence[str]) -> tuple[Figure, Figure]:
    """What a pulse over `urls` costs: seconds of CPU, and processes that are started."""
    with asker(scene, server, urls, ROUNDS) as process:
        assert process.stdout is not None
        costs = [json.loads(line) for line in process.stdout]
    started = tuple(cost["processes"] for cost in costs)
    return Figure(tuple(cost["cpu"] for cost in costs)), Figure(started, "")


def ls_remote(scene: Scene, server: GitServer, urls: Sequence[str]) -> tuple[Figure, Figure]:
    """The same for git, asked for each of `urls` with the environment that a ship gives it."""
    layout = known(scene, scene.harbour.home / "asker")
    env = environment(layout, urls[0], os.environ["PATH"], {"GIT_SSL_CAINFO": str(server.pem)})
    argv = [*ALONE, "sh", "-c", LS_REMOTE, "sh", *urls]
    process = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    started = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)  # of it and of all that it waited for
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise AssertionError(f"git ls-remote of {urls[0]} and more: {process.returncode}")
    return Figure((used.ru_utime + used.ru_stime,)), Figure((int(started),), "")


def seen(scene: Scene, server: GitServer, urls: Sequence[str], moving: Path) -> Figure:
    """Seconds from a move of the first of `urls` to its being told, several times."""
    with asker(scene, server, urls, 0) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise AssertionError("the asker did not get ready")
        return Figure(tuple(once(process.stdout.readline, moving) for _ in range(8)))


def once(told: Callable[[], str], moving: Path) -> float:
    git = ["git", "--git-dir", str(moving)]
    tree = subprocess.check_output([*git, "rev-parse", "b0^{tree}"], text=True).strip()
    argv = [*git, "-c", "user.name=a", "-c", "user.email=a@b", "commit-tree", tree, "-p", "b0"]
    commit = subprocess.check_output([*argv, "-m", "more"], text=True).strip()
    began = time.monotonic()
    subprocess.run([*git, "update-ref", "refs/heads/b0", commit], check=True)
    told()
    return time.monotonic() - began


@contextmanager
def silent() -> Iterator[int]:
    """A port where connections are taken and nothing is ever said."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield listening.getsockname()[1]
