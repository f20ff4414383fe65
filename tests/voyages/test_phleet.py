"""Several ships and many services of one headquarters, and a ship that is killed meanwhile."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.pulse import silent
from tests.bench.scene import sshd
from tests.buildpacks.gitserver import GitServer
from tests.ports import free_port
from tests.voyages.apps import slow_build, web
from tests.voyages.base import PUBLIC, Base, autodeploy, path, says, status, wait_for
from tests.voyages.harbour import Harbour, until, whole

QUICK = {"STARPHLEET_PULSE": "1"}


@pytest.fixture
def harbour(tmp_path: Path) -> Iterator[Harbour]:
    """A ship with a quick pulse."""
    with Harbour(tmp_path / "a", QUICK) as harbour:
        harbour.up()
        yield harbour


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    """A git server over https, for the repositories in `served`."""
    (tmp_path / "served").mkdir()
    with GitServer(tmp_path / "served") as server:
        yield server


def files(base: Base) -> set[str]:
    """The names of the files of the headquarters as its host has them."""
    git = ["git", "--git-dir", str(base.hub)]
    listed = subprocess.check_output([*git, "ls-tree", "-r", "--name-only", "main"], text=True)
    return set(listed.split())


def containers(harbour: Harbour, name: str) -> list[str]:
    return sorted(one.name for one in (harbour.root / "containers").glob(f"{name}-*"))


def test_two_ships_follow_one_headquarters(tmp_path: Path) -> None:
    """One was told by a command, the other by STARPHLEET_HEADQUARTERS: both serve the same, both
    write their entry in `ships/`; one that was down for three commits catches up with the last."""
    with (
        Harbour(tmp_path / "a", {**QUICK, "STARPHLEET_SHIP_NAME": "ada"}) as ada,
        Harbour(tmp_path / "b", {**QUICK, "STARPHLEET_SHIP_NAME": "bob"}) as bob,
    ):
        bob.settings["STARPHLEET_HEADQUARTERS"] = f"{tmp_path / 'a' / 'hq.git'}#main"
        ada.up()
        base = Base.new(ada)
        app = base.service("one", web("one"))
        base.order({"one/orders": autodeploy("one")})
        base.follow()
        bob.up()
        for ship in (ada, bob):
            wait_for(ship, "one/", "one")
        until(lambda: {"ships/ada", "ships/bob"} <= files(base), "both are written")
        bob.down()
        for n in range(3):
            app.commit(web(f"later {n}"))
            base.publish(app, "one")
            base.order({f"more/{n}/orders": autodeploy("one")})
            wait_for(ada, f"more/{n}/", f"later {n}")
        bob.up()
        wait_for(bob, "one/", "later 2")
        wait_for(bob, "more/2/", "later 2")
        until(lambda: not troubles(bob), "no trouble is left")


def troubles(harbour: Harbour) -> bool:
    return "no trouble" not in troubles_of(harbour)


def test_one_bad_order_of_fifty(harbour: Harbour) -> None:
    """49 are deployed; the one is named with file and line in the log and in status."""
    good = whole(50) - 1
    base = Base.new(harbour)
    base.service("crew", {"index.html": "aye\n"})
    orders = {f"crew/{n}/orders": autodeploy("crew") for n in range(good)}
    base.order({**orders, "crew/wrong/orders": f"{PUBLIC}# one\nredirct /x\n"})
    base.follow()
    for n in range(good):
        until(lambda n=n: says(harbour, f"crew/{n}/", "aye\n"), f"{n} serves", seconds=180)  # type: ignore[misc]
    assert all(says(harbour, f"crew/{n}/", "aye\n") for n in range(good))
    told = harbour.starphleet("status", "--trouble").text
    assert "crew/wrong/orders:3" in told
    assert "crew/wrong/orders:3" in harbour.log
    assert len([one for one in status(harbour)["services"] if one["commit"]]) == good


STEPS = [
    "Asking the buildpacks",
    "Starting web",
    "Healthy",
    "is live with",
]


@pytest.mark.parametrize("words", STEPS)
def test_killed_at_any_step_of_an_ordered_deploy(harbour: Harbour, words: str) -> None:
    """Killed as the deploy says each line: a whole version serves meanwhile, and after a restart
    the new one does, alone."""
    base = Base.new(harbour)
    app = base.service("step", web("old"))
    base.order({"step/orders": autodeploy("step")})
    base.follow()
    wait_for(harbour, "step/", "old")
    app.commit(slow_build("new", "sleep 0.5"))
    told = harbour.root / "logs" / "%2Fstep.deploy"
    before = told.stat().st_mtime_ns
    base.publish(app, "step")
    until(lambda: told.stat().st_mtime_ns != before and words in told.read_text(), words)
    harbour.kill()
    assert harbour.get(path(harbour, "step/")).text in ("old", "new")
    harbour.up()
    # Killed once it was recorded, and before that was said: then nothing more is.
    until(lambda: says(harbour, "step/", "new"), "the new one serves")
    until(lambda: len(containers(harbour, "step")) == 1, "one container is left")


def test_killed_between_headquarters_and_deploy(harbour: Harbour) -> None:
    """Killed as soon as it has read a commit of the headquarters: after a restart everything in it
    serves, and what it withdrew does not."""
    base = Base.new(harbour)
    base.service("app", web("app"))
    base.order({"stays/orders": autodeploy("app"), "goes/orders": autodeploy("app")})
    base.follow()
    wait_for(harbour, "stays/", "app")
    wait_for(harbour, "goes/", "app")
    base.tree.git("rm", "-q", "-r", "goes")
    commit = base.order({f"new/{n}/orders": autodeploy("app") for n in range(4)})
    until(lambda: f"at {commit[:7]}" in harbour.log, "it has read the commit")
    harbour.kill()
    assert says(harbour, "stays/", "app")
    harbour.up()
    for n in range(4):
        wait_for(harbour, f"new/{n}/", "app")
    until(lambda: harbour.get(path(harbour, "goes/")).status == 404, "what is withdrawn goes")
    assert says(harbour, "stays/", "app")


def test_a_wait_for_a_commit(harbour: Harbour) -> None:
    """`hq wait` ends well for the newest commit and for one long passed, and says what is wrong
    with a commit that the headquarters does not have, and with one whose service fails."""
    base = Base.new(harbour)
    base.service("app", web("app"))
    first = base.order({"app/orders": autodeploy("app")})
    base.follow()
    assert waited(harbour, first) == (0, "")
    last = base.order({"more/orders": autodeploy("app")})
    assert waited(harbour, last) == (0, "")
    assert says(harbour, "more/", "app")
    assert waited(harbour, first) == (0, "")
    status, told = waited(harbour, "0123456789abcdef")
    assert status == 1
    assert "has no 0123456789ab" in told
    base.service("ill", web("ill", ANSWER="500"))
    worse = base.order({"ill/orders": autodeploy("ill", "export HEALTHCHECK_INIT_DELAY=5")})
    status, told = waited(harbour, worse)
    assert status == 1
    assert "/ill: GET / answered 500" in told


def waited(harbour: Harbour, commit: str) -> tuple[int, str]:
    """How `hq wait` ended, and what it said last."""
    done = subprocess.run(
        [*harbour.ssh, "git@localhost", f"hq wait {commit}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr.strip().rpartition("\n")[2] if done.returncode else ""


def test_services_survive_a_headquarters_that_is_gone(harbour: Harbour) -> None:
    """The headquarters cannot be read any more: everything serves on, also after a restart, the
    trouble is told until it is back, and then it is followed."""
    base = Base.new(harbour)
    app = base.service("app", web("app"))
    base.order({"app/orders": autodeploy("app")})
    base.follow()
    wait_for(harbour, "app/", "app")

    def told() -> bool:
        return str(base.hub) in harbour.starphleet("status", "--trouble").text

    away = base.hub.rename(base.hub.with_name("away.git"))
    until(told, "it is told")
    away.rename(base.hub)
    until(lambda: not told(), "it is told no more")
    base.hub.rename(away)
    until(told, "it is told again")
    harbour.down()
    harbour.up()
    wait_for(harbour, "app/", "app")
    app.commit(web("back"))
    app.git("push", "-q", str(away), "HEAD:refs/heads/app")
    away.rename(base.hub)
    wait_for(harbour, "app/", "back")


def test_https_and_ssh_sources(tmp_path: Path, server: GitServer) -> None:
    """Orders follow an https repository whose certificate the ship trusts, and an ssh repository
    with the ship's key; a private key given by STARPHLEET_PRIVATE_KEY is used."""
    key = tmp_path / "deploy"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    settings = {
        **QUICK,
        "SSL_CERT_FILE": str(server.pem),
        "STARPHLEET_PRIVATE_KEY": str(key),
    }
    with (
        sshd(tmp_path, key.with_suffix(".pub")) as port,
        Harbour(tmp_path / "a", settings) as harbour,
    ):
        harbour.up()
        base = Base.new(harbour)
        app = harbour.app(web("one"), "code")
        bare = tmp_path / "served" / "code.git"
        subprocess.run(["git", "clone", "-q", "--bare", str(app.path), str(bare)], check=True)
        https = f"{server.url}/code.git#master"
        ssh = f"ssh://{user()}@localhost:{port}{bare}#master"
        base.order(
            {
                "secure/orders": f"{PUBLIC}autodeploy {https}\n",
                "shell/orders": f"{PUBLIC}autodeploy {ssh}\n",
            }
        )
        base.follow()
        for at in ("secure/", "shell/"):
            wait_for(harbour, at, "one")
        app.commit(web("two"))
        app.git("push", "-q", str(bare), "HEAD:refs/heads/master")
        for at in ("secure/", "shell/"):
            wait_for(harbour, at, "two")
        shutil.rmtree(bare)
        until(lambda: "code.git" in harbour.starphleet("status", "--trouble").text, "is told")
        for at in ("secure/", "shell/"):
            assert says(harbour, at, "two")


def user() -> str:
    return subprocess.check_output(["id", "-un"], text=True).strip()


def test_bad_repositories_delay_nobody(tmp_path: Path, server: GitServer) -> None:
    """A repository that hangs, ten that are not there and a host that is not: the one good service
    is deployed, and a commit to it is live, as if they were not; each is named in status."""
    settings = {**QUICK, "SSL_CERT_FILE": str(server.pem)}
    with silent() as hangs, Harbour(tmp_path / "a", settings) as harbour:
        harbour.up()
        base = Base.new(harbour)
        app = base.service("good", web("one"))
        bad = {f"bad/{n}": f"{server.url}/none-{n}.git" for n in range(10)}
        bad |= {
            "hangs": f"https://127.0.0.1:{hangs}/x.git",
            "shut": f"https://127.0.0.1:{free_port()}/x.git",
        }
        orders = {f"{at}/orders": f"{PUBLIC}autodeploy {url}\n" for at, url in bad.items()}
        base.order({**orders, "good/orders": autodeploy("good")})
        base.follow()
        wait_for(harbour, "good/", "one")
        for n in range(3):
            app.commit(web(f"next {n}"))
            base.publish(app, "good")
            until(lambda n=n: says(harbour, "good/", f"next {n}"), "it is live", seconds=10)  # type: ignore[misc]
        until(lambda: all(f"/{at} " in troubles_of(harbour) for at in bad), "all are named")


def troubles_of(harbour: Harbour) -> str:
    return harbour.starphleet("status", "--trouble").text


def test_status_is_whole_as_json(harbour: Harbour) -> None:
    """`status --json` names the headquarters, its commit and every service with its phase."""
    base = Base.new(harbour)
    base.service("app", web("app"))
    base.order({"app/orders": autodeploy("app")})
    base.follow()
    wait_for(harbour, "app/", "app")
    tip = ["git", "--git-dir", str(base.hub), "rev-parse", "main"]

    def at_the_tip() -> bool:
        at = subprocess.check_output(tip, text=True).strip()
        return bool(status(harbour)["headquarters"]["commit"] == at)

    until(at_the_tip, "it is where its host has it")
    found = status(harbour)
    assert found["headquarters"]["url"] == f"{base.hub}#main"
    (one,) = found["ordered"]
    assert (one["service"], one["phase"], one["source"]) == ("/app", "live", f"{base.hub}#app")
