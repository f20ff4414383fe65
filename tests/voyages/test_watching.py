"""Watching a push: leaving it, joining it, waiting, attaching, expiring."""

from __future__ import annotations

import os
import signal
import subprocess

from tests.voyages.apps import slow_build, web
from tests.voyages.harbour import Harbour, Said, until


def read_until(process: subprocess.Popen[bytes], words: str) -> str:
    """Read the push's output until `words` come by."""
    assert process.stdout is not None
    seen = b""
    while words.encode() not in seen:
        chunk = os.read(process.stdout.fileno(), 65536)
        assert chunk, f"{words!r} did not come: {seen.decode()}"
        seen += chunk
    return seen.decode()


def rest(process: subprocess.Popen[bytes], seen: str = "") -> Said:
    assert process.stdout is not None
    text = seen + process.stdout.read().decode()
    return Said(process.wait(60), text, 0.0)


def interrupt(process: subprocess.Popen[bytes]) -> None:
    """Ctrl-C, which goes to git and to its ssh."""
    os.killpg(process.pid, signal.SIGINT)
    process.wait(60)
    assert process.stdout is not None
    process.stdout.close()


def test_leaving_does_not_stop_the_build_and_the_next_push_joins(harbour: Harbour) -> None:
    """Ctrl-C stops watching; pushing the same commit again joins the build that is on."""
    app = harbour.app(slow_build("joined", "sleep 4"))
    first = app.pushing("join")
    read_until(first, "building")
    interrupt(first)
    second = app.push("join")
    assert any("Joining the deploy" in line for line in second.remote)
    assert sum(line.strip() == "building" for line in second.remote) == 1
    assert harbour.get(second.url).text == "joined"


def test_a_build_that_nobody_watches_serves_all_the_same(harbour: Harbour) -> None:
    """After Ctrl-C the release goes live by itself; the next push finds it serving."""
    app = harbour.app(slow_build("alone", "sleep 1"))
    push = app.pushing("alone")
    read_until(push, "building")
    interrupt(push)
    url = f"http://alone.localhost:{harbour.http_port}/"
    until(lambda: url in harbour.starphleet("status").text, "the release is live")
    assert harbour.get(url).text == "alone"
    again = app.push("alone")
    assert not any("building" in line for line in again.remote if "Joining" not in again.text)


def test_pushes_to_one_name_queue_and_the_newest_supersedes(harbour: Harbour) -> None:
    """The second waits with its place; the third takes its turn, and the second is told so."""
    app = harbour.app(slow_build("one", "sleep 3"))
    first = app.pushing("queue")
    seen = read_until(first, "building")
    app.commit(web("two"))
    second = app.pushing("queue")
    waiting = read_until(second, "Waiting: 1 ahead")
    app.commit(web("three"))
    third = app.push("queue")
    superseded = rest(second, waiting)
    assert superseded.status != 0
    assert "superseded by" in superseded.remote[-1]
    assert rest(first, seen).status == 0
    assert harbour.get(third.url).text == "three"


def test_a_branch_that_moved_elsewhere_meanwhile_is_not_overwritten(harbour: Harbour) -> None:
    """A push that waited behind one it does not contain is refused, as git would refuse it."""
    app = harbour.app(slow_build("one", "sleep 3"))
    app.git("branch", "other")
    app.commit({"more": "1"})
    first = app.pushing("moved")
    seen = read_until(first, "building")
    app.git("checkout", "-q", "other")
    app.commit(web("two"))
    second = app.push("moved", "other:master", check=False)
    assert second.status != 0
    assert "git pull, then push again" in second.remote[-1]
    assert rest(first, seen).status == 0


def test_attaching_follows_the_log_and_takes_the_service_down_at_the_end(harbour: Harbour) -> None:
    """`-o attach` shows the service's log; Ctrl-C takes it down, route and container."""
    app = harbour.app(web("attached"))
    push = app.pushing("attach", "master", "-o", "attach")
    seen = read_until(push, "listening on")
    url = f"http://attach.localhost:{harbour.http_port}/"
    assert "Ctrl-C takes attach down" in seen
    assert harbour.get(url).text == "attached"
    interrupt(push)
    until(lambda: harbour.get(url).status == 404, "the route is gone")
    until(lambda: not list((harbour.root / "containers").glob("attach-*")), "the container is gone")
    assert "attach" not in harbour.starphleet("status").text
    assert harbour.get(app.push("attach").url).text == "attached"


def test_a_service_expires(harbour: Harbour) -> None:
    """`-o ttl=` says how long a test service lives; then it is gone, and the rest is not; the
    same commit can be pushed again."""
    stays = harbour.app(web("stays"), "stays").push("stays").url
    app = harbour.app(web("brief"), "brief")
    url = app.push("brief", "master", "-o", "ttl=1s").url
    until(lambda: harbour.get(url).status == 404, "the service has expired")
    assert harbour.get(stays).text == "stays"
    assert harbour.get(app.push("brief").url).text == "brief"
