"""Zero downtime: traffic during a re-push, and what is still open when a container is replaced."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.voyages.harbour import REAL, Harbour, until, whole
from tests.voyages.websocket import Websocket

PUSHES = 30
CONNECTIONS = 50
WAIT = 5  # seconds, STARPHLEET_DRAINSTOP_WAIT
HAMMER = Path(__file__).with_name("hammer.py")


@pytest.fixture(scope="module")
def harbour(runtime: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harbour]:
    """A ship that gives open requests a few seconds."""
    settings = {"STARPHLEET_DRAINSTOP_WAIT": str(WAIT)}
    with Harbour(tmp_path_factory.mktemp("harbour"), settings) as harbour:
        harbour.up()
        yield harbour


def containers(harbour: Harbour, service: str) -> list[str]:
    return [path.name for path in (harbour.root / "containers").glob(f"{service}-*")]


def test_thirty_pushes_under_load(harbour: Harbour) -> None:
    """While 50 keep-alive connections are busy, 30 re-pushes fail or reset no request, and no
    request that was sent after a push had returned is answered by the version before."""
    app = harbour.app(REAL / "liner", "load")
    app.push("load")
    pushes = whole(PUSHES)
    host = f"load.localhost:{harbour.http_port}"
    argv = [sys.executable, str(HAMMER), str(harbour.http_port), host, str(CONNECTIONS)]
    load = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert load.stdout is not None
    assert load.stdout.readline() == "hammering\n"
    returned = {}
    try:
        for version in range(1, pushes + 1):
            app.commit({"version": str(version)})
            app.push("load")
            returned[version] = time.monotonic()
    finally:
        told, _ = load.communicate()
    found = json.loads(told)
    assert found["failures"] == []
    late = {
        version: found["last"][str(version - 1)] - at
        for version, at in returned.items()
        if found["last"].get(str(version - 1), 0.0) > at
    }
    assert late == {}
    assert set(found["last"]) == {str(version) for version in range(pushes + 1)}
    assert found["count"] > 100 * pushes
    until(lambda: len(containers(harbour, "load")) == 1, "the replaced containers are gone")


def test_a_long_poll_outlives_its_version(harbour: Harbour) -> None:
    """A request of four seconds that began before a re-push is answered whole by the old version,
    while the new one answers everybody else."""
    app = harbour.app(REAL / "liner", "poll")
    url = app.push("poll").url
    answers: list[str] = []
    app.commit({"version": "1"})
    poll = threading.Thread(target=lambda: answers.append(harbour.get(f"{url}after/4").text))
    poll.start()
    pushed = app.push("poll")
    assert pushed.seconds < 4, "the push took longer than the poll: nothing was shown"
    assert answers == []
    assert harbour.get(url).text == "GET 1"
    assert len(containers(harbour, "poll")) == 2
    poll.join()
    assert answers == ["GET 0"]
    until(lambda: len(containers(harbour, "poll")) == 1, "the old container is gone", 2)


def test_a_websocket_outlives_its_version_and_ends_by_itself(harbour: Harbour) -> None:
    """An open websocket stays with the old version, which goes as soon as the client closes."""
    app = harbour.app(REAL / "liner", "ends")
    url = app.push("ends").url
    with Websocket(url, harbour.http_port) as old:
        assert old.ask("ahoy") == "0 ahoy"
        app.commit({"version": "1"})
        app.push("ends")
        switched = time.monotonic()
        while time.monotonic() < switched + 1:
            assert old.ask("still there?") == "0 still there?"
            time.sleep(0.1)
        with Websocket(url, harbour.http_port) as new:
            assert new.ask("ahoy") == "1 ahoy"
        assert len(containers(harbour, "ends")) == 2
    until(lambda: len(containers(harbour, "ends")) == 1, "the old container is gone", WAIT / 2)


def test_a_websocket_that_stays_is_cut_after_the_wait(harbour: Harbour) -> None:
    """STARPHLEET_DRAINSTOP_WAIT seconds after the switch the old version goes, and with it what
    was still open to it; the new version is not touched."""
    app = harbour.app(REAL / "liner", "cut")
    url = app.push("cut").url
    old = Websocket(url, harbour.http_port)
    app.commit({"version": "1"})
    app.push("cut")
    switched = time.monotonic()
    new = Websocket(url, harbour.http_port)
    while time.monotonic() < switched + WAIT - 1:
        assert old.ask("ahoy") == "0 ahoy"
        time.sleep(0.2)
    until(lambda: old.ended(), "the websocket is cut", 3)
    assert WAIT - 0.5 < time.monotonic() - switched < WAIT + 3
    until(lambda: len(containers(harbour, "cut")) == 1, "the old container is gone", 2)
    assert new.ask("ahoy") == "1 ahoy"
    old.close()
    new.close()
