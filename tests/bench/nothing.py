"""A push that builds nothing against the same push to sshd and a bare repository."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.bench.measure import Line, alternate, ratio, seconds
from tests.bench.scene import Scene
from tests.voyages.apps import web

ROUNDS = 15


def nothing(scene: Scene) -> Iterator[Line]:
    """Ten small files that serve already, pushed to the trunk's other name; no ref is there."""
    app = scene.harbour.app({**web(), **{f"file{i}": f"{i}\n" * 20 for i in range(7)}}, "nothing")
    bare = scene.bare("nothing")
    kept = scene.harbour.root / "repositories" / "nothing.git"
    targets = (
        (scene.at_ship("nothing"), kept, scene.harbour.ssh_port),
        (scene.at_sshd(bare), bare, scene.sshd_port),
    )
    for where, _, port in targets:
        scene.push(app, where, "master", port=port)

    def pushed(where: str, repository: Path, port: int) -> float:
        taken = seconds(lambda: scene.push(app, where, "master:main", port=port))
        forget(repository, "refs/heads/main")
        return taken

    ship, sshd = (lambda: pushed(*targets[0])), (lambda: pushed(*targets[1]))
    ours, theirs = alternate(ROUNDS, ship, sshd)
    yield Line("push that builds nothing : to sshd, bare repository", ours, theirs, ratio(0.5))


def forget(repository: Path, ref: str) -> None:
    """Remove a ref, so that it can be pushed as a new one; it must be there."""
    git = ["git", "-C", str(repository)]
    subprocess.run([*git, "show-ref", "--quiet", "--verify", ref], check=True)
    subprocess.run([*git, "update-ref", "-d", ref], check=True)
