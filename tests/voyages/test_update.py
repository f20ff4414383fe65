"""Updates of a ship that is in use: what runs, and who is logged in, notices nothing."""

from __future__ import annotations

import json
import os
import pty
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from attrs import define

from tests.ports import free_port
from tests.voyages.apps import slow_build, web
from tests.voyages.base import autodeploy, says
from tests.voyages.harbour import REAL, ROOT, App, Harbour, Said, until
from tests.voyages.test_admiral import Crew, audit
from tests.voyages.test_hosting import headquarters, with_service
from tests.voyages.test_load import HAMMER
from tests.voyages.test_watching import interrupt, read_until, rest
from tests.voyages.websocket import Websocket


def cache() -> str:
    """uv's, of whoever runs the tests: so that nothing is fetched that is there."""
    argv = [str(Path(sys.executable).with_name("uv")), "cache", "dir"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


@define
class Dock:
    """A ship that was started in the background, and the repository that it is updated from."""

    harbour: Harbour
    remote: App

    @classmethod
    def new(cls, harbour: Harbour) -> Dock:
        """The repository has what is in the work tree of these tests."""
        remote = harbour.home / "starphleet"
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        for name in listed.split("\0")[:-1]:
            if not name.startswith(("tests/", "docs/")) and (ROOT / name).is_file():
                (remote / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, remote / name)
        app = App(harbour, remote)
        app.git("init", "-q", "-b", "master")
        app.commit({})
        return cls(harbour, app)

    @property
    def status(self) -> str:
        return self.harbour.starphleet("status", check=False).text

    def change(self, name: str, old: str, new: str) -> str:
        """Commit a change of one file."""
        text = (self.remote.path / name).read_text()
        assert text.count(old) == 1
        return self.remote.commit({name: text.replace(old, new)})

    @property
    def pid(self) -> int:
        return int((self.harbour.root / "ship.lock").read_text() or 0)

    @property
    def url(self) -> str:
        """Of the service that is under load."""
        return f"http://load.localhost:{self.harbour.http_port}/"

    @property
    def late(self) -> App:
        """The app of a service that is pushed again and again."""
        return App(self.harbour, self.harbour.home / "late")

    @property
    def runs(self) -> str:
        """The directory of the version that is the ship."""
        return psutil.Process(self.pid).cmdline()[0]

    def updating(self) -> subprocess.Popen[bytes]:
        """`ssh update@ship`, underway."""
        argv = Crew(self.harbour, self.harbour.key).argv("update")
        return subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def kill_an_update(self) -> Path:
        """`kill -9` of one that installs; the mark that it leaves."""
        argv = [sys.executable, "-P", "-m", "receiver.cli", "update"]
        process = subprocess.Popen(
            argv, env=self.harbour.env, cwd=self.harbour.home, stdout=subprocess.PIPE
        )
        read_until(process, "Installing it")
        process.kill()
        process.communicate()
        (mark,) = (self.harbour.root / "versions").glob("*.growing")
        return mark

    def update(self, *, check: bool = True) -> Said:
        """`ssh update@ship`."""
        ann = Crew(self.harbour, self.harbour.key)
        done = ann.ssh("update")
        said = Said(done.returncode, done.stdout + done.stderr, 0.0)
        return self.harbour._checked(["ssh", "update@"], said, check=check)


@pytest.fixture(scope="module")
def dock(runtime: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dock]:
    home = tmp_path_factory.mktemp("dock")
    settings = {
        "UV_CACHE_DIR": cache(),
        "STARPHLEET_REMOTE": f"{home / 'starphleet'}#master",
        "STARPHLEET_DRAINSTOP_WAIT": "1",
        "STARPHLEET_DEPLOYS_AT_ONCE": "2",
    }
    with Harbour(home, settings) as harbour:
        dock = Dock.new(harbour)
        harbour.starphleet("up")
        harbour.app(REAL / "liner", "load").push("load")
        harbour.app(web(), "late").push("late")  # a new service would let nginx reload
        try:
            yield dock
        finally:
            harbour.starphleet("down")


@define
class Terminal:
    """An admiral's session with a terminal."""

    process: subprocess.Popen[bytes]
    _fd: int
    _seen: str = ""

    @classmethod
    def open(cls, harbour: Harbour) -> Terminal:
        ours, theirs = pty.openpty()
        argv = Crew(harbour, harbour.key).argv("admiral")
        process = subprocess.Popen(
            [argv[0], "-tt", *argv[1:]], stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        return cls(process, ours)

    def types(self, words: str, answer: str) -> None:
        """Type a line, and wait until `answer` is there."""
        os.write(self._fd, f"{words}\n".encode())
        self._seen = ""
        while answer not in self._seen:
            self._seen += os.read(self._fd, 65536).decode("utf-8", "replace")

    def leave(self) -> None:
        os.write(self._fd, b"exit\n")
        assert self.process.wait(30) == 0
        os.close(self._fd)


GATE = "until [ -e go ]; do sleep 0.1; done"


def open_gate(harbour: Harbour, service: str) -> None:
    """Let a build of `service` go on that waits at `GATE`."""
    (place,) = gates(harbour, service)
    (place.parent / "go").touch()


def gates(harbour: Harbour, service: str) -> list[Path]:
    """What builds of `service` there are, by a file in each."""
    return list((harbour.root / "caches" / service / "build").rglob("package.json"))


def hammer(harbour: Harbour, service: str) -> subprocess.Popen[str]:
    """Twenty clients that keep their connections."""
    host = f"{service}.localhost:{harbour.http_port}"
    argv = [sys.executable, str(HAMMER), str(harbour.http_port), host, "20"]
    load = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert load.stdout is not None
    assert load.stdout.readline() == "hammering\n"
    return load


def test_an_update_drops_nothing(dock: Dock) -> None:
    """While clients keep their connections busy, a websocket and an admiral's terminal are open, a
    push follows its log and another one builds, the ship becomes a newer version. The build comes
    to its end first; a push that arrives meanwhile waits, and succeeds. Whoever is logged in stays
    with the old process, which ends with the last of them."""
    harbour, old = dock.harbour, psutil.Process(dock.pid)
    slow = harbour.app(web(), "slow")
    slow.push("slow")
    slow.commit(slow_build("slow", GATE))
    dock.late.commit(web("late"))
    attached = harbour.app(web("attached"), "attached").pushing("attached", "master", "-oattach")
    read_until(attached, "listening on")
    terminal = Terminal.open(harbour)
    terminal.types("X=kept; echo $((40 + 2))", "42")
    load = hammer(harbour, "load")
    with Websocket(dock.url, harbour.http_port) as websocket:
        assert "before" in websocket.ask("before")
        update = dock.updating()
        slowly = slow.pushing("slow")
        seen = read_until(update, "Waiting for what is under way: slow")
        lately = dock.late.pushing("late")
        waited = read_until(lately, "Waiting: 1 ahead, and the ship is being updated")
        open_gate(harbour, "slow")
        said = rest(update, seen)
        assert said.status == 0, said.text
        assert "after" in websocket.ask("after")
    slow_said, late_said = rest(slowly), rest(lately, waited)
    assert (slow_said.status, late_said.status) == (0, 0), slow_said.text + late_said.text
    assert harbour.get(slow_said.url).text == "slow"
    assert harbour.get(late_said.url).text == "late"
    terminal.types("echo $X and well", "kept and well")
    told, _ = load.communicate()
    assert json.loads(told)["failures"] == []
    harbour.starphleet("restart", "late")  # of a service that the old process started
    until(lambda: harbour.get(late_said.url).text == "late", "it was started again")
    assert attached.poll() is None
    interrupt(attached)
    until(lambda: harbour.get(dock.url.replace("load", "attached")).status == 404, "it is gone")
    assert (old.is_running(), dock.pid == old.pid) == (True, False)
    assert dock.runs == f"{(harbour.root / 'current').resolve()}/venv/bin/python"
    terminal.leave()
    until(lambda: not old.is_running(), "the old process has ended")
    assert [one["owner"] for one in audit(harbour) if one["account"] == "update"] == ["ann"]


def test_the_newest_is_not_installed_again(dock: Dock) -> None:
    """There is nothing to do where the newest version runs, and that is no failure; by an own
    command line it is the same as by ssh."""
    dock.update()
    before = dock.pid
    for said in (dock.update(), dock.harbour.starphleet("update")):
        assert "is the newest, and is here" in said.text
    told = subprocess.run(
        [sys.executable, "-P", "-m", "receiver.cli", "update", "--json"],
        env=dock.harbour.env, cwd=dock.harbour.home, stdout=subprocess.PIPE, check=True,
    ).stdout  # fmt: skip
    found = json.loads(told)
    commit = dock.remote.git("rev-parse", "HEAD").text.strip()
    assert (found["commit"], found["before"]) == (commit, commit)
    assert found["remote"] == dock.harbour.settings["STARPHLEET_REMOTE"]
    assert dock.pid == before


def test_a_version_that_cannot_be_imported_is_not_tried(dock: Dock) -> None:
    """It fails its check before anything is switched; its own words are the reason, it is removed,
    and the ship is the one that it was. That an update was killed before is no hindrance."""
    before, first = dock.pid, "from __future__ import annotations\n"
    commit = dock.change("hooks/queue.py", first, f'{first}raise RuntimeError("no queue today")\n')
    half = dock.kill_an_update()
    assert half == dock.harbour.root / "versions" / f"{commit[:12]}.growing"
    said = dock.update(check=False)
    assert said.status == 1
    assert "it cannot be the ship" in said.text
    assert "no queue today" in said.text.strip().splitlines()[-1]
    assert dock.pid == before
    assert not list((dock.harbour.root / "versions").glob(f"{commit[:12]}*"))
    dock.remote.git("revert", "--no-edit", "HEAD")


def test_a_version_that_does_not_do_its_work_is_taken_back(dock: Dock) -> None:
    """It starts, takes over, and fails the check of the ship: the one before takes all of it back,
    and says why. Traffic, a terminal, and a push that came meanwhile know nothing of it."""
    harbour, before = dock.harbour, dock.pid
    dock.late.commit(web("later"))
    terminal = Terminal.open(harbour)
    terminal.types("X=still; echo $((40 + 2))", "42")
    load = hammer(harbour, "load")
    dock.change("receiver/answers.py", '"ship": ship', '"ship": None.ship')
    with Websocket(dock.url, harbour.http_port) as websocket:
        update = dock.updating()
        seen = read_until(update, "Switching to it")
        pushed = dock.late.push("late")
        said = rest(update, seen)
        assert "still" in websocket.ask("still")
    assert said.status == 1
    last = said.text.strip().splitlines()[-1]
    assert "the new one does not tell its status; this ship is" in last
    assert "as before" in last
    assert harbour.get(pushed.url).text == "later"
    terminal.types("echo $X and well", "still and well")
    terminal.leave()
    told, _ = load.communicate()
    assert json.loads(told)["failures"] == []
    assert dock.pid == before
    assert "ship is up" in harbour.starphleet("reload").text


IMPOSTOR = f"""\
#!{sys.executable}
import os, socket, sys
channel = socket.socket(fileno=int(sys.argv[-1]))
channel.send(b'["ready", []]')
channel.recv(65536)
sys.exit("starphleet: nothing comes of this")
"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("#!/bin/sh\necho no python here >&2\n", "no python here"),
        ("#!/bin/sh\n", "the new one ended without a word"),
        (IMPOSTOR, "nothing comes of this"),
    ],
)
def test_what_ends_before_it_is_the_ship_changes_nothing(
    dock: Dock, text: str, reason: str
) -> None:
    """However far a successor comes: the ship is who it was, answers, and says why."""
    before, program = dock.pid, dock.harbour.home / "program"
    program.write_text(text)
    program.chmod(0o700)
    question = {"hook": "handover", "interpreter": str(program), "given": {}}
    with socket.socket(socket.AF_UNIX) as ship:
        ship.connect(str(dock.harbour.root / "run" / "ship"))
        ship.sendall(json.dumps(question).encode() + b"\n")
        *_, last = [json.loads(line) for line in ship.makefile("rb")]
    assert last == {"verdict": reason}
    assert dock.pid == before
    assert "the ship is up" in dock.harbour.starphleet("status").text
    assert dock.harbour.get(dock.url).status == 200


def test_another_port(dock: Dock) -> None:
    """After a reload with another port nobody is kept waiting on the one before."""
    harbour = dock.harbour
    argv = [sys.executable, "-P", "-m", "receiver.cli", "reload"]
    env = {**harbour.env, "STARPHLEET_SSH_PORT": str(free_port())}
    subprocess.run(argv, env=env, cwd=harbour.home, check=True, stdout=subprocess.DEVNULL)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", harbour.ssh_port)).close()
    harbour.starphleet("reload")
    dock.late.commit(web("back"))
    assert harbour.get(dock.late.push("late").url).text == "back"


def test_a_successor_goes_on_alone(dock: Dock) -> None:
    """The process that hands over is killed while the next one begins: that one is the ship."""
    old = psutil.Process(dock.pid)
    argv = [sys.executable, "-P", "-m", "receiver.cli", "reload"]
    reload = subprocess.Popen(argv, env=dock.harbour.env, cwd=dock.harbour.home)
    until(lambda: dock.pid not in (0, old.pid), "the next one has the ship's lock")
    old.kill()
    reload.wait(60)
    until(lambda: "the ship is up" in dock.status, "the next one answers")
    dock.late.commit(web("alone"))
    assert dock.harbour.get(dock.late.push("late").url).text == "alone"


@pytest.mark.parametrize("told", ["the old one", "the new one"])
def test_what_is_stopped_between_two_processes_is_stopped(dock: Dock, told: str) -> None:
    """Whichever of the two is told to stop while the next one begins: both end, and the ship."""
    old = psutil.Process(dock.pid)
    argv = [sys.executable, "-P", "-m", "receiver.cli", "reload"]
    reload = subprocess.Popen(argv, env=dock.harbour.env, cwd=dock.harbour.home)
    until(lambda: dock.pid not in (0, old.pid), "the next one has the ship's lock")
    new = psutil.Process(dock.pid)
    (old if told == "the old one" else new).terminate()
    until(lambda: not old.is_running() and not new.is_running(), "both have ended")
    assert reload.wait(60) == 1
    assert "no ship runs here" in dock.status
    assert "the ship is up" in dock.harbour.starphleet("up").text
    assert dock.harbour.get(dock.url).status == 200


def test_a_push_of_the_headquarters_goes_on(dock: Dock) -> None:
    """Of three services that one push orders two build and one waits when the ship is handed over:
    the push goes on by itself, and ends well when all three serve."""
    harbour = dock.harbour
    app = headquarters(harbour, {f"{each}/orders": autodeploy(each) for each in "abc"})
    for each in "ab":
        with_service(app, each, slow_build(each, GATE))
    with_service(app, "c", web("c"))
    pushing = app.pushing("headquarters", "refs/heads/*:refs/heads/*")
    until(lambda: all(gates(harbour, f"%2F{each}") for each in "ab"), "two build")
    argv = [sys.executable, "-P", "-m", "receiver.cli", "reload"]
    reload = subprocess.Popen(argv, env=harbour.env, cwd=harbour.home, stdout=subprocess.PIPE)
    read_until(reload, "Waiting for what is under way: /a, /b")
    for each in "ab":
        open_gate(harbour, f"%2F{each}")
    said = rest(pushing)
    assert said.status == 0, said.text
    assert reload.wait(60) == 0
    for each in "abc":
        assert says(harbour, f"{each}/", each)


def test_down_ends_the_sessions_of_every_process(dock: Dock) -> None:
    """A terminal outlives a reload; `down` ends it too, though another process has it."""
    old = psutil.Process(dock.pid)
    terminal = Terminal.open(dock.harbour)
    terminal.types("X=kept; echo $((40 + 2))", "42")
    dock.harbour.starphleet("reload")
    terminal.types("echo $X and well", "kept and well")
    assert dock.pid != old.pid
    dock.harbour.starphleet("down")
    until(lambda: terminal.process.poll() is not None, "the session has ended")
    until(lambda: not old.is_running(), "the old process has ended")
    assert "the ship is up" in dock.harbour.starphleet("up").text
    current = dock.harbour.root / "current"
    assert not current.exists() or dock.runs == f"{current.resolve()}/venv/bin/python"
