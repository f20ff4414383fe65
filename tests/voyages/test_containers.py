"""What real containers add: a base by script, root before the build, ports, limits, and a ship that
may go and come beside them. Real LXC throughout."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import time
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path

import psutil
import pytest

from tests.voyages.apps import web
from tests.voyages.base import Base, autodeploy, says, wait_for
from tests.voyages.harbour import Harbour, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes containers")

ROUNDS = int(os.environ.get("VOYAGES_ROUNDS", "4"))

# A service as the upstream sample has one: what its job says is in the log of the service.
JOB = """\
#!/bin/sh
#@ @reboot
for where in localhost localship/{path}; do
  echo "$where says $(curl -sS --max-time 5 http://$where/)"
done
"""
EVEN = """\
import os, socket, threading
def udp():
    ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ear.bind(("", 43000))
    while True:
        said, who = ear.recvfrom(100)
        ear.sendto(os.environ["SAYS"].encode(), who)
def tcp():
    ear = socket.create_server(("", 43000))
    while True:
        with ear.accept()[0] as line:
            line.sendall(os.environ["SAYS"].encode())
for listen in (udp, tcp):
    threading.Thread(target=listen, daemon=True).start()
"""


def exposed(says: str) -> dict[str, str]:
    """A web app that also listens on port 43000, for TCP and UDP."""
    app = web(says)
    return {**app, "server.py": EVEN + app["server.py"]}


def over_tcp(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), 2) as line:
        return line.recv(100).decode()


def over_udp(port: int) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.settimeout(2)
        line.connect(("127.0.0.1", port))
        line.send(b"?")
        return line.recv(100).decode()


def both(port: int) -> list[str]:
    """What the port answers over TCP and UDP, "" where it does not."""
    found = []
    for ask in (over_tcp, over_udp):
        try:
            found.append(ask(port))
        except OSError:
            found.append("")
    return found


def log_of(base: Base, name: str) -> str:
    return base.harbour.starphleet("logs", name).text


def test_jobs_reach_localhost_and_localship(base: Base) -> None:
    """A job asks its own service by http://localhost/ and others by http://localship/, as the
    guides do."""
    base.service("jobber", web("jobber"))
    base.order({"jobber/orders": autodeploy("jobber")})
    wait_for(base.harbour, "jobber/", "jobber")
    base.order({"jobber/ask": JOB.format(path="jobber")})
    until(lambda: "localship/jobber says jobber" in log_of(base, "/jobber"), "the job was done")
    assert "localhost says jobber" in log_of(base, "/jobber")


def test_a_port_is_exposed(base: Base) -> None:
    """`expose 43000` leads TCP and UDP of the host to the release that serves, and to nothing
    once the order is gone."""
    app = base.service("even", exposed("one"))
    base.order({"even/orders": autodeploy("even", "expose 43000")})
    wait_for(base.harbour, "even/", "one")
    until(lambda: both(43000) == ["one", "one"], "the port answers")
    app.commit(exposed("two"))
    base.publish(app, "even")
    wait_for(base.harbour, "even/", "two")
    until(lambda: both(43000) == ["two", "two"], "the port follows")
    base.order({"other/orders": autodeploy("even", "expose 43000")})
    until(lambda: "even/orders has port 43000" in trouble(base), "it is refused")
    base.order({"other/orders": autodeploy("even", f"expose {base.harbour.http_port}")})
    until(lambda: "is the ship's own" in trouble(base), "the ship's own port is refused")
    base.withdraw("other", "even")
    until(lambda: both(43000) == ["", ""], "the port is closed")


def trouble(base: Base) -> str:
    return base.harbour.starphleet("status", "--trouble").text


def test_a_base_by_script(base: Base) -> None:
    """`containers/NAME` makes the base of who names it, as root, once; when the script changes,
    the base is made anew and its services are deployed again; one that fails is told, and what
    served goes on."""
    tool = "#!/bin/bash\nset -e\nid -u\ninstall -m 755 /dev/stdin /usr/local/bin/motto <<'S'\n"
    app = {**web(), "Procfile": "web: SAYS=$(motto) python3 server.py\n"}
    base.service("based", app)
    base.order(
        {
            "containers/own": f"{tool}#!/bin/sh\necho made by the script\nS\n",
            "based/orders": autodeploy("based", "export STARPHLEET_BASE=own"),
        }
    )
    wait_for(base.harbour, "based/", "made by the script")
    base.order({"containers/own": f"{tool}#!/bin/sh\necho made anew\nS\n"})
    wait_for(base.harbour, "based/", "made anew")
    base.order({"containers/own": "#!/bin/sh\nexit 7\n"})
    until(lambda: "own: its script ended with status 7" in trouble(base), "it is told")
    assert says(base.harbour, "based/", "made anew")
    base.withdraw("based", "containers")


def test_root_before_the_build(base: Base) -> None:
    """`on_containerize` is the container's root, with the order's environment: what it installs is
    there for the service, which is nobody in particular."""
    app = {**web(), "Procfile": "web: SAYS=$(cat /etc/motto):$(id -u) python3 server.py\n"}
    base.service("rooted", app)
    script = '#!/bin/sh\nset -e\ntest "$(id -u)" = 0\necho "$MOTTO" > /etc/motto\n'
    base.order(
        {
            "rooted/orders": autodeploy("rooted", "export MOTTO=ours"),
            "rooted/on_containerize": script,
        }
    )
    wait_for(base.harbour, "rooted/", "ours:1000")
    base.withdraw("rooted")


def test_limits_by_orders(base: Base) -> None:
    """A service has the limits that its orders name; out of memory is told as such; what cannot
    fit is refused before it begins; and what served goes on."""
    base.service("bound", web("bound"))
    orders = autodeploy("bound", "export STARPHLEET_MEMORY=200M STARPHLEET_PIDS=50")
    base.order({"bound/orders": orders})
    wait_for(base.harbour, "bound/", "bound")
    hungry = {**web("hungry"), "Procfile": "web: python3 -c 'bytearray(900 << 20)'\n"}
    base.service("hungry", hungry)
    base.order({"bound/orders": orders.replace("#bound", "#hungry")})
    until(lambda: "out of memory: it may have 200 MB" in trouble(base), "it is told")
    base.order({"bound/orders": orders.replace("200M", "90000G")})
    until(lambda: "do not fit, the host has" in trouble(base), "it is refused")
    assert says(base.harbour, "bound/", "bound")
    base.withdraw("bound")


def in_containers(harbour: Harbour) -> list[psutil.Process]:
    """Everything that runs in containers of this ship, and LXC's monitors."""
    (tag,) = re.findall(r"lxc.cgroup.dir.container = (\S+)/", one_config(harbour))
    found = []
    for root in Path("/sys/fs/cgroup/pids").glob(f"{tag}*"):
        for procs in root.rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                found += [int(pid) for pid in procs.read_text().split()]
    alive = []
    for pid in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            alive.append(psutil.Process(pid))
    return alive


def one_config(harbour: Harbour) -> str:
    configs = (harbour.root / "containers").glob("*/service/config")
    return next(configs).read_text()


def left_behind(harbour: Harbour, tag: str) -> list[str]:
    """What there is on the host of the ship, whose names begin so, and in its network."""
    links = [one for one in psutil.net_if_addrs() if one.startswith(tag)]
    tables = [line for line in lines_of("nft", "list", "tables") if tag in line]
    network = (harbour.root / "lxc" / "network").read_text().strip()
    routes = lines_of("ip", "route", "show", "root", network)
    return [*links, *tables, *routes, *map(str, Path("/sys/fs/cgroup").glob(f"*/{tag}*/*"))]


def lines_of(*argv: str) -> list[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()


def test_a_ship_that_is_begun_anew(harbour: Harbour) -> None:
    """`reload` ends the ship's own process alone: the same processes go on serving, and the next
    ship takes them over; `down` leaves nothing on the host."""
    url = harbour.app(web("lasting")).push("lasting").url
    before = {one.pid for one in in_containers(harbour)}
    (tag,) = re.findall(r"lxc.cgroup.dir.container = (\S+)/", one_config(harbour))
    assert harbour.process is not None
    harbour.process.send_signal(signal.SIGHUP)
    harbour.process.wait(60)
    assert harbour.get(url).text == "lasting"
    harbour.up()
    assert harbour.get(url).text == "lasting"
    assert {one.pid for one in in_containers(harbour)} == before
    assert "lasting" in harbour.starphleet("attach", "lasting", "printenv", "SAYS").text
    harbour.down()
    assert left_behind(harbour, tag) == []


def test_a_killed_monitor(harbour: Harbour) -> None:
    """LXC's monitor killed, its container serves on; the ship knows it after a restart of its own,
    and starts it again when it ends."""
    url = harbour.app(web("watched")).push("watched").url
    for one in in_containers(harbour):
        if (
            one.name() == "lxc-execute"
            and "monitors" in Path(f"/proc/{one.pid}/cgroup").read_text()
        ):
            one.kill()
    assert harbour.get(url).text == "watched"
    harbour.kill()
    harbour.up()
    assert harbour.get(url).text == "watched"
    for one in in_containers(harbour):
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    until(lambda: says_at(harbour, url, "watched"), "it was started again")


def test_its_network_was_taken_meanwhile(harbour: Harbour) -> None:
    """Somebody else has the network of a ship that was down: the next start serves the same from
    another one, and leaves alone what is in the one it had."""
    url = harbour.app(web("moved")).push("moved").url
    note = harbour.root / "lxc" / "network"
    had = IPv4Network(note.read_text().strip())
    harbour.down()
    link = f"taken{os.getpid()}"
    lines_of("ip", "link", "add", link, "type", "bridge")
    try:
        lines_of("ip", "address", "add", f"{had[1]}/{had.prefixlen}", "dev", link)
        lines_of("ip", "link", "set", link, "up")
        harbour.up()
        until(lambda: says_at(harbour, url, "moved"), "it serves")
        assert not IPv4Network(note.read_text().strip()).overlaps(had)
        (route,) = lines_of("ip", "route", "show", "root", str(had))
        assert link in route
        harbour.down()
        harbour.up()
        until(lambda: says_at(harbour, url, "moved"), "it serves again")
    finally:
        lines_of("ip", "link", "delete", link)


def says_at(harbour: Harbour, url: str, text: str) -> bool:
    with contextlib.suppress(OSError):
        return harbour.get(url).text == text
    return False


def says_one_of(harbour: Harbour, url: str, versions: range) -> bool:
    return harbour.get(url).text in map(str, versions)


def holds(directory: Path, names: set[str]) -> bool:
    """Whether these are all directories in `directory`."""
    return {one.name for one in directory.iterdir() if one.is_dir()} == names


def test_everything_is_killed_at_once(harbour: Harbour) -> None:
    """As by a power cut in the midst of a deploy: after the start the same services answer, from
    their releases, and nothing is left that nobody owns."""
    chance = random.Random(4)
    app = harbour.app(web("0"))
    url = app.push("cut").url
    (tag,) = re.findall(r"lxc.cgroup.dir.container = (\S+)/", one_config(harbour))
    for version in range(1, ROUNDS + 1):
        app.commit(web(str(version)))
        push = app.pushing("cut")
        time.sleep(chance.uniform(0.05, 0.9))
        harbour.kill()
        for one in in_containers(harbour):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        forget_the_boot(harbour)
        push.communicate(timeout=60)
        harbour.up()
        until(partial(says_one_of, harbour, url, range(version + 1)), "it answers")
        status = json.loads(harbour.starphleet("status", "--json").text)
        (serving,) = status["services"]
        kept = {serving["container"]}
        until(partial(holds, harbour.root / "containers", kept), "the others are gone")
        assert holds(Path(f"/sys/fs/cgroup/pids/{tag}"), kept)
        veths = [one for one in psutil.net_if_addrs() if re.fullmatch(f"{tag}[0-9a-f]{{4}}", one)]
        assert len(veths) == 1
    harbour.down()
    assert left_behind(harbour, tag) == []


def forget_the_boot(harbour: Harbour) -> None:
    """Let the records of services be those of an earlier run of the kernel."""
    for record in (harbour.root / "containers").glob("*/service.json"):
        known = json.loads(record.read_text())
        record.write_text(json.dumps({**known, "boot": "another"}))


def frozen(harbour: Harbour, name: str) -> bool:
    (tag,) = re.findall(r"lxc.cgroup.dir.container = (\S+)/", one_config(harbour))
    (state,) = Path("/sys/fs/cgroup/freezer", tag).glob(f"{name}-*/freezer.state")
    return state.read_text() == "FROZEN\n"


def test_idle_test_services_stand_still(tmp_path: Path) -> None:
    """A test service that nobody asks stands still; its first request is answered as any other,
    also after nginx and the ship were gone, and a push replaces it as ever."""
    with Harbour(tmp_path, {"STARPHLEET_TEST_IDLE": "1s"}) as harbour:
        harbour.up()
        app = harbour.app(web("one"))
        url = app.push("idle").url
        until(lambda: frozen(harbour, "idle"), "it stands still")
        assert harbour.get(url).text == "one"
        assert not frozen(harbour, "idle")
        until(lambda: frozen(harbour, "idle"), "it stands still again")
        assert "answered 200" in harbour.starphleet("healthcheck", "idle").text
        harbour.starphleet("run", "idle", "sleep", "2")  # it would not end, were it idle meanwhile
        harbour.kill()
        harbour.up()
        assert harbour.get(url).text == "one"
        until(lambda: frozen(harbour, "idle"), "it stands still once more")
        app.commit(web("two"))
        app.push("idle")
        assert harbour.get(url).text == "two"
