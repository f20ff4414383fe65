"""Every kind of client: shallow clones, protocols, URL forms, dulwich, shared connections."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.voyages import dulwich_ssh
from tests.voyages.apps import web
from tests.voyages.harbour import App, Harbour, until

MB = 2**20
MASTER = "refs/heads/master"


@pytest.fixture(scope="module")
def harbour(runtime: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harbour]:
    """One ship for all clients; each pushes names of its own."""
    with Harbour(tmp_path_factory.mktemp("harbour")) as harbour:
        harbour.up()
        yield harbour


def bare(harbour: Harbour, name: str) -> Path:
    return harbour.root / "repositories" / f"{name}.git"


def assert_sound(harbour: Harbour, name: str) -> None:
    """`git fsck` has nothing to say about the ship's repository."""
    argv = ["git", "-c", "safe.directory=*", "--git-dir", str(bare(harbour, name)), "fsck"]
    said = subprocess.run(
        [*argv, "--full", "--strict", "--no-dangling", "--no-progress"],
        env=harbour.git_env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert (said.returncode, said.stdout) == (0, "")


def shallow(harbour: Harbour, where: str, depth: int = 1) -> App:
    """A shallow clone, made over file://, of a repository with some history."""
    origin = harbour.app(web("zero"), f"{where}-origin")
    for i in range(5):
        origin.commit({"history": str(i)})
    origin.git("clone", "-q", "--depth", str(depth), f"file://{origin.path}", f"../{where}")
    clone = App(harbour, harbour.home / where)
    assert clone.git("rev-list", "--count", "HEAD").text.strip() == str(depth)
    return clone


def test_a_shallow_clone(harbour: Harbour) -> None:
    """What was cloned with --depth 1 is pushed to a new name and served, pushed again after a
    commit, can be cloned from the ship, and leaves a sound repository there."""
    app = shallow(harbour, "shallow")
    url = app.push("shallow").url
    assert harbour.get(url).text == "zero"
    assert_sound(harbour, "shallow")
    app.commit(web("one"))
    app.push("shallow")
    assert harbour.get(url).text == "one"
    app.git("clone", "-q", harbour.remote("shallow"), "../shallow-copy")
    copy = App(harbour, harbour.home / "shallow-copy")
    assert copy.git("rev-parse", "HEAD").text == app.git("rev-parse", "HEAD").text
    assert copy.git("fsck", "--full").status == 0
    assert_sound(harbour, "shallow")
    copy.commit(web("two"))
    copy.push("shallow")
    assert harbour.get(url).text == "two"
    assert_sound(harbour, "shallow")


def test_a_shallow_clone_is_deepened(harbour: Harbour) -> None:
    """A clone that was shallow at its first push, and is whole at the next, is served, and the
    ship's repository stays sound."""
    app = shallow(harbour, "deepened", 2)
    url = app.push("deepened").url
    app.git("fetch", "-q", "--unshallow")
    app.commit(web("whole"))
    app.push("deepened")
    assert harbour.get(url).text == "whole"
    assert_sound(harbour, "deepened")


def test_a_shallow_push_upon_a_whole_history(harbour: Harbour) -> None:
    """Somebody with a shallow clone pushes to a name whose whole history the ship has."""
    app = harbour.app(web("zero"), "whole")
    app.commit({"history": "1"})
    url = app.push("whole").url
    app.git("clone", "-q", "--depth", "1", harbour.ssh_url("whole"), "../whole-clone")
    clone = App(harbour, harbour.home / "whole-clone")
    clone.commit(web("one"))
    clone.push("whole")
    assert harbour.get(url).text == "one"
    assert_sound(harbour, "whole")
    app.git("fetch", "-q", harbour.remote("whole"))
    assert app.git("rev-list", "--count", "FETCH_HEAD").text.strip() == "3"


@pytest.mark.parametrize("version", ["0", "1", "2"])
def test_a_protocol_version(harbour: Harbour, version: str) -> None:
    """Clients of git's protocol 0, 1 and 2 push, list, fetch and clone."""
    app = harbour.app(web(version), f"protocol{version}")
    protocol = ("-c", f"protocol.version={version}")
    remote = harbour.remote(f"v{version}")
    said = app.git(*protocol, "push", remote, "master")
    assert harbour.get(said.url).text == version
    listed = app.git(*protocol, "ls-remote", remote, MASTER).text.split()
    assert listed == [app.git("rev-parse", "HEAD").text.strip(), MASTER]
    app.git(*protocol, "clone", "-q", remote, "copy")
    assert (app.path / "copy" / "server.py").is_file()


def test_push_options(harbour: Harbour) -> None:
    """`-o ttl=` reaches the ship, more than one option too; the last of a kind counts."""
    app = harbour.app(web(), "options")
    app.push("options", "master", "-o", "ttl=9h", "-o", "ttl=3h")
    (line,) = [
        each for each in harbour.starphleet("status").text.splitlines() if " options " in each
    ]
    assert "expires in 2 h 59 min" in line


def test_a_big_file(harbour: Harbour) -> None:
    """A commit with 60 MB that do not compress arrives whole."""
    app = harbour.app(web("big"), "big")
    (app.path / "cargo").write_bytes(os.urandom(60 * MB))
    app.git("config", "core.compression", "0")
    app.commit({})
    said = app.push("big")
    assert harbour.get(said.url).text == "big"
    assert (harbour.built("big") / "cargo").read_bytes() == (app.path / "cargo").read_bytes()


def test_the_forms_of_a_remote(harbour: Harbour) -> None:
    """ssh://…/NAME, git@HOST:NAME and git@HOST:/NAME, with and without .git, are one repository."""
    app = harbour.app(web("zero"), "forms")
    forms = [
        f"{base}forms{end}"
        for base in (
            f"ssh://git@localhost:{harbour.ssh_port}/",
            "git@localhost:",
            "git@localhost:/",
        )
        for end in ("", ".git")
    ]
    for number, form in enumerate(forms):
        app.commit(web(str(number)))
        assert harbour.get(app.git("push", form, "master").url).text == str(number)
    listed = {app.git("ls-remote", form).text for form in forms}
    assert len(listed) == 1
    assert [path.name for path in bare(harbour, "forms").parent.glob("forms*")] == ["forms.git"]


def test_dulwich_over_paramiko(harbour: Harbour) -> None:
    """dulwich, a git that is not git, over paramiko, an SSH that is not OpenSSH: what it pushes
    serves, and it hears the ship's words."""
    app = harbour.app(web("dulwich"), "dulwich")
    pushed = dulwich_ssh.push(app, "dulwich")
    url = f"http://dulwich.localhost:{harbour.http_port}/"
    assert pushed.error is None
    assert url in pushed.said
    assert harbour.get(url).text == "dulwich"
    commit = app.git("rev-parse", "HEAD").text.strip()
    assert dulwich_ssh.master_of(harbour, "dulwich") == commit


def test_dulwich_sees_a_failure(harbour: Harbour) -> None:
    """For an app that fails dulwich has a rejected ref, with the reason."""
    app = harbour.app({"Procfile": "web: exit 3\n"}, "dulwich-fails")
    pushed = dulwich_ssh.push(app, "dulwich-fails")
    assert pushed.error is not None
    assert "exit status 3" in pushed.error
    assert "exit status 3" in pushed.said[-1]
    assert app.git("ls-remote", harbour.remote("dulwich-fails")).text == ""


def test_branches_that_cannot_be_together(harbour: Harbour) -> None:
    """git has no branch `a/b` beside an `a`: the second one is refused before it is built."""
    app = harbour.app(web("first"), "together")
    for name, first, second in (("above", "a", "a/b/c"), ("below", "a/b/c", "a")):
        url = app.push(name, f"master:refs/heads/{first}").url
        said = app.push(name, f"master:refs/heads/{second}", check=False)
        assert said.status == 1
        assert f"no branch {second} beside {first}" in said.remote[-1]
        assert not any("buildpacks" in line for line in said.remote)
        app.push(name, "master:refs/heads/a-b")
        assert harbour.get(url).text == "first"


def test_two_pushes_over_one_connection(harbour: Harbour) -> None:
    """With ControlMaster, which sees the exit status of each session and not of ssh: a push that
    works, one that fails and one that works again say so, all over the first one's connection."""
    app = harbour.app(web("zero"), "master")
    control = ["-o", f"ControlPath={harbour.home / 'control'}"]
    shared = " ".join(
        [*harbour.ssh, *control, "-o", "ControlMaster=auto", "-o", "ControlPersist=60"]
    )
    app.git("config", "core.sshCommand", shared)
    env = {name: value for name, value in harbour.git_env.items() if name != "GIT_SSH_COMMAND"}

    def push() -> tuple[int, str]:
        argv = ["git", "push", harbour.remote("shared"), "master"]
        # A master that stays behind keeps our standard error open: a file, not a pipe.
        with (harbour.home / "said").open("w+") as said:
            done = subprocess.run(
                argv, cwd=app.path, env=env, stdout=said, stderr=said, check=False
            )
            said.seek(0)
            return done.returncode, said.read()

    before = harbour.log.count("is here as git")
    try:
        url = f"http://shared.localhost:{harbour.http_port}/"
        for number in range(3):
            app.commit(web(str(number)))
            assert push()[0] == 0
            assert harbour.get(url).text == str(number)
            app.commit({"Procfile": "web: exit 3\n"})
            status, text = push()
            assert status == 1
            assert "exit status 3" in text
            app.git("reset", "-q", "--hard", "HEAD^")
        assert harbour.log.count("is here as git") == before + 1
    finally:
        subprocess.run([*harbour.ssh, *control, "-O", "exit", "git@localhost"], check=True)


def test_a_client_that_is_killed_while_it_uploads(harbour: Harbour) -> None:
    """Killed in the middle of a pack, a client leaves no quarantined objects, no process and no
    branch; the same push works the next time."""
    app = harbour.app(web("late"), "killed")
    (app.path / "cargo").write_bytes(os.urandom(4 * MB))
    app.commit({})
    stalling = harbour.home / "stalling-ssh"
    stalling.write_text('#!/bin/sh\n{ head -c 2000000; sleep 600; } | exec ssh "$@"\n')
    stalling.chmod(0o755)
    ssh = " ".join([str(stalling), *harbour.ssh[1:]])
    push = subprocess.Popen(
        ["git", "-c", "ssh.variant=ssh", "push", harbour.remote("killed"), "master"],
        cwd=app.path,
        env=harbour.git_env | {"GIT_SSH_COMMAND": ssh},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    objects = bare(harbour, "killed") / "objects"
    try:
        until(lambda: list(objects.glob("*incoming*")), "the pack begins to arrive")
        assert git_of(harbour, "killed")
    finally:
        os.killpg(push.pid, signal.SIGKILL)
        push.wait()
    until(lambda: not git_of(harbour, "killed"), "git has ended on the ship")
    until(lambda: not list(objects.glob("*incoming*")), "its half of a pack is gone")
    assert app.git("ls-remote", harbour.remote("killed")).text == ""
    assert harbour.get(app.push("killed").url).text == "late"
    assert_sound(harbour, "killed")


def git_of(harbour: Harbour, name: str) -> list[list[str]]:
    """Processes that work on the ship's repository `name`."""
    return [line for line in harbour.processes() if str(bare(harbour, name)) in " ".join(line)]
