"""A fresh Debian machine reads its user data with cloud-init, and is a ship then."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from receiver.cloud.user_data import HERE, Told, user_data
from tests import EVERYTHING
from tests.containers.lxc import CHECKOUT
from tests.overlay.machine import SHARE, THERE, WHEELS, Machine, missing
from tests.voyages.harbour import until

CLOUD_INIT = CHECKOUT / "build/cloud-init"
_UNPACKED = "" if CLOUD_INIT.is_dir() else "without cloud-init: make .cloud-init"
_ABSENT = missing() or _UNPACKED or ("" if EVERYTHING else "it takes long: EVERYTHING=1 make test")
pytestmark = pytest.mark.skipif(bool(_ABSENT), reason=_ABSENT)

REMOTE = "https://example.com/starphleet.git#v1"
HEADQUARTERS = "https://example.com/headquarters.git"
PLACES = "/etc /home /opt /root /run /srv /tmp /usr/local /var"
METADATA = "169.254.169.254"
PUBLIC = "flagship.example.com"
OFFLINE: Any = {
    "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": f"/{WHEELS}",
    "UV_OFFLINE": "1", "UV_FIND_LINKS": f"/{WHEELS}", "HOME": "/",
}  # fmt: skip
# What runs at a first boot, without what has nothing to do with user data.
CONFIG = {
    "datasource_list": ["Ec2"],
    "datasource": {"Ec2": {"strict_id": False}},
    "network": {"config": "disabled"},
    "system_info": {"distro": "debian"},
    "cloud_init_modules": ["write-files"],
    "cloud_config_modules": ["runcmd"],
    "cloud_final_modules": ["scripts-user"],
}
# The metadata service of EC2, as far as it is asked.
SERVICE = """
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TREE = json.loads(open(sys.argv[1]).read())

class Service(BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path.lstrip("/").partition("/")[2]
        below = {key[len(path):].partition("/") for key in TREE if key.startswith(path)}
        if path in TREE:
            self.tell(200, TREE[path])
        elif path.endswith("/") and below:
            self.tell(200, "\\n".join(sorted({name + slash for name, slash, _ in below})))
        else:
            self.tell(404, "")

    def do_PUT(self):
        self.tell(200, "a-token")

    def tell(self, status, text):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

ThreadingHTTPServer(("169.254.169.254", 80), Service).serve_forever()
"""


class Instance:
    """A machine that was told by EC2 what it is to be, and what it said."""

    def __init__(self, machine: Machine) -> None:
        self.machine, home = machine, machine.home
        for name in ("ann", "hq"):
            make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]
            subprocess.run([*make, str(home / name)], check=True)
        self.private = (home / "hq").read_text()
        told = Told(
            REMOTE, HEADQUARTERS, "ann", (home / "ann.pub").read_text(),
            (SHARE / "webinstall").read_text(), ("hq", self.private),
        )  # fmt: skip
        self.service = self.metadata(user_data(told))
        machine.clone()
        machine.sh("mv starphleet /srv/starphleet; git -C /srv/starphleet tag v1")
        machine.sh(
            "git config --system url.file:///srv/starphleet.insteadOf "
            f"{REMOTE.partition('#')[0]}; git config --system safe.directory '*'"
        )
        machine.sh("systemctl stop nginx lxc-net")
        (home / "cloud.cfg").write_text(json.dumps(CONFIG))
        unpacked = ["tar", "-C", str(CLOUD_INIT), "-cf", str(home / "cloud-init.tar"), "usr"]
        subprocess.run(unpacked, check=True)
        machine.sh(
            "tar -C / -xf /host/cloud-init.tar --keep-directory-symlink; mkdir -p /etc/cloud; "
            "cp /host/cloud.cfg /etc/cloud/cloud.cfg"
        )
        stages = ("init", "modules --mode=config", "modules --mode=final")
        self.said = [machine.sh(f"cloud-init {stage}", check=False, **OFFLINE) for stage in stages]

    def metadata(self, told: str) -> subprocess.Popen[bytes]:
        """Lets it have what an instance of EC2 finds."""
        machine, home = self.machine, self.machine.home
        machine.beside("ip", "addr", "add", f"{METADATA}/32", "dev", f"ve-{machine.wire}")
        machine.sh(f"ip route add {METADATA} dev host0")
        about = {
            "meta-data/instance-id": "i-0123456789abcdef0", "meta-data/local-hostname": "ip-1",
            "meta-data/public-hostname": PUBLIC, "meta-data/public-ipv4": THERE,
            "user-data": told,
        }  # fmt: skip
        (home / "tree.json").write_text(json.dumps(about))
        (home / "service.py").write_text(SERVICE)
        assert machine.running is not None
        beside = ["nsenter", "--target", str(machine.running.pid), "--net", sys.executable]
        serving = subprocess.Popen(
            [*beside, str(home / "service.py"), str(home / "tree.json")], stderr=subprocess.DEVNULL
        )
        asked = f"http://{METADATA}/latest/meta-data/instance-id"
        until(lambda: "i-0" in machine.sh(f"curl -sS {asked}", check=False), "it is served")
        return serving

    def asks(self, user: str) -> str:
        """What an account of the instance gets of the metadata service."""
        ask = f"curl -sS -m 5 http://{METADATA}/latest/user-data"
        account = f"setpriv --reuid {user} --regid 65534 --clear-groups {ask} 2>&1"
        return self.machine.sh(account, check=False)


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    home = Path(tmp_path_factory.mktemp("instance"))
    home.chmod(0o755)
    with Machine(home) as machine:
        found = Instance(machine)
        try:
            yield found
        finally:
            found.service.kill()
            found.service.wait()


def test_it_is_a_ship(instance: Instance) -> None:
    """Its first admiral logs in; it has the name that it has out there, and its headquarters."""
    sh, said = instance.machine.sh, "\n".join(instance.said)
    assert sh("systemctl is-active starphleet", check=False) == "active\n", said
    settings = sh("cat /etc/starphleet")
    for line in (
        f"STARPHLEET_HOST={PUBLIC}", f"STARPHLEET_REMOTE={REMOTE}",
        f"STARPHLEET_HEADQUARTERS={HEADQUARTERS}", "STARPHLEET_SSH_PORT=22",
    ):  # fmt: skip
        assert line in settings.replace('"', "").replace("'", "")
    ssh = [
        "ssh", "-F", "none", "-i", str(instance.machine.home / "ann"), "-o", "BatchMode=yes",
        "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
    ]  # fmt: skip
    status = instance.machine.beside(*ssh, f"admiral@{THERE}", "starphleet-status")
    assert HEADQUARTERS in status


def test_its_keys(instance: Instance) -> None:
    """The ship has the private key, and nobody else; it was said nowhere, and nothing is left of
    how it came."""
    sh = instance.machine.sh
    assert sh("cat /var/starphleet/private_keys/hq") == instance.private
    assert sh("stat -c '%a %U' /var/starphleet/private_keys/hq") == "600 root\n"
    secret = instance.private.splitlines()[3]
    assert secret not in "".join(instance.said)
    assert sh(f"ls {HERE} 2>&1", check=False).endswith("No such file or directory\n")
    found = sh(f"grep -rslF -D skip -- {secret} {PLACES} --exclude-dir=wheels", check=False)
    private = ("/var/starphleet/private_keys/", "/var/lib/cloud/", "/run/cloud-init/")
    assert "/var/starphleet/private_keys/hq" in found.split()
    assert [one for one in found.split() if not one.startswith(private)] == []
    for path in found.split():
        assert sh(f"stat -c %a {path}").strip() in ("600", "400"), path


def test_who_asks_for_it(instance: Instance) -> None:
    """Of what the instance was told, root alone reads on: no service of the ship's does."""
    assert instance.private.splitlines()[3] in instance.asks("0")
    assert "curl: (7)" in instance.asks("65534")
    assert instance.machine.sh("systemctl is-enabled starphleet-metadata") == "enabled\n"
    instance.machine.sh("systemctl restart starphleet-metadata")
    assert "curl: (7)" in instance.asks("65534")
