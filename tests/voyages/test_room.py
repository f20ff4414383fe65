"""What does not fit: a service beside what the host has, and a build beside what it may write."""

from __future__ import annotations

from pathlib import Path

from tests.voyages.apps import slow_build, web
from tests.voyages.harbour import Harbour

# In the app that is built, and in what is kept between builds.
FILL = "while :; do head -c 4M /dev/urandom | tee -a big >> ../../big; sleep 0.01; done"


def test_the_usual_limits_count(tmp_path: Path) -> None:
    """A deploy whose service may have more than the host has free is refused before it is built,
    if it is the ship that lets it; one that asks for less is made."""
    with Harbour(tmp_path / "harbour", {"STARPHLEET_MEMORY": "90000G"}) as harbour:
        harbour.up()
        app = harbour.app(web("here"))
        said = app.push("large", check=False)
        assert said.status != 0
        assert "STARPHLEET_MEMORY: 92160000 MB do not fit, the host has" in said.remote[-1]
        assert not any("Asking the buildpacks" in line for line in said.remote)
        app.commit(web("here", STARPHLEET_MEMORY="200M"))
        assert harbour.get(app.push("large").url).text == "here"


def test_a_build_that_writes_too_much(tmp_path: Path) -> None:
    """STARPHLEET_BUILD_DISK: a build that writes without end is ended, what it wrote is gone with
    what it kept, and what served goes on; the next one begins from nothing."""
    with Harbour(tmp_path / "harbour", {"STARPHLEET_BUILD_DISK": "64M"}) as harbour:
        harbour.up()
        app = harbour.app(web("old"))
        url = app.push("greedy").url
        app.commit(slow_build("greedy", FILL))
        said = app.push("greedy", check=False)
        assert said.status != 0
        assert "it wrote more than 64 MB (STARPHLEET_BUILD_DISK)" in said.remote[-1]
        assert not list(harbour.root.rglob("big"))
        assert harbour.get(url).text == "old"
        app.commit(slow_build("new", "true"))
        app.push("greedy")
        assert harbour.get(url).text == "new"
