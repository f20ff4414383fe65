"""The ship as the host of its own headquarters: `git push ship main` to git@ship:headquarters."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.voyages.apps import slow_build, web
from tests.voyages.base import PUBLIC, autodeploy, path, says, status, wait_for
from tests.voyages.harbour import App, Harbour, Said, until
from tests.voyages.test_watching import read_until

SLOW = {"STARPHLEET_PULSE": "600"}


@pytest.fixture
def quay(tmp_path: Path) -> Iterator[Harbour]:
    """A ship that polls too seldom to matter: what happens comes from the push."""
    with Harbour(tmp_path, SLOW) as harbour:
        harbour.up()
        yield harbour


def headquarters(harbour: Harbour, files: dict[str, str]) -> App:
    return harbour.app({"README.md": "ours\n", **files}, "hq")


def with_service(app: App, branch: str, files: dict[str, str]) -> App:
    """The code of a service as a branch of the headquarters."""
    code = app.harbour.app(files, f"code-{branch}")
    code.git("push", "-q", str(app.path), f"HEAD:refs/heads/{branch}")
    return code


def push(app: App, *refspecs: str, check: bool = True) -> Said:
    remote = app.harbour.remote("headquarters")
    return app.git("push", remote, *refspecs, check=check)


def wait(harbour: Harbour, commit: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*harbour.ssh, "git@localhost", f"hq wait {commit}"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )


def test_a_new_headquarters_is_live_with_one_push(quay: Harbour) -> None:
    """`starphleet new headquarters` and the push that it tells: the sample answers at its path,
    the push streams the deploy and ends when it serves."""
    directory = quay.home / "mine"
    told = quay.starphleet("new", "headquarters", str(directory)).text
    assert "git push ship main ahoy" in told
    app = App(quay, directory)
    pushed = app.git("push", quay.remote("headquarters"), "main", "ahoy")
    assert path(quay, "ahoy/") in pushed.remote
    assert any("created: /ahoy" in line for line in pushed.remote)
    assert "Deployed by a headquarters" in quay.get(path(quay, "ahoy/")).text
    commit = app.git("rev-parse", "main").text.strip()
    assert wait(quay, commit).returncode == 0


def test_bad_orders_are_refused_with_file_and_line(quay: Harbour) -> None:
    """A push with a wrong order is refused as a whole, says where it is wrong, and changes
    nothing; the good one before it serves on."""
    app = headquarters(quay, {"good/orders": autodeploy("code")})
    with_service(app, "code", web("good"))
    push(app, "master", "code")
    assert says(quay, "good/", "good")
    before = app.git("ls-remote", quay.remote("headquarters")).text
    app.commit({"bad/orders": f"{PUBLIC}autodeploy ext::sh\n", "good/orders": "unpublished\n"})
    refused = push(app, "master", check=False)
    assert refused.status == 1
    (why,) = [line for line in refused.remote if "bad/orders:2" in line]
    assert why.startswith(" !     bad/orders:2: ")
    assert app.git("ls-remote", quay.remote("headquarters")).text == before
    assert says(quay, "good/", "good")


def test_a_push_tells_its_plan(quay: Harbour) -> None:
    """What will be created, replaced, left and orphaned is said before anything is done."""
    app = headquarters(quay, {f"{n}/orders": autodeploy("code") for n in ("a", "b", "c")})
    with_service(app, "code", web("hi"))
    push(app, "master", "code")
    app.git("rm", "-q", "-r", "c")
    app.commit({"b/orders": autodeploy("code", "export X=1"), "d/orders": autodeploy("code")})
    said = push(app, "master").remote
    for line in ("created: /d", "replaced: /b", "left as it is: /a", "orphaned: /c"):
        assert f"-----> {line}" in said
    assert quay.get(path(quay, "c/")).status == 404
    assert says(quay, "d/", "hi")


def test_a_push_fails_when_one_service_does(quay: Harbour) -> None:
    """The orders are good but one service is not: the others are live, the push says which is not
    and why, and exits with an error; `hq wait` says the same."""
    app = headquarters(
        quay,
        {
            "well/orders": autodeploy("well"),
            "ill/orders": autodeploy("ill", "export HEALTHCHECK_INIT_DELAY=5"),
        },
    )
    with_service(app, "well", web("well"))
    with_service(app, "ill", web("ill", ANSWER="500"))
    pushed = push(app, "master", "well", "ill", check=False)
    assert pushed.status == 1
    assert "/ill: GET / answered 500" in pushed.text
    assert says(quay, "well/", "well")
    commit = app.git("rev-parse", "HEAD").text.strip()
    waited = wait(quay, commit)
    assert waited.returncode == 1
    assert "/ill" in waited.stderr
    app.commit({"README.md": "nothing that concerns a service\n"})
    again = push(app, "master")
    assert "0 services change" in again.text
    assert "/ill is still not as ordered: GET / answered 500" in again.text


def test_a_pusher_who_leaves_stops_nothing(quay: Harbour) -> None:
    """Ctrl-C while the ship deploys a headquarters ends the watching: the deploy goes on, and the
    ship's log has no error of its own."""
    app = headquarters(quay, {"slow/orders": autodeploy("slow")})
    with_service(app, "slow", slow_build("slow"))
    words = ["git", "push", quay.remote("headquarters"), "master", "slow"]
    pushing = subprocess.Popen(
        words, cwd=app.path, env=quay.git_env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    read_until(pushing, "building")
    pushing.send_signal(signal.SIGINT)
    pushing.communicate(timeout=60)
    wait_for(quay, "slow/", "slow")
    assert "Traceback" not in quay.log


def test_code_that_is_pushed_beside_it_is_followed(quay: Harbour) -> None:
    """A push of a service's branch to the headquarters' repository deploys it without a poll."""
    app = headquarters(quay, {"code/orders": autodeploy("code")})
    code = with_service(app, "code", web("one"))
    push(app, "master", "code")
    code.commit(web("two"))
    code.git("push", "-q", quay.remote("headquarters"), "HEAD:refs/heads/code")
    wait_for(quay, "code/", "two")


def test_a_branch_that_is_not_followed_says_so(quay: Harbour) -> None:
    """Orders on another branch than the one that came first are not read; the push says how they
    would be."""
    other = quay.app({"README.md": "no orders\n"}, "other")
    push(other, "master")
    app = headquarters(quay, {"late/orders": autodeploy("late")})
    with_service(app, "late", web("late"))
    app.git("push", "-q", quay.remote("headquarters"), "late")
    said = app.git("push", quay.remote("headquarters"), "HEAD:refs/heads/ahoy").text
    assert "Nothing changes: orders are read from master, which has none." in said
    quay.starphleet("headquarters", f"{quay.ssh_url('headquarters')}#ahoy")
    wait_for(quay, "late/", "late")


def test_a_service_of_the_ship_itself_is_followed(quay: Harbour) -> None:
    """Orders may name a repository that was pushed to this very ship."""
    shop = quay.app(web("shop"), "shop")
    shop.push("shop")
    app = headquarters(
        quay, {"store/orders": f"{PUBLIC}autodeploy {quay.ssh_url('shop')}#master\n"}
    )
    push(app, "master")
    assert says(quay, "store/", "shop")
    assert {one["service"] for one in status(quay)["services"]} == {"shop", "/store"}


def test_another_headquarters_is_not_replaced_by_a_push(quay: Harbour) -> None:
    """A ship that follows a headquarters elsewhere refuses a push, and names that one."""
    hub = quay.home / "hub.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(hub)], check=True)
    app = headquarters(quay, {})
    app.git("push", "-q", str(hub), "HEAD:refs/heads/main")
    quay.starphleet("headquarters", str(hub))
    refused = push(app, "master", check=False)
    assert refused.status == 1
    assert str(hub) in refused.text


def test_a_headquarters_that_cannot_be_read_is_not_set(quay: Harbour) -> None:
    """`starphleet headquarters` refuses what is no repository, an https password and a relative
    path, and the ship goes on with the one it had."""
    for wrong in (str(quay.home / "nothing"), "https://u:secret@localhost/x", "../x", "ext::sh"):
        refused = quay.starphleet("headquarters", wrong, check=False)
        assert refused.status == 1
        assert "secret" not in refused.text
    assert "no headquarters" in quay.starphleet("headquarters").text


def test_test_services_get_what_starphleet_gives(quay: Harbour) -> None:
    """A pushed service has `.starphleet`'s variables; STARPHLEET_TEST_ENV narrows them."""
    app = headquarters(quay, {".starphleet": "export SAYS=phleet OTHER=1\n"})
    push(app, "master")
    shown = quay.app({**web("own"), ".env": ""}, "shown")
    shown.push("shown")
    until(lambda: quay.get(f"http://shown.localhost:{quay.http_port}/").text == "phleet", "all")
    app.commit({".starphleet": "export SAYS=phleet OTHER=1 STARPHLEET_TEST_ENV=OTHER\n"})
    push(app, "master")
    shown.commit({"more": ""})
    shown.push("shown")
    assert quay.get(f"http://shown.localhost:{quay.http_port}/").text == "hello"
