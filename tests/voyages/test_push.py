"""The main job: a push builds, serves and prints a URL."""

from __future__ import annotations

import re
import subprocess

from tests.voyages.apps import web
from tests.voyages.harbour import Harbour


def test_a_push_ends_with_a_url_that_answers(port_of_call: Harbour) -> None:
    """`git push ship master` builds, serves, prints the URL alone on a line and the times last."""
    pushed = port_of_call.app(web("ahoy"), "first").push("first")
    assert port_of_call.get(pushed.url).text == "ahoy"
    assert re.fullmatch(r" +build [\d.]+ s, .*: [\d.]+ s in all", pushed.remote[-1])
    assert pushed.remote.index(pushed.url) == len(pushed.remote) - 2


def test_both_ways_lead_to_the_service(port_of_call: Harbour) -> None:
    """The host name and the path `/~NAME/` both reach what was pushed."""
    port_of_call.app(web("both"), "both").push("both")
    for url in (f"http://both.localhost:{port_of_call.http_port}/", "http://127.0.0.1/~both/"):
        assert port_of_call.get(url).text == "both"


def test_a_second_push_replaces_the_first_and_tells_the_times(port_of_call: Harbour) -> None:
    """The new version answers when the push returns, and its time stands against the last."""
    app = port_of_call.app(web("one"), "twice")
    url = app.push("twice").url
    app.commit(web("two"))
    again = app.push("twice")
    assert port_of_call.get(url).text == "two"
    assert "(last push " in again.remote[-1]


def test_the_same_release_again_is_nothing_to_do(port_of_call: Harbour) -> None:
    """main with the commit that master serves already is told so, and moves its branch."""
    app = port_of_call.app(web(), "same")
    app.push("same")
    again = app.push("same", "master:main")
    assert any("already serves" in line for line in again.remote)
    listed = app.git("ls-remote", port_of_call.remote("same")).text
    assert all(f"refs/heads/{branch}" in listed for branch in ("main", "master"))


def test_the_same_release_again_starts_what_was_stopped(port_of_call: Harbour) -> None:
    """It is asked for, so it serves again as it was built; and it stays."""
    app = port_of_call.app(web("back"), "stopped")
    url = app.push("stopped").url
    port_of_call.starphleet("stop", "stopped")
    assert port_of_call.get(url).status == 503
    again = app.push("stopped", "master:main")
    assert port_of_call.starphleet("restart", "stopped").text == "stopped was started again\n"
    assert port_of_call.get(url).text == "back"
    assert any("is started again with" in line for line in again.remote)


def test_every_branch_has_a_service_beside_the_others(port_of_call: Harbour) -> None:
    """A branch is served as NAME--BRANCH and leaves NAME alone."""
    app = port_of_call.app(web("trunk"), "branches")
    trunk = app.push("branches").url
    app.commit(web("leaf"))
    leaf = app.push("branches", "master:feature/leaf").url
    assert leaf.startswith("http://branches--feature--leaf.localhost")
    assert [port_of_call.get(url).text for url in (trunk, leaf)] == ["trunk", "leaf"]


def test_what_was_pushed_can_be_fetched(port_of_call: Harbour) -> None:
    """A clone of the ship's repository has the branch that was pushed, whatever its name."""
    app = port_of_call.app(web(), "fetched")
    app.push("fetched", "master:main")
    app.git("clone", "-q", port_of_call.remote("fetched"), "copy")
    assert (app.path / "copy" / "server.py").exists()


def test_a_person_is_greeted(port_of_call: Harbour) -> None:
    """`ssh git@ship` greets by the key's name and says what to do; other rooms say so too."""
    for account, words in (("git", "git push ship master"), ("captain", "no shell")):
        said = subprocess.run(
            [*port_of_call.ssh, f"{account}@localhost"],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert said.returncode == 1
        assert "Hello ann" in said.stderr
        assert words in said.stderr


def test_status_tells_what_serves(port_of_call: Harbour) -> None:
    """`starphleet status` names the service, its commit, who pushed it and its URL."""
    app = port_of_call.app(web(), "told")
    url = app.push("told").url
    commit = app.git("rev-parse", "HEAD").text[:7]
    line = next(
        line for line in port_of_call.starphleet("status").text.splitlines() if " told " in line
    )
    assert all(word in line for word in (commit, "ann", url, "expires in 23 h"))
