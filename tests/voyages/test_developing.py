"""A workstation: services are served from working directories that are their developer's."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.voyages.base import Base, autodeploy, path, says, status, wait_for
from tests.voyages.harbour import App, Harbour, until

DEVELOPER = 4321  # nobody of the host's
UNBOUND = 'export DEVMODE_UNBIND_GIT_DIR="true"'
SERVICES = {"echo": "", "moody": "", "copied": UNBOUND}
SERVER = """\
import http.server, os

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            body = open("said").read() + os.environ.get("MORE", "")
            if self.path == "/write":
                open("written", "w").write("by the service")
            if os.path.exists("extra"):
                body += " " + open("extra").read()
        except OSError as error:
            body = type(error).__name__
        self.send_response(200)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


def app(said: str) -> dict[str, str]:
    """It says at each request what stands in one file, and after it what is in another."""
    return {"Procfile": "web: python3 server.py\n", "server.py": SERVER, "said": said}


@pytest.fixture(scope="module")
def bench(runtime: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Base]:
    """A workstation's ship that follows a headquarters, and whose working directories are a
    developer's, who is another user where the ship is root."""
    home = tmp_path_factory.mktemp("harbour")
    work = home / "work"
    work.mkdir()
    if os.geteuid() == 0:
        os.chown(work, DEVELOPER, DEVELOPER)
    settings = {"STARPHLEET_PULSE": "1", "DEVMODE_ENABLED": "1", "STARPHLEET_DEV": str(work)}
    with Harbour(home, settings) as harbour:
        harbour.up()
        base = Base.new(harbour)
        orders = {f"{name}/orders": autodeploy(name, mode) for name, mode in SERVICES.items()}
        for name in SERVICES:
            base.service(name, app(name))
        base.order(orders)
        base.follow()
        for name in SERVICES:
            wait_for(harbour, f"{name}/", name)
        yield base


def work_of(base: Base, name: str) -> Path:
    return base.harbour.home / "work" / name


def deploys(base: Base, name: str) -> list[dict[str, Any]]:
    """All deploys of a service that ended, newest first."""
    found: list[dict[str, Any]] = json.loads(
        base.harbour.starphleet("history", name, "--json").text
    )
    return found


def test_a_linked_directory_is_the_app_itself(bench: Base) -> None:
    """The source is cloned for the developer, and not asked any more; an edit is seen without a
    deploy, what the service writes is there, and what a build leaves is nothing that git shows."""
    work = work_of(bench, "echo")
    code = App(bench.harbour, bench.harbour.home / "code-echo")
    code.commit({"said": "published"})
    bench.publish(code, "echo")
    bench.harbour.starphleet("poll")
    if os.geteuid() == 0:
        assert {one.lstat().st_uid for one in (work, *work.rglob("*"))} == {DEVELOPER}
    (work / "said").write_text("edited")
    assert says(bench.harbour, "echo/", "edited")
    bench.harbour.get(path(bench.harbour, "echo/write"))
    assert (work / "written").read_text() == "by the service"
    (work / "written").unlink()
    git = ["git", "-c", "safe.directory=*", "-C", str(work)]
    told = bench.harbour._said([*git, "status", "--porcelain", "--branch"], work)
    assert told.text.splitlines() == ["## echo...origin/echo", " M said"]
    assert len(deploys(bench, "echo")) == 1
    text = bench.harbour.starphleet("status", "echo").text
    assert f"linked to {work}" in text
    assert "working directory of 2" in text


def test_a_linked_service_is_deployed_where_edits_are_not_enough(bench: Base) -> None:
    """A variable that is saved in `.env` is in the service's environment. A build that fails is
    told and left alone until somebody saves something; what serves goes on. A link in the place of
    a file that the ship reads is not followed, and told."""
    work = work_of(bench, "moody")
    (work / ".env").write_text("MORE=' indeed'\n")
    wait_for(bench.harbour, "moody/", "moody indeed")
    (work / "package.json").write_text("{")
    (work / "Procfile").write_text("web: python3 server.py --again\n")
    until(lambda: len(deploys(bench, "moody")) == 3, "it was tried")
    assert deploys(bench, "moody")[0]["outcome"] == "failed"
    (work / ".env").unlink()
    (work / ".env").symlink_to("/etc/shadow")
    until(lambda: ".env: it is a link" in bench.harbour.starphleet("status", "moody").text, "told")
    assert says(bench.harbour, "moody/", "moody indeed")
    (work / "package.json").unlink()
    (work / ".env").unlink()
    wait_for(bench.harbour, "moody/", "moody")
    assert [one["outcome"] for one in deploys(bench, "moody")] == ["live", "failed", "live", "live"]


def test_an_unbound_directory_is_deployed_at_each_save(bench: Base) -> None:
    """What is saved or deleted is deployed by itself, dependencies are not looked at; a save that
    breaks it is told, and the old one serves on. A link out of it leads nowhere in the copy."""
    work = work_of(bench, "copied")
    assert f"a copy of {work}" in bench.harbour.starphleet("status", "copied").text
    (work / "extra").write_text("more")
    wait_for(bench.harbour, "copied/", "copied more")
    (work / "extra").unlink()
    wait_for(bench.harbour, "copied/", "copied")
    count = len(deploys(bench, "copied"))
    assert count == 3
    (work / "node_modules").mkdir()
    (work / "node_modules" / "left").write_text("pad")
    (work / ".server.py.swp").write_text("an editor's")
    (work / "Procfile").write_text("web: false\n")
    until(lambda: len(deploys(bench, "copied")) > count, "the broken one was tried")
    newest = deploys(bench, "copied")[0]
    assert (len(deploys(bench, "copied")), newest["outcome"]) == (count + 1, "failed")
    assert "ended by itself" in newest["reason"]
    assert newest["why"] == "working directory changed"
    assert says(bench.harbour, "copied/", "copied")
    (work / "extra").symlink_to(bench.harbour.key)
    (work / "Procfile").write_text("web: python3 server.py\n")
    until(lambda: deploys(bench, "copied")[0]["outcome"] == "live", "mended")
    until(lambda: len(built(bench, "copied")) == 1, "the old one is gone")
    (there,) = built(bench, "copied")
    assert (there / "extra").is_symlink()
    assert not (there / "node_modules").exists()
    assert says(bench.harbour, "copied/", "copied")  # the key does not exist inside
    (work / "extra").unlink()


def test_the_ship_comes_and_goes_and_the_work_stays(bench: Base) -> None:
    """A ship that starts again deploys nothing; `live` brings the ordinary releases, and without it
    it is as before; orders that go leave everything. No file of the developer's is touched."""
    works = {name: work_of(bench, name) for name in ("echo", "copied")}
    for work in works.values():
        (work / "said").write_text("not committed")
        (work / "untracked").write_text("mine")
    wait_for(bench.harbour, "copied/", "not committed")
    before = [len(deploys(bench, name)) for name in works]
    again(bench)
    until(lambda: {phase(bench, name) for name in works} == {"live"}, "they are settled")
    for name in works:
        assert says(bench.harbour, f"{name}/", "not committed")
    assert [len(deploys(bench, name)) for name in works] == before
    live = bench.harbour.root / "live"
    live.touch()
    again(bench)
    wait_for(bench.harbour, "echo/", "published")
    wait_for(bench.harbour, "copied/", "copied")
    assert "working directory" not in bench.harbour.starphleet("status", "echo").text
    live.unlink()
    again(bench)
    for name in works:
        wait_for(bench.harbour, f"{name}/", "not committed")
    bench.withdraw(*works)
    until(lambda: bench.harbour.get(path(bench.harbour, "echo/")).status == 404, "it is gone")
    bench.harbour.starphleet("orphan-reaper")
    for work in works.values():
        kept = [(work / name).read_text() for name in ("said", "untracked")]
        assert kept == ["not committed", "mine"]


def built(base: Base, name: str) -> list[Path]:
    """The apps in the containers of a service."""
    at = "build/upper/app" if base.harbour.runtime == "lxc" else "app"
    return [one / at for one in (base.harbour.root / "containers").glob(f"{name}-*")]


def again(base: Base) -> None:
    """The ship is stopped and started."""
    base.harbour.down()
    base.harbour.up()


def phase(base: Base, name: str) -> str:
    """How far a service is; "" before its orders were read."""
    told = {one["service"]: one["phase"] for one in status(base.harbour)["ordered"]}
    return str(told.get(f"/{name}", ""))
