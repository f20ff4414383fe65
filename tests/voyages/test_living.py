"""Living with a headquarters: what orders may prescribe beside a source, and what goes wrong."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.voyages.apps import web
from tests.voyages.base import Base, autodeploy, live, path, says, status, wait_for
from tests.voyages.harbour import Answer, Harbour, until

MOODY = """\
import http.server, os, secrets

TOKEN = secrets.token_hex()

class Handler(http.server.BaseHTTPRequestHandler):
    well = True

    def do_GET(self):
        if self.path == "/break":
            Handler.well = False
        self.send_response(200 if Handler.well else 500)
        self.end_headers()
        self.wfile.write(TOKEN.encode())

    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


def container(base: Base, service: str) -> str:
    found = {one["service"]: one["container"] for one in status(base.harbour)["services"]}
    return str(found[service])


def test_the_watchdog_starts_again_what_is_ill(base: Base) -> None:
    """A service that fails its check HEALTHCHECK_RETRY_COUNT times beyond the first is started
    again; the log says why."""
    base.service("moody", {"Procfile": "web: python3 server.py\n", "server.py": MOODY})
    lines = ("HEALTHCHECK=/", "HEALTHCHECK_PULSE=1", "HEALTHCHECK_RETRY_COUNT=1")
    base.order({"moody/orders": autodeploy("moody", *(f"export {line}" for line in lines))})
    at = path(base.harbour, "moody/")
    until(lambda: live(base.harbour, "moody/"), "it serves")
    before = base.harbour.get(at).text
    assert base.harbour.get(f"{at}break").status == 500
    until(lambda: base.harbour.get(at).status == 200, "it is well again")
    assert base.harbour.get(at).text != before
    assert "/moody: GET / failed 2 times in a row" in base.harbour.log


SLOW = """\
import http.server, os, time

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/die":
            os._exit(1)
        time.sleep(0.2 if self.path == "/long" else 0)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(str(BEGAN).encode())

    def log_message(self, *args):
        pass

BEGAN = time.time()
time.sleep(1.5)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


def test_requests_wait_for_a_service_that_starts_again(base: Base) -> None:
    """A restart loses no request, not even one that is underway; after a crash, and when the ship
    comes back, requests wait until the service listens."""
    base.service("slow", {"Procfile": "web: python3 server.py\n", "server.py": SLOW})
    base.order({"slow/orders": autodeploy("slow")})
    at = path(base.harbour, "slow/")
    until(lambda: live(base.harbour, "slow/"), "it serves")
    first = base.harbour.get(at).text
    with ThreadPoolExecutor() as clients:
        restarting = clients.submit(base.harbour.starphleet, "restart", "slow")
        answers: list[Answer] = []
        while not restarting.done():
            answers += clients.map(lambda _: base.harbour.get(f"{at}long"), range(4))
    answers.append(base.harbour.get(at))
    assert {one.status for one in answers} == {200}
    assert answers[-1].text != first
    base.harbour.get(f"{at}die")
    until(lambda: "/slow ended (" in base.harbour.log, "its end is noticed")
    statuses = [base.harbour.get(at).status for _ in range(3)]  # one may come a moment too early
    assert statuses[-1] == 200
    restarts = {one["service"]: one["restarts"] for one in status(base.harbour)["services"]}
    assert restarts["/slow"] == 1
    base.harbour.down()
    base.harbour.up()
    assert base.harbour.get(at).status == 200


def test_what_orders_prescribe_around_the_build(base: Base) -> None:
    """`on_containerize` runs before the buildpack, `after_containerize` after it, both in the app;
    what they print is told; one that fails stops the deploy with its name."""
    built = {"package.json": '{"name": "x", "scripts": {"build": "mv raw note"}}'}
    base.service("dock", {**web("dock"), **built, "raw": "from the source\n"})
    script = "#!/bin/sh\necho {} in the app: $(ls) for $ORDERS_NAME\n{}"
    base.order(
        {
            "dock/orders": autodeploy("dock"),
            "dock/on_containerize": script.format("before", ""),
            "dock/after_containerize": script.format("after", "echo changed > note\n"),
        }
    )
    wait_for(base.harbour, "dock/", "dock")
    said = (base.harbour.root / "logs" / "%2Fdock.deploy").read_text().splitlines()
    (before,) = [line for line in said if "before in the app:" in line]
    (after,) = [line for line in said if "after in the app:" in line]
    assert " raw " in before
    assert " note " in after
    assert after.endswith(" for dock")
    app = base.harbour.root / "containers" / container(base, "/dock")
    assert [one.read_text() for one in app.rglob("note")] == ["changed\n"]
    base.order({"dock/after_containerize": "#!/bin/sh\nexit 3\n"})
    until(
        lambda: "after_containerize" in base.harbour.starphleet("status", "--trouble").text,
        "it is told",
    )
    assert says(base.harbour, "dock/", "dock")
    base.withdraw("dock")


def test_the_old_one_stops_first_where_orders_say_so(base: Base) -> None:
    """`stop_before_autodeploy`: two versions never run at once, and when the new one fails, the
    old one is started again."""
    guard = (
        "import fcntl, os\n"
        'lock = open("/var/data/lonely.lock", "w")\n'
        "fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
    )
    files = web("one")
    app = base.service("lonely", {**files, "server.py": guard + files["server.py"]})
    base.order({"lonely/orders": autodeploy("lonely", "stop_before_autodeploy")})
    wait_for(base.harbour, "lonely/", "one")
    app.commit({".env": "SAYS='two'\n"})
    base.publish(app, "lonely")
    wait_for(base.harbour, "lonely/", "two")
    app.commit({"Procfile": "web: false\n"})
    base.publish(app, "lonely")
    until(
        lambda: "failed" in base.harbour.starphleet("status", "lonely").text, "the third one fails"
    )
    until(lambda: says(base.harbour, "lonely/", "two"), "the second one serves again")
    base.withdraw("lonely")


def test_the_root_and_hosts_of_its_own(base: Base) -> None:
    """Orders at the root serve what nothing else does; `server_names` and `proxy_for` give hosts.
    A host that two orders want is the first one's, and the second is named."""
    base.service("root", web("root"))
    base.service("shop", web("shop"))
    base.order(
        {
            "orders": autodeploy("root"),
            "shop/orders": autodeploy(
                "shop", "server_names default shop.example.com", "proxy_for www.example.org"
            ),
            "twin/orders": autodeploy("shop", "proxy_for shop.example.com"),
        }
    )
    wait_for(base.harbour, "shop/", "shop")
    wait_for(base.harbour, "", "root")
    assert says(base.harbour, "anything/else", "root")
    for host in ("shop.example.com", "www.example.org", "WWW.example.org:80"):
        assert base.harbour.get(path(base.harbour, ""), {"Host": host}).text == "shop"
    told = base.harbour.starphleet("status", "--trouble").text
    assert "twin/orders: shop/orders has shop.example.com" in told
    base.withdraw("orders", "twin/orders")
    until(lambda: base.harbour.get(path(base.harbour, "else")).status == 404, "the root is empty")


def test_ship_scripts_run_when_they_change(base: Base) -> None:
    """An executable in `shipscripts/` runs on the ship, once for each change of them."""
    log = base.harbour.home / "scripts"
    script = f'#!/bin/sh\necho "$SHIP_NAME $(basename "$0") {{}}" >> {log}\n'
    base.order({"shipscripts/10-note": script.format("one")})
    until(log.exists, "it ran")
    base.order({"unrelated": "x\n"})
    base.order({"shipscripts/10-note": script.format("two")})
    until(lambda: "10-note two" in log.read_text(), "it ran again")
    assert [line.split()[1:] for line in log.read_text().splitlines()] == [
        ["10-note", "one"],
        ["10-note", "two"],
    ]


def test_every_kind_of_move_counts_once(base: Base) -> None:
    """An empty commit, a force-push, a moved tag and a branch that comes back are each deployed
    once; orders that name a commit stay with it."""
    app = base.service("mover", web("zero"))
    first = app.git("rev-parse", "HEAD").text.strip()
    app.git("tag", "v1")
    app.git("push", "-q", str(base.hub), "v1")
    base.order(
        {
            "branch/orders": autodeploy("mover"),
            "tag/orders": autodeploy("v1"),
            "commit/orders": autodeploy(first[:12]),
        }
    )
    for at in ("branch/", "tag/", "commit/"):
        wait_for(base.harbour, at, "zero")
    app.git("commit", "-q", "--allow-empty", "-m", "nothing")
    base.publish(app, "mover")
    empty = app.git("rev-parse", "HEAD").text.strip()
    until(lambda: serves(base, "/branch") == empty, "the empty commit serves")
    app.git("commit", "-q", "--amend", "--allow-empty", "-m", "other")
    base.publish(app, "mover", "--force")
    forced = app.git("rev-parse", "HEAD").text.strip()
    until(lambda: serves(base, "/branch") == forced, "the forced one serves")
    app.git("tag", "-f", "v1")
    app.git("push", "-q", "--force", str(base.hub), "v1")
    until(lambda: serves(base, "/tag") == forced, "the moved tag serves")
    base.tree.git("push", "-q", str(base.hub), ":refs/heads/mover")
    until(lambda: "'mover'" in base.harbour.starphleet("status").text, "that it is gone is told")
    assert says(base.harbour, "branch/", "zero")
    base.publish(app, "mover")
    until(lambda: "'mover'" not in base.harbour.starphleet("status").text, "it is back")
    assert serves(base, "/commit") == first
    assert len(base.harbour.starphleet("history", "branch").text.splitlines()) == 3
    base.withdraw("branch", "tag", "commit")


def serves(base: Base, service: str) -> str:
    found = {one["service"]: one["commit"] for one in status(base.harbour)["services"]}
    return str(found.get(service))


def test_what_cannot_be_reached_is_tried_again(base: Base) -> None:
    """Orders for a repository that is not there yet are told as out of reach, hold up nobody, and
    are deployed when it comes."""
    base.service("soon", web("soon"))
    base.order({"early/orders": autodeploy("later"), "prompt/orders": autodeploy("soon")})
    wait_for(base.harbour, "prompt/", "soon")
    until(
        lambda: "no branch or tag 'later'" in base.harbour.starphleet("status", "--trouble").text,
        "it is told",
    )
    base.service("later", web("at last"))
    wait_for(base.harbour, "early/", "at last")


def test_orders_that_do_not_end_hold_up_nobody(base: Base) -> None:
    """While orders loop the ship answers and serves; then they are refused by name, and the other
    change of the same commit is deployed."""
    base.service("calm", web("calm"))
    base.order({"mad/orders": "while :; do :; done\n", "calm/orders": autodeploy("calm")})
    wait_for(base.harbour, "calm/", "calm")
    until(lambda: "mad/orders" in base.harbour.starphleet("status", "--trouble").text, "it is told")
    base.withdraw("mad")


def test_data_is_laid_for_services(base: Base) -> None:
    """`remote` lays a repository at /var/data, follows it, and keeps what a service wrote."""
    data = base.service("facts", {"fact": "round\n", "old": "x\n"})
    writer = 'open("/var/data/facts/mine", "w").write("kept")\n'
    files = web("facts")
    base.order({"facts/remote": 'autodeploy "$HEADQUARTERS_REMOTE#facts"\n'})
    laid = base.harbour.root / "data" / "facts"
    until(lambda: (laid / "fact").exists(), "the data is there")
    base.service("reader", {**files, "server.py": writer + files["server.py"]})
    base.order({"facts/orders": autodeploy("reader")})
    wait_for(base.harbour, "facts/", "facts")
    assert (laid / "mine").read_text() == "kept"
    data.git("rm", "-q", "old")
    data.commit({"fact": "flat\n"})
    base.publish(data, "facts")
    until(lambda: (laid / "fact").read_text() == "flat\n", "the data moved")
    assert not (laid / "old").exists()
    assert (laid / "mine").read_text() == "kept"
    assert container(base, "/facts")


def test_the_pulse_is_what_starphleet_says(tmp_path: Path) -> None:
    """A ship that was told no pulse takes the headquarters' word for it."""
    with Harbour(tmp_path) as ship:
        ship.up()
        base = Base.new(ship)
        base.order({".starphleet": "export STARPHLEET_PULSE=1\n"})
        base.follow()
        app = base.service("beat", web("one"))
        base.order({"beat/orders": autodeploy("beat")})
        wait_for(ship, "beat/", "one")
        told = ship.root / "logs" / "%2Fbeat.deploy"
        seen = []
        for n in range(3):
            commit = app.commit(web(f"beat {n}"))
            base.publish(app, "beat")
            began = time.monotonic()
            until(lambda commit=commit: commit[:7] in told.read_text(), "it is seen")  # type: ignore[misc]
            seen.append(time.monotonic() - began)
            wait_for(ship, "beat/", f"beat {n}")
        assert min(seen) < 3, "a pulse of 5 s takes 4 s each time, the deploy being one of them"
