"""The ship's own pages on two real ships: metrics, status and the log stream, through nginx."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import pytest
from attrs import frozen
from prometheus_client.parser import text_string_to_metric_families

from tests.ports import free_port
from tests.receiver.crowd import Crowd
from tests.receiver.web_scene import Ear, Heard, ear
from tests.voyages.apps import web
from tests.voyages.browser import Browser
from tests.voyages.crew import Person, ask
from tests.voyages.harbour import ROOT, App, Harbour, until

PAGE = ROOT / "docs/pages.md"
METRICS, PEERS = "a-token-for-metrics", "a-token-of-the-phleet"
BEARER = {"Authorization": f"Bearer {PEERS}"}
TALKS = """\
import http.server, os

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/end":
            os._exit(3)
        count, size = (self.path.strip("/") or "0/1").split("/")
        print("\\n".join(f"{number} ".ljust(int(size), ".") for number in range(int(count))))
        print("\\x1b[31mdone\\x1b[0m", flush=True)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
"""`GET /COUNT/SIZE` makes it say so many lines, and then `done`; `/end` ends it."""


@frozen
class Phleet:
    """Two ships that name each other as peers; on `ada` there is a service `talk`."""

    ada: Harbour
    bob: Harbour
    app: App

    def say(self, count: int = 0, size: int = 1) -> None:
        assert self.ada.get(f"http://talk.localhost/{count}/{size}").status == 200

    def ear(self, query: str = "", headers: Mapping[str, str] = BEARER) -> Ear:
        return ear(self.ada.http_port, query, headers)


@pytest.fixture(scope="module")
def phleet(runtime: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phleet]:
    home = tmp_path_factory.mktemp("phleet")
    with Harbour(home / "a") as ada, Harbour(home / "b") as bob:
        for name, harbour in (("ada", ada), ("bob", bob)):
            harbour.settings |= {
                "STARPHLEET_SHIP_NAME": name,
                "STARPHLEET_PEERS": ",".join(f"http://localhost:{x.http_port}" for x in (ada, bob)),
                "STARPHLEET_PEERS_TOKEN": PEERS,
                "STARPHLEET_METRICS_TOKEN": METRICS,
            }
            harbour.up()
        app = ada.app({**web(), "server.py": TALKS})
        app.push("talk")
        yield Phleet(ada, bob, app)


def done(listening: Ear, ship: str = "ada") -> list[Heard]:
    """What the service of `ship` itself says until it is done."""
    found: list[Heard] = []
    while not found or found[-1].content != "done":
        (heard,) = listening.lines(1)
        if (heard.said["ship"], heard.said["process"]) == (ship, "web"):
            found.append(heard)
    return found


def samples(harbour: Harbour) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What Prometheus would keep."""
    at = f"http://localhost:{harbour.http_port}/starphleet/metrics"
    answer = ask(at, {"Authorization": f"Bearer {METRICS}"})
    assert answer.status == 200, harbour.log[-3000:]
    return {
        (one.name, frozenset(one.labels.items())): one.value
        for family in text_string_to_metric_families(answer.text)
        for one in family.samples
    }


def test_metrics(phleet: Phleet) -> None:
    """Prometheus, with its token and no other, sees what serves, every deploy and how long it took,
    connections, lines and the host; a service that ends by itself is counted."""
    page = f"http://localhost:{phleet.ada.http_port}/starphleet/metrics"
    for headers in ({}, BEARER, {"Authorization": "Bearer ", "X-Starphleet-Owner": "ann"}):
        assert ask(page, headers).status == 401
    broken = phleet.ada.app(web(ANSWER="500", HEALTHCHECK_INIT_DELAY="1"), "broken")
    assert broken.push("broken", check=False).status != 0

    def value(name: str, **labels: str) -> float:
        return samples(phleet.ada)[f"starphleet_{name}", frozenset(labels.items())]

    assert value("services", state="live") == value("service_up", service="talk") == 1
    assert value("deploys_total", outcome="live") == 1
    assert value("deploys_total", outcome="failed") == 1
    assert value("deploy_duration_seconds_count", outcome="live") == 1
    assert value("deploys_underway") == value("deploys_waiting") == 0
    assert value("service_restarts_total", service="talk") == 0
    assert value("log_events_total") > 0
    assert 0 < value("host_memory_used_bytes") < value("host_memory_size_bytes")
    phleet.ada.get("http://talk.localhost/end")
    until(lambda: value("service_restarts_total", service="talk") == 1, "the end is counted")
    until(lambda: value("service_up", service="talk") == 1, "it runs again")


def prometheus(harbour: Harbour) -> str:
    """Its configuration as docs/pages.md has it, for a ship that is on this host."""
    home = harbour.home / "prometheus"
    home.mkdir()
    (home / "token").write_text(METRICS)
    (text,) = re.findall(r"```yaml\n(scrape_configs:.+?)```", PAGE.read_text(), re.DOTALL)
    for told, here in (
        ("/etc/prometheus/starphleet.token", str(home / "token")),
        ("ship.example.com:443", f"localhost:{harbour.http_port}"),
        ("scheme: https", "scheme: http"),
    ):
        assert told in text
        text = text.replace(told, here)
    config = home / "prometheus.yml"
    config.write_text(f"global: {{scrape_interval: 500ms}}\n{text}")
    return str(config)


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="without prometheus")
def test_a_real_prometheus(phleet: Phleet) -> None:
    """Prometheus itself reads the ship by the configuration that is documented, and answers what
    it read."""
    port, config = free_port(), prometheus(phleet.ada)
    argv = ["prometheus", f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}"]
    argv.append(f"--storage.tsdb.path={Path(config).parent}/data")

    def asked(query: str) -> dict[str, str]:
        """The value of each series, by its label `service` or else its name."""
        at = f"http://127.0.0.1:{port}/api/v1/query?query={quote(query)}"
        try:
            found = json.loads(ask(at).text)["data"]["result"]
        except (OSError, ValueError):  # it is not up yet
            return {}
        return {
            one["metric"].get("service", one["metric"].get("__name__", "")): one["value"][1]
            for one in found
        }

    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            until(lambda: asked("up") == {"up": "1"}, "it reads the ship")
            until(lambda: asked("starphleet_service_up").get("talk") == "1", "the service runs")
            assert asked('starphleet_deploys_total{outcome="live"}').popitem()[1] == "1"
            slowest = "histogram_quantile(1, starphleet_deploy_duration_seconds_bucket)"
            assert asked(slowest)
        finally:
            running.kill()


def test_status(phleet: Phleet) -> None:
    """An admiral who was let in by a link sees what `starphleet status --json` says; a token of a
    program opens nothing there."""
    page = f"http://localhost:{phleet.ada.http_port}/starphleet/status"
    assert ask(page, BEARER).status == 401
    ann = Person.new(phleet.ada, "anna", "admiral").come_in("dashboard")
    answer = ask(page, ann)
    told = json.loads(phleet.ada.starphleet("status", "--json").text)
    assert json.loads(answer.text) == told
    assert answer.headers["Cache-Control"] == "no-store"


def test_lines_of_both_ships_come(phleet: Phleet) -> None:
    """One stream has what is said on both, without what commands a terminal, and is resumed after a
    ship was killed: each line once."""
    phleet.bob.app({**web(), "server.py": TALKS}, "app-of-bob").push("talk")
    with phleet.ear("?service=talk&n=0") as listening:
        while (heard := listening.next()).said.get("ship") != "bob":
            assert heard.kind == "ship"
        phleet.say(3)
        assert [one.content.strip() for one in done(listening)] == ["0", "1", "2", "done"]
        assert phleet.bob.get("http://talk.localhost/1/1").status == 200
        last = done(listening, "bob")[-1]
    assert set(last.id.replace(":", ",").split(",")) >= {"ada", "bob"}
    phleet.ada.kill()
    phleet.say(2)  # what it said while the ship was away
    phleet.ada.up()
    resumed = {**BEARER, "Last-Event-ID": last.id}
    until(lambda: phleet.ear("?local", resumed).status == 200, "the ship shows its pages")
    with phleet.ear("?service=talk", resumed) as listening:
        assert [one.content.strip() for one in done(listening)] == ["0", "1", "done"]


def test_a_hundred_readers(phleet: Phleet) -> None:
    """Through nginx, while a service says thousands of lines: each of 99 hears all of them, one
    that reads nothing holds up nobody, and the ship's memory stays as it was."""
    crowd = Crowd()
    with ExitStack() as stack:
        sockets = [stack.enter_context(asked(phleet.ada.http_port)) for _ in range(100)]
        until(lambda: readers(phleet.ada) == 100, "all of them are heard")
        crowd.add(sockets[1:])
        flood(phleet, crowd, 2000)  # what is allocated once
        before = phleet.ada.ship.memory_info().rss
        flood(phleet, crowd, 3000)
        assert phleet.ada.ship.memory_info().rss - before < 40 << 20
        crowd.end()
    until(lambda: readers(phleet.ada) == 0, "all of them are forgotten")


def asked(port: int) -> socket.socket:
    """Somebody who has asked for the stream, and read nothing yet."""
    one = socket.create_connection(("127.0.0.1", port))
    one.sendall(
        b"GET /starphleet/logstream?local&n=0 HTTP/1.1\r\nHost: x\r\n"
        b"Authorization: Bearer " + PEERS.encode() + b"\r\n\r\n"
    )
    return one


def readers(harbour: Harbour) -> float:
    return samples(harbour)["starphleet_logstream_readers", frozenset()]


def flood(phleet: Phleet, crowd: Crowd, count: int) -> None:
    """Say so many lines, and wait until each of the crowd has heard as many more."""
    before = crowd.heard
    phleet.say(count, 100)
    until(lambda: crowd.heard > before + count, "all lines are heard")


def test_a_browser_follows(phleet: Phleet, tmp_path: Path) -> None:
    """An admiral's browser, let in by a link, hears lines by EventSource, and their ids."""
    link = Person.new(phleet.ada, "berta", "admiral").open("dashboard")
    with Browser(tmp_path) as browser:
        page = browser.visitor()
        page.go(link)
        page.wait_for("location.pathname == '/starphleet/dashboard'", "the dashboard")
        page.run(
            "window.heard = []; window.stream = new EventSource('/starphleet/logstream?local&n=0');"
            "stream.onmessage = event => heard.push([event.lastEventId, JSON.parse(event.data)])"
        )
        page.wait_for("stream.readyState == 1", "the stream")
        phleet.say()
        page.wait_for("heard.some(one => one[1].content == 'done')", "a line")
        assert page.run("heard.every(one => one[0] == one[1].id)")
