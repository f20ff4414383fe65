"""`kill -9` of the ship at any moment: what served serves, and nothing half-made stays."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.voyages.apps import slow_build, web
from tests.voyages.harbour import Harbour, until
from tests.voyages.test_watching import read_until


def services(harbour: Harbour) -> list[psutil.Process]:
    """Processes of services of this ship."""
    marker = str(harbour.root / "containers")
    found = []
    for process in psutil.process_iter():
        try:
            if any(marker in value for value in process.environ().values()):
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    return found


def test_what_served_goes_on_serving_through_a_kill(harbour: Harbour) -> None:
    """The services and nginx outlive the ship, and the next ship takes them over as they are."""
    url = harbour.app(web("steady")).push("steady").url
    before = {process.pid for process in services(harbour)}
    harbour.kill()
    assert harbour.get(url).text == "steady"
    harbour.up()
    assert harbour.get(url).text == "steady"
    assert {process.pid for process in services(harbour)} == before


def test_a_stopped_ship_brings_everything_back_without_a_build(harbour: Harbour) -> None:
    """After `down` nothing runs; after `up` the same release answers at the same URL."""
    url = harbour.app(web("back")).push("back").url
    harbour.down()
    assert services(harbour) == []
    harbour.up()
    until(lambda: harbour.get(url).text == "back", "the service answers")


def test_a_ship_that_stops_during_a_restart_leaves_nothing_running(harbour: Harbour) -> None:
    """What somebody lets start again just then is stopped with the rest, and is back with it."""
    slow_to_end = "import signal, time\nsignal.signal(15, lambda *_: (time.sleep(1), exit()))\n"
    files = web("slow to end")
    url = harbour.app({**files, "server.py": slow_to_end + files["server.py"]}).push("last").url
    with ThreadPoolExecutor() as people:
        people.submit(harbour.starphleet, "restart", "last", check=False)
        backends = harbour.root / "nginx" / "backends"
        until(lambda: "starting" in backends.read_text(), "it is restarted")
        harbour.down()
    assert services(harbour) == []
    harbour.up()
    until(lambda: harbour.get(url).text == "slow to end", "it is back")


def test_a_service_that_died_with_the_ship_is_started_again(harbour: Harbour) -> None:
    """Ship and service both killed: the release is started from its container."""
    url = harbour.app(web("both")).push("both").url
    harbour.kill()
    for process in services(harbour):
        process.kill()
    harbour.up()
    until(lambda: harbour.get(url).text == "both", "the service answers")


def test_a_killed_deploy_leaves_nothing_half_made(harbour: Harbour) -> None:
    """Killed during a build: the old version serves, the new one left no container, no process,
    no ref; the same commit can be pushed."""
    app = harbour.app(web("old"))
    url = app.push("half").url
    kept = {path.name for path in (harbour.root / "containers").glob("half-*")}
    before = app.git("ls-remote", harbour.remote("half")).text
    app.commit(slow_build("new", "sleep 2"))
    push = app.pushing("half")
    read_until(push, "building")
    harbour.kill()
    push.communicate(timeout=60)
    assert push.returncode != 0
    harbour.up()
    assert harbour.get(url).text == "old"
    assert {path.name for path in (harbour.root / "containers").glob("half-*")} == kept
    assert app.git("ls-remote", harbour.remote("half")).text == before
    assert not list((harbour.root / "scratch").iterdir())
    app.push("half")
    assert harbour.get(url).text == "new"


@pytest.mark.parametrize("words", ["pushed by", "Starting web", "Healthy", "is live with"])
def test_killed_at_any_step(harbour: Harbour, words: str) -> None:
    """Killed as it says each line of a deploy: one whole version serves, the old or the new, with
    nothing beside it, and the same commit can be pushed."""
    app = harbour.app(web("old"))
    url = app.push("step").url
    app.commit(web("new"))
    push = app.pushing("step")
    read_until(push, words)
    harbour.kill()
    push.communicate(timeout=60)
    assert harbour.get(url).text in ("old", "new")
    harbour.up()
    until(lambda: harbour.get(url).text in ("old", "new"), "a version serves")
    assert len(list((harbour.root / "containers").glob("step-*"))) == 1
    app.push("step")
    assert harbour.get(url).text == "new"


def test_a_service_that_ends_is_started_again(harbour: Harbour) -> None:
    """Autorestart: killed from outside, it answers again at the same URL."""
    url = harbour.app(web("again")).push("again").url
    for process in services(harbour):
        if process.name().startswith("python"):
            os.kill(process.pid, 9)
    until(lambda: harbour.get(url).text == "again", "the service answers again")


def test_one_ship_per_root(harbour: Harbour) -> None:
    """A second ship in the same root is refused in words."""
    said = harbour.starphleet("ship", check=False)
    assert said.status == 1
    assert "a ship runs in" in said.text


def test_a_port_that_somebody_has(tmp_path: Path) -> None:
    """A ship that cannot have its port says which, and has started nothing in vain."""
    with Harbour(tmp_path / "harbour") as harbour:
        with socket.create_server(("127.0.0.1", harbour.ssh_port)):
            said = harbour.starphleet("up", check=False)
        assert said.status == 1
        assert f"port {harbour.ssh_port} is taken" in said.text
        started = [one.info["cmdline"] for one in psutil.process_iter(["cmdline"])]
        assert not [argv for argv in started if str(harbour.root) in " ".join(argv or ())]


def test_a_ship_is_started_and_stopped_by_commands(tmp_path: Path) -> None:
    """`starphleet up`, `reload` and `down`: a ship in the background, what it serves meanwhile, and
    nothing after it."""
    with Harbour(tmp_path / "harbour") as harbour:
        assert "the ship is up" in harbour.starphleet("up").text
        url = harbour.app(web("commanded")).push("commanded").url
        assert "the ship is up" in harbour.starphleet("reload").text
        assert harbour.get(url).text == "commanded"
        assert "the ship is down" in harbour.starphleet("down").text
        assert services(harbour) == []
        assert "no ship runs here" in harbour.starphleet("down").text
