"""A fresh Debian machine becomes a ship, with LXC, is pushed to, boots anew, and is a plain host
again."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.overlay.machine import THERE, WHEELS, Machine, missing
from tests.voyages.harbour import until

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

OPTIONS = f"--key /host/ann.pub --host {THERE} --set STARPHLEET_BASE=slim"
OFFLINE: Any = {
    "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": f"/{WHEELS}",
    "UV_OFFLINE": "1", "UV_FIND_LINKS": f"/{WHEELS}",
}  # fmt: skip
# What every system changes by itself, what a package brought, and where the test works.
BESIDE = re.compile(
    r"/(dev|host|proc|root|run|sys|tmp|var/(cache|lib/(apt|dpkg|systemd|private)|log|tmp))(/.*)?"
    r"|/etc/(passwd|shadow|group|gshadow|subuid|subgid)-|/etc/\.pwd\.lock|/etc/ld\.so\.cache"
    r"|/var/lib|/var/mail|/var/starphleet|.*/__pycache__(/.*)?"
)
APP = {
    "Procfile": "web: python3 -m http.server $PORT\n",
    "index.html": "hello from the installed ship\n",
}
ORDERED = {**APP, "index.html": "hello from the headquarters\n"}
ORDERS = 'export SECURITY_MODE=public\nautodeploy "$HEADQUARTERS_REMOTE#code"\n'
SERVICES = "pgrep -f [h]ttp.server"


def files(machine: Machine) -> dict[str, str]:
    """Everything on the machine that a test may compare: kind, mode, owner, target; and content
    where it is configuration."""
    listed = machine.sh("find / -xdev -printf '%p\\t%y %m %U:%G %l\\n'")
    found = dict(line.split("\t", 1) for line in listed.splitlines())
    for line in machine.sh("find /etc -xdev -type f -exec md5sum {} +").splitlines():
        digest, path = line.split("  ", 1)
        found[path] += digest
    return {path: about for path, about in found.items() if not BESIDE.fullmatch(path)}


class Installed:
    """A machine on which the ship was installed, and what was seen on the way."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(machine.home / "ann")]
        subprocess.run(key, check=True)
        machine.clone()
        self.refused = self.make(check=False)
        machine.sh("systemctl stop nginx lxc lxc-net; systemctl reset-failed")
        self.before = files(machine)
        self.planned = self.install("--dry-run")
        self.untouched = files(machine)
        self.said = self.webinstall()

    def make(self, *, check: bool = True) -> str:
        make = f"cd starphleet && make install OPTIONS={shlex.quote(OPTIONS)}"
        return self.machine.sh(make, check=check, **OFFLINE)

    def install(self, more: str = "") -> str:
        """By the clone's own interpreter, as `make install` does."""
        starphleet = "starphleet/.venv/bin/starphleet"
        return self.machine.sh(f"{starphleet} install {OPTIONS} {more}", **OFFLINE)

    def webinstall(self) -> str:
        """From nothing but the address of a repository, and the script."""
        webinstall = "starphleet/overlay/usr/share/starphleet/webinstall /root/starphleet#master"
        return self.machine.sh(f"{webinstall} {OPTIONS}", **OFFLINE)

    def ssh(self, account: str, command: str, *, check: bool = True) -> str:
        return self.machine.beside(*self.client, f"{account}@{THERE}", command, check=check)

    @property
    def client(self) -> list[str]:
        home = self.machine.home
        return [
            "ssh", "-F", "none", "-i", str(home / "ann"), "-o", "BatchMode=yes",
            "-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={home}/known",
            "-o", "LogLevel=ERROR",
        ]  # fmt: skip

    def push(self, name: str, tree: dict[str, str], branch: str = "main") -> str:
        """Commit `tree` and push it to that branch of `name` on the ship."""
        work = self.machine.home / f"{name}-{branch}"
        for path, text in tree.items():
            (work / path).parent.mkdir(parents=True, exist_ok=True)
            (work / path).write_text(text)
        git = ["env", f"GIT_SSH_COMMAND={shlex.join(self.client)}", "git", "-C", str(work)]
        who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.com"]
        self.machine.beside(*git, "init", "-q", "-b", "main")
        self.machine.beside(*git, "add", "-A")
        self.machine.beside(*git, *who, "commit", "-qm", "it")
        return self.machine.beside(*git, "push", f"ssh://git@{THERE}/{name}", f"HEAD:{branch}")

    def get(self, path: str) -> str:
        return self.machine.beside("curl", "-sS", "-m", "10", f"http://{THERE}{path}", check=False)

    def main_pid(self) -> int:
        return int(self.machine.sh("systemctl show -P MainPID starphleet"))


@pytest.fixture(scope="module")
def ship(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    home = tmp_path_factory.mktemp("machine")
    home.chmod(0o755)
    with Machine(home) as machine:
        yield Installed(machine)


def test_a_port_that_is_taken(ship: Installed) -> None:
    """Where another serves on a port that the ship wants, nothing is touched, and it is named."""
    assert "starphleet: port 80 is taken by nginx: stop that, or give the" in ship.refused


def test_a_plan(ship: Installed) -> None:
    """`--dry-run` says all that will be done, and does none of it; the script that begins with
    nothing does just that."""
    assert ship.untouched == ship.before
    planned = [line.removeprefix("to do") for line in ship.planned.splitlines()[:-1]]
    did = [line.removeprefix("doing") for line in ship.said.splitlines() if "doing" in line]
    did = [re.sub(r"/tmp/tmp\.\w+/", "/root/", line) for line in did]
    assert [line.strip() for line in planned] == [line.strip() for line in did]
    assert "tmp." not in ship.machine.sh("ls /tmp")
    remote = ship.machine.sh("grep REMOTE= /etc/starphleet")
    assert remote == "STARPHLEET_REMOTE=/root/starphleet#master\n"


def test_what_is_there(ship: Installed) -> None:
    """The unit runs the ship on ports 22, 80 and 443, sshd is on 2022, and a package was added."""
    assert ship.machine.sh("systemctl is-active starphleet; systemctl is-enabled starphleet")
    assert ship.machine.sh("systemctl is-system-running").strip() == "running"
    assert "packages: install conntrack" in ship.said
    assert f"ssh -p 2022 root@{THERE}" in ship.said
    listening = ship.machine.sh("ss -ltnpH")
    for port, program in ((22, "starphleet"), (80, "nginx"), (443, "nginx"), (2022, "sshd")):
        assert re.search(rf":{port} .*\"{program}\"", listening), listening
    enabled = ship.machine.sh("systemctl is-enabled nginx lxc lxc-net", check=False)
    assert enabled.split() == ["disabled"] * 3
    modes = ship.machine.sh(
        "stat -c '%a %U %n' /etc/sudoers.d/starphleet /etc/starphleet /var/starphleet "
        "/var/starphleet/authorized_keys /home/admiral"
    )
    assert modes.split() == [
        "440", "root", "/etc/sudoers.d/starphleet", "640", "root", "/etc/starphleet",
        "711", "root", "/var/starphleet", "700", "root", "/var/starphleet/authorized_keys",
        "750", "admiral", "/home/admiral",
    ]  # fmt: skip


def test_what_checks_it(ship: Installed) -> None:
    """Systemd, sudo, sshd and logrotate find nothing wrong with what was laid."""
    assert ship.machine.sh("systemd-analyze verify starphleet.service 2>&1") == ""
    assert "parsed OK" in ship.machine.sh("visudo --check")
    ship.machine.sh("sshd -t")
    ship.machine.sh("logrotate --debug /etc/logrotate.d/starphleet")


def test_twice(ship: Installed) -> None:
    """The second time nothing is done: no file is written, and the ship's process stays."""
    pid = ship.main_pid()
    ship.machine.sh("touch /tmp/then")
    said = ship.install()
    assert re.search(r"^0 of [0-9]+ steps done$", said, re.MULTILINE), said
    newer = "find /etc /opt /usr /home /var/starphleet -newer /tmp/then ! -path '*/__pycache__*'"
    written = set(ship.machine.sh(newer).split())
    assert not {path for path in written if not path.startswith("/var/starphleet/")}, written
    ours = ("", "/installed.json", "/authorized_keys", "/authorized_keys/ann")
    assert not written & {f"/var/starphleet{name}" for name in ours}, written
    assert ship.main_pid() == pid


def test_changed_once(ship: Installed) -> None:
    """An option that is given later changes its setting alone; what an operator wrote stays."""
    ship.machine.sh("echo '# mine' >>/etc/starphleet; sed -i /_REMOTE=/d /etc/starphleet")
    said = ship.install("--remote https://example.com/fork.git#v2")
    assert "doing       settings /etc/starphleet: change" in said
    text = ship.machine.sh("cat /etc/starphleet")
    assert "# mine\n" in text
    assert text.count("STARPHLEET_REMOTE=") == 1
    assert "STARPHLEET_REMOTE=https://example.com/fork.git#v2" in text


def test_an_image(ship: Installed) -> None:
    """Where no systemd runs, the unit is enabled by its files, and nothing is started."""
    hidden = "unshare --mount sh -euc 'mount -t tmpfs none /run/systemd; exec \"$@\"' sh"
    pid = ship.main_pid()
    ship.machine.sh("systemctl disable starphleet")
    said = ship.machine.sh(f"{hidden} starphleet/.venv/bin/starphleet install {OPTIONS}")
    assert "doing       unit starphleet.service: start it at boot" in said
    assert "No systemd runs here: the ship starts when this system is booted." in said
    assert ship.machine.sh("systemctl is-enabled starphleet").strip() == "enabled"
    assert ship.main_pid() == pid


def test_a_push(ship: Installed) -> None:
    """`git push` by the first key, to port 22, is answered on port 80."""
    said = ship.push("shop", APP)
    assert f"http://{THERE}/~shop/" in said
    assert ship.get("/~shop/") == APP["index.html"]


def test_a_container(ship: Installed) -> None:
    """What was pushed runs in LXC, in cgroups that are beside the unit's and have its limits."""
    (pid,) = ship.machine.sh(SERVICES).split()
    assert "starphleet.service" not in ship.machine.sh(f"cat /proc/{pid}/cgroup")
    monitor = ship.machine.sh("pgrep -f [l]xc-execute").strip()
    assert "starphleet.service" not in ship.machine.sh(f"cat /proc/{monitor}/cgroup")
    assert ship.machine.sh("starphleet run shop id -un") == "ubuntu\n"


def test_what_is_closed(ship: Installed) -> None:
    """What the unit closes is closed for what an admiral does in a container, and for their root on
    the host; nothing else of theirs is."""
    program = "import socket; socket.socket(44, socket.SOCK_RAW)"  # AF_XDP
    exotic = f"python3 -c {shlex.quote(program)} 2>&1 | tail -n 1"
    assert ship.machine.sh(exotic) == ""
    for how in (f"starphleet run shop sh -c {shlex.quote(exotic)}", f"sudo {exotic}"):
        assert "Address family not supported" in ship.ssh("admiral", how)
    assert "Operation not permitted" in ship.ssh("admiral", "sudo chrt -f 1 true 2>&1", check=False)
    open_still = "unshare --mount --pid --fork --net true && systemd-run -q --wait true && ip link"
    assert "host0" in ship.ssh("admiral", f"sudo sh -ec {shlex.quote(open_still)}")


def test_an_overlay(ship: Installed) -> None:
    """The headquarters lays files over the host's, but not over what the installation laid."""
    said = ship.push("headquarters", {"overlay/etc/ahoy": "ahoy\n", "overlay/etc/starphleet": ""})
    until(lambda: ship.machine.sh("cat /etc/ahoy", check=False) == "ahoy\n", f"it is laid: {said}")
    assert "STARPHLEET_HOST" in ship.machine.sh("cat /etc/starphleet")
    told = ship.machine.sh("journalctl -u starphleet")
    assert "overlay/etc/starphleet: that is the installation's own; not laid" in told


def test_an_admiral(ship: Installed) -> None:
    """The first key logs in as the account admiral, who may be root, and has `starphleet`."""
    said = ship.ssh("admiral", "id -un && pwd && sudo -n id -un && starphleet-status")
    assert said.split()[:3] == ["admiral", "/home/admiral", "root"]
    assert "~shop" in said or "shop" in said


def test_started_anew(ship: Installed) -> None:
    """What is served goes on while systemd starts the ship anew, and when the ship is killed."""
    serving = ship.machine.sh(SERVICES)
    for how in (
        "systemctl restart starphleet",
        "kill -9 $(systemctl show -P MainPID starphleet)",
        "systemctl stop starphleet && systemctl daemon-reexec && systemctl start starphleet",
    ):
        pid = ship.main_pid()
        ship.machine.sh(how)
        until(lambda: ship.main_pid() not in (0, pid), "another ship runs")  # noqa: B023
        until(lambda: "shop" in ship.machine.sh("starphleet status", check=False), "it answers")
        assert ship.get("/~shop/") == APP["index.html"]
        assert ship.machine.sh(SERVICES) == serving


def test_stopped(ship: Installed) -> None:
    """`systemctl stop` ends the ship, and nothing that it serves."""
    ship.machine.sh("systemctl stop starphleet")
    assert ship.get("/~shop/") == APP["index.html"]
    assert "no ship runs here" in ship.machine.sh("starphleet status", check=False)
    ship.machine.sh("systemctl start starphleet")


def test_booted_anew(ship: Installed) -> None:
    """After a reboot each service, ordered or pushed, serves the release that it did; nothing is
    built."""
    ship.push("headquarters", ORDERED, "code")
    ship.push("headquarters", {"ordered/orders": ORDERS})
    until(lambda: ship.get("/ordered/") == ORDERED["index.html"], "it is ordered")
    history = ship.machine.sh("starphleet history")
    built = "find /var/starphleet/containers -path '*/build/upper' -printf '%i %C@ %p\\n'"
    before = ship.machine.sh(built)
    ship.machine.reboot()
    until(lambda: ship.get("/~shop/") == APP["index.html"], "what was pushed serves")
    until(lambda: ship.get("/ordered/") == ORDERED["index.html"], "what is ordered serves")
    assert ship.machine.sh("starphleet history") == history
    assert (ship.machine.sh(built), before.count("\n")) == (before, 2)
    assert ship.machine.sh("cat /etc/ahoy") == "ahoy\n"
    assert "lxcbr0" not in ship.machine.sh("ip link")
    assert ship.machine.sh("systemctl is-system-running").strip() == "running"


def test_down_and_up(ship: Installed) -> None:
    """`starphleet down` stops everything until `up`, by which it is systemd's again."""
    ship.machine.sh("starphleet down")
    until(lambda: "inactive" in _state(ship), "systemd knows")
    assert ship.machine.sh("pgrep -f '[h]ttp.server|[n]ginx'", check=False) == ""
    ship.machine.sh("starphleet up")
    assert "active" in _state(ship)
    assert ship.main_pid()
    until(lambda: ship.get("/~shop/") == APP["index.html"], "it serves")
    ship.machine.sh("starphleet reload")
    assert "active" in _state(ship)
    assert ship.main_pid()


def _state(ship: Installed) -> str:
    return ship.machine.sh("systemctl is-active starphleet", check=False)


def test_taken_back(ship: Installed) -> None:
    """Uninstalled, the host is as it was, with sshd on its port; data goes when it is told to."""
    planned = ship.machine.sh("starphleet uninstall --dry-run")
    assert "they stay, for others may need them: install conntrack" in planned
    ship.ssh("admiral", "sudo starphleet uninstall", check=False)  # it ends with the ship
    until(lambda: not ship.machine.sh("pgrep -f uninstal[l]", check=False), "it has ended")
    assert "OpenSSH" in ship.machine.beside("sh", "-c", f"ssh-keyscan {THERE} 2>&1")
    assert ship.machine.sh("pgrep -f '[h]ttp.server|[n]ginx|current/[v]env'", check=False) == ""
    left = files(ship.machine)
    data = {path for path in left if path.startswith("/home/admiral")}
    assert "shop.git" in ship.machine.sh("ls /var/starphleet/repositories")
    brought = set(ship.machine.sh("dpkg -L conntrack").splitlines()) - ship.before.keys()
    brought.add("/etc/ahoy")  # the headquarters' own
    assert _without(left, brought | data) == ship.before
    said = ship.machine.sh("starphleet/.venv/bin/starphleet uninstall --purge")
    assert _without(files(ship.machine), brought) == ship.before, said
    assert ship.machine.sh("ls -A /var/starphleet") == ""
    assert ship.machine.sh("ls /bases")  # nothing was followed that leads out of it


def _without(found: dict[str, str], names: set[str]) -> dict[str, str]:
    return {path: about for path, about in found.items() if path not in names}
