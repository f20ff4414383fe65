"""A headquarters that is polled: what its orders say is what serves, and goes on being so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.voyages.apps import slow_build, tardy, web
from tests.voyages.base import PUBLIC, Base, autodeploy, path, says, status, wait_for
from tests.voyages.harbour import REAL, until

HAMMER = Path(__file__).with_name("hammer.py")


def test_orders_are_served_at_their_path(base: Base) -> None:
    """A directory with orders becomes a service at the path of the directory, at any depth."""
    base.service("nested", web("nested"))
    base.order({"deep/er/orders": autodeploy("nested")})
    wait_for(base.harbour, "deep/er/", "nested")
    answer = base.harbour.get(path(base.harbour, "deep/er/"))
    assert answer.headers["X-Starphleet-Service"] == "/deep/er"


def test_a_commit_is_live_without_a_lost_request_and_a_revert_brings_back(base: Base) -> None:
    """A push to the service's repository is live by itself, `git revert` undoes it, and 20 busy
    connections see neither an error nor a reset."""
    app = base.service("echo", REAL / "liner")
    base.order({"echo/orders": autodeploy("echo", "export PORT=4000", "export HEALTHCHECK=/")})
    wait_for(base.harbour, "echo/", "GET 0")
    argv = [sys.executable, str(HAMMER), str(base.harbour.http_port), "localhost", "20", "/echo"]
    load = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert load.stdout is not None
    assert load.stdout.readline() == "hammering\n"
    app.commit({"version": "1"})
    base.publish(app, "echo")
    wait_for(base.harbour, "echo/", "GET 1")
    app.git("revert", "--no-edit", "HEAD")
    base.publish(app, "echo")
    wait_for(base.harbour, "echo/", "GET 0")
    told, _ = load.communicate()
    assert json.loads(told)["failures"] == []


def test_what_concerns_one_service_leaves_the_others_alone(base: Base) -> None:
    """A change of one directory, or of `.starphleet` that an order overrides, redeploys only the
    services that it changes."""
    base.service("calm", web("calm"))
    base.service("moody", web("moody"))
    base.order(
        {
            "calm/orders": autodeploy("calm", "export MOOD=even"),
            "moody/orders": autodeploy("moody", 'export SAYS="$MOOD"'),
            ".starphleet": "export MOOD=low\n",
        }
    )
    wait_for(base.harbour, "calm/", "calm")
    wait_for(base.harbour, "moody/", "low")
    before = {one["service"]: one["container"] for one in status(base.harbour)["services"]}
    base.order({".starphleet": "export MOOD=high\n"})
    wait_for(base.harbour, "moody/", "high")
    after = {one["service"]: one["container"] for one in status(base.harbour)["services"]}
    assert after["/calm"] == before["/calm"]
    assert after["/moody"] != before["/moody"]


def test_one_bad_order_holds_up_nobody_else(base: Base) -> None:
    """Of several orders one is wrong: it is named with file and line in status and in the log,
    the others are deployed, and it is deployed once it is mended."""
    base.service("fine", web("fine"))
    base.order(
        {
            **{f"crew/{n}/orders": autodeploy("fine") for n in range(3)},
            "crew/bad/orders": f"{PUBLIC}autodeploy https://example.com/x\nautodeloy oops\n",
        }
    )
    for n in range(3):
        wait_for(base.harbour, f"crew/{n}/", "fine")
    told = base.harbour.starphleet("status", "--trouble").text
    assert "crew/bad/orders:3" in told
    assert "autodeloy" in told
    assert "crew/bad/orders:3" in base.harbour.log
    assert "crew/0" not in told
    base.order({"crew/bad/orders": autodeploy("fine")})
    wait_for(base.harbour, "crew/bad/", "fine")


def test_a_failed_release_is_told_and_not_tried_again(base: Base) -> None:
    """A commit that fails its check leaves the old one serving, is told with its reason, and is
    tried again only when somebody asks."""
    app = base.service("frail", web("frail"))
    base.order({"frail/orders": autodeploy("frail", "export HEALTHCHECK_INIT_DELAY=5")})
    wait_for(base.harbour, "frail/", "frail")
    app.commit(web("worse", ANSWER="500"))
    base.publish(app, "frail")
    until(lambda: "answered 500" in base.harbour.starphleet("status", "frail").text, "it failed")
    count = len(json.loads(base.harbour.starphleet("history", "frail", "--json").text))
    base.harbour.starphleet("poll")
    assert says(base.harbour, "frail/", "frail")
    assert len(json.loads(base.harbour.starphleet("history", "frail", "--json").text)) == count
    again = base.harbour.starphleet("retry-deploy", "frail", check=False)
    assert again.status == 1
    assert "answered 500" in again.text
    assert len(json.loads(base.harbour.starphleet("history", "frail", "--json").text)) == count + 1
    app.git("revert", "--no-edit", "HEAD")
    base.publish(app, "frail")
    until(lambda: "frail" not in base.harbour.starphleet("status", "--trouble").text, "well again")


def test_a_slow_start_is_waited_for(base: Base) -> None:
    """The old version serves every path while the new one takes its time to start; one that takes
    more than it has is not deployed."""
    app = base.service("tardy", tardy("one"))
    wait = ("export STARTUP_WAIT={}", "export HEALTHCHECK=/", "export HEALTHCHECK_INIT_DELAY={}")

    def order(seconds: int, allowed: int) -> None:
        lines = [wait[0].format(seconds), wait[1], wait[2].format(allowed)]
        base.order({"tardy/orders": autodeploy("tardy", *lines)})

    order(2, 30)
    wait_for(base.harbour, "tardy/", "one /")
    app.commit(tardy("two"))
    base.publish(app, "tardy")
    seen = set()

    def other() -> bool:
        seen.add(base.harbour.get(path(base.harbour, "tardy/some/where?x")).text)
        return "two /some/where?x" in seen

    until(other, "the new one serves")
    assert seen == {"one /some/where?x", "two /some/where?x"}
    assert base.harbour.get(path(base.harbour, "tardy/diagnostic")).status == 500
    order(5, 1)
    until(lambda: "tardy" in base.harbour.starphleet("status", "--trouble").text, "it is told")
    assert says(base.harbour, "tardy/", "two /")
    base.withdraw("tardy")


def test_orders_that_go_leave_an_orphan_for_the_reaper(base: Base) -> None:
    """The route of withdrawn orders goes at once, the container when the reaper comes; orders
    that come back find it still there."""
    base.service("gone", web("gone"))
    base.order({"gone/orders": autodeploy("gone")})
    wait_for(base.harbour, "gone/", "gone")
    base.withdraw("gone")
    until(lambda: base.harbour.get(path(base.harbour, "gone/")).status == 404, "the route goes")
    (orphan,) = orphans(base, "/gone")
    assert (base.harbour.root / "containers" / orphan["container"]).exists()
    base.order({"gone/orders": autodeploy("gone")})
    wait_for(base.harbour, "gone/", "gone")
    (back,) = [one for one in status(base.harbour)["services"] if one["service"] == "/gone"]
    assert back["container"] == orphan["container"]
    base.withdraw("gone")
    until(lambda: orphans(base, "/gone"), "an orphan")
    assert orphan["container"] in base.harbour.starphleet("orphan-reaper").text
    until(
        lambda: not (base.harbour.root / "containers" / orphan["container"]).exists(),
        "the container is gone",
    )


def orphans(base: Base, service: str) -> list[dict[str, Any]]:
    """What still runs of a service whose orders are gone."""
    found = [one for one in status(base.harbour)["services"] if one["orphaned"]]
    return [one for one in found if one["service"] == service]


def test_orders_that_go_during_their_first_deploy(base: Base) -> None:
    """Withdrawn while they are deployed for the first time, orders leave nothing that answers; of
    what was out of reach nothing is deployed when it comes."""
    base.service("brief", slow_build("brief", "sleep 2"))
    base.order({"brief/orders": autodeploy("brief"), "never/orders": autodeploy("unborn")})
    log = base.harbour.root / "logs" / "%2Fbrief.deploy"
    until(lambda: log.exists() and "building" in log.read_text(), "it is being built")
    base.withdraw("brief", "never")
    until(lambda: "is live with" in log.read_text(), "it was deployed")
    until(lambda: base.harbour.get(path(base.harbour, "brief/")).status == 404, "the route goes")
    base.service("unborn", web("unborn"))
    base.order({"later/orders": autodeploy("unborn")})
    wait_for(base.harbour, "later/", "unborn")
    assert base.harbour.get(path(base.harbour, "never/")).status == 404
    assert base.harbour.get(path(base.harbour, "brief/")).status == 404
    assert "/brief" in base.harbour.starphleet("orphan-reaper").text


def test_keys_are_in_force_both_ways(base: Base, tmp_path: Path) -> None:
    """A public key in `authorized_keys/` lets its owner in within a pulse, and not once it went."""
    key = tmp_path / "bea"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    public = key.with_suffix(".pub").read_text()
    ssh = [str(key) if word == str(base.harbour.key) else word for word in base.harbour.ssh]

    def greeted() -> bool:
        argv = [*ssh, "git@localhost"]
        said = subprocess.run(argv, capture_output=True, text=True, check=False)
        return "Hello bea" in said.stderr

    assert not greeted()
    base.order({"authorized_keys/bea.pub": public})
    until(greeted, "bea is let in")
    base.withdraw("authorized_keys/bea.pub")
    until(lambda: not greeted(), "bea is not let in any more")


def test_stop_start_and_restart(base: Base) -> None:
    """A stopped service stays stopped, through polls and a new start of the ship too, until it is
    started; a restart is a new process of the same release."""
    base.service("moored", web("moored"))
    base.order({"moored/orders": autodeploy("moored")})
    wait_for(base.harbour, "moored/", "moored")
    base.harbour.starphleet("stop", "moored")
    answer = base.harbour.get(path(base.harbour, "moored/"))
    assert (answer.status, "/moored is not running" in answer.text) == (503, True)
    base.harbour.starphleet("poll")
    base.harbour.down()
    base.harbour.up()
    assert base.harbour.get(path(base.harbour, "moored/")).status == 503
    base.harbour.starphleet("start", "moored")
    wait_for(base.harbour, "moored/", "moored")
    for command in ("restart", "stop", "restart"):
        base.harbour.starphleet(command, "moored")
    wait_for(base.harbour, "moored/", "moored")
    stopped = {one["service"]: one["stopped"] for one in status(base.harbour)["services"]}
    assert stopped["/moored"] is False


def test_redeploy_builds_anew(base: Base) -> None:
    """`starphleet redeploy` ends with the service live in another container."""
    base.service("anew", web("anew"))
    base.order({"anew/orders": autodeploy("anew")})
    wait_for(base.harbour, "anew/", "anew")
    before = {one["service"]: one["container"] for one in status(base.harbour)["services"]}
    base.harbour.starphleet("redeploy", "anew")
    after = {one["service"]: one["container"] for one in status(base.harbour)["services"]}
    assert says(base.harbour, "anew/", "anew")
    assert before["/anew"] != after["/anew"]


def test_jobs_run_beside_an_unpublished_service(base: Base) -> None:
    """`unpublished` without a source is a container for its jobs, which see its environment."""
    base.order(
        {
            "night/orders": f"{PUBLIC}export WATCH=dog\nunpublished\n",
            "night/bell": "#!/bin/sh\n#@ @reboot\necho rung by the $WATCH\n",
        }
    )

    def rung() -> bool:
        said = base.harbour.starphleet("logs", "night", check=False)
        return "[bell] rung by the dog" in said.text

    until(rung, "the job ran")
    assert base.harbour.get(path(base.harbour, "night/")).status == 404


def test_history_says_who_what_and_why(base: Base) -> None:
    """Every release of a service is in its history, with who made it, why, and how it ended."""
    app = base.service("told", web("told"))
    base.order({"told/orders": autodeploy("told")})
    wait_for(base.harbour, "told/", "told")
    app.commit(web("retold"))
    base.publish(app, "told")
    wait_for(base.harbour, "told/", "retold")
    lines = base.harbour.starphleet("history", "told").text.splitlines()
    assert ["new commit" in lines[0], "ordered" in lines[1]] == [True, True]
    assert all("by Ann" in line and " live" in line for line in lines)
