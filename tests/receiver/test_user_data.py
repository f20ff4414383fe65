"""What an instance is told: as cloud-init and bash read it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from attrs import evolve

from hooks.errors import Refused
from receiver.cloud.user_data import HERE, MOST, Told, script, user_data

CHECKOUT = Path(__file__).parents[2]
WEBINSTALL = CHECKOUT / "overlay/usr/share/starphleet/webinstall"
CLOUD_INIT = CHECKOUT / "build/cloud-init/usr/lib/python3/dist-packages"
TOLD = Told(
    remote="https://example.com/starphleet.git#v1",
    headquarters="git@example.com:fleet/headquarters.git",
    owner="ann",
    key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC9RSNTAzkFkaxg80rkfc4jc+pmg7pQqzxKp1IjZzfPX ann@x\n",
    webinstall=WEBINSTALL.read_text(),
    private_key=("it's.key", "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n"),
)


def read(told: Told) -> dict[str, Any]:
    text = user_data(told)
    assert text.startswith("#cloud-config\n")
    found: dict[str, Any] = yaml.safe_load(text)
    return found


@pytest.mark.skipif(not CLOUD_INIT.is_dir(), reason="without cloud-init: make .cloud-init")
def test_cloud_init_takes_it(tmp_path: Path) -> None:
    """Debian's own cloud-init finds nothing wrong with it, and would with something else."""
    said, cloud_init = [], ["/usr/bin/python3", "-m", "cloudinit.cmd.main"]
    for text in (user_data(TOLD), user_data(TOLD).replace("runcmd:", "runcmds: {}\nruncmd: 5\nx:")):
        (tmp_path / "user-data").write_text(text)
        done = subprocess.run(
            [*cloud_init, "schema", "--config-file", "user-data"],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(CLOUD_INIT)},
            capture_output=True,
            text=True,
        )
        said.append((done.returncode, done.stdout + done.stderr))
    assert said[0] == (0, "Valid cloud-config: user-data\n")
    assert said[1][0] == 1, said[1]


def test_bash_takes_it() -> None:
    """Its script has no error that bash sees, and says what stands in it as it was said."""
    told = evolve(TOLD, remote="https://example.com/$(id)#it's")
    for one in (script(told), script(evolve(told, private_key=None))):
        done = subprocess.run(["bash", "-n"], input=one, text=True, capture_output=True)
        assert (done.returncode, done.stderr) == (0, "")
        head, mark, _ = one.partition("\nboard() {")
        assert mark
        shown = 'printf "%s\\n" "$remote" "$HEADQUARTERS_URL" "${options[@]}"'
        values = subprocess.run(["bash"], input=f"{head}\n{shown}", text=True, capture_output=True)
        assert values.stdout.splitlines()[:4] == [
            "https://example.com/$(id)#it's", told.headquarters,
            "--key", f"ann={HERE}/public/ann.pub",
        ]  # fmt: skip


def test_who_may_read_it() -> None:
    """What it writes below root's home is root's alone; no command has a key in its words."""
    told = read(TOLD)
    assert TOLD.private_key is not None
    modes = {file["path"]: (file["permissions"], file["owner"]) for file in told["write_files"]}
    assert modes[f"{HERE}/private/it's.key"] == ("0600", "root:root")
    assert {mode for path, mode in modes.items() if path.startswith(HERE)} == {
        ("0600", "root:root")
    }
    for secret in (TOLD.private_key[1], TOLD.private_key[1].splitlines()[1]):
        assert secret not in str(told["runcmd"])
        assert secret not in script(TOLD)
        assert secret not in repr(TOLD)


def test_how_git_is_reached() -> None:
    """With the key that was given, and by no other; without one as git does by itself."""
    assert "GIT_SSH_COMMAND" in script(TOLD)
    assert f"{HERE}/private/" in script(TOLD)
    alone = evolve(TOLD, private_key=None)
    assert "GIT_SSH_COMMAND" not in script(alone)
    assert "private" not in script(alone)
    assert not [file for file in read(alone)["write_files"] if "private" in file["path"]]


def test_its_size() -> None:
    """There is room for a large key; what an instance could not be told is refused."""
    assert len(user_data(TOLD)) < MOST - 6000
    with pytest.raises(Refused, match="too long"):
        user_data(evolve(TOLD, private_key=("key", "x" * MOST)))


class Instance:
    """A directory where the script finds what it was told, and programs that note how they were
    called; `apt-get` fails as often as the file `failures` has lines."""

    def __init__(self, place: Path, *, knows: str, failures: int) -> None:
        self.here, self.bin, self.log = place / "told", place / "bin", place / "log"
        for directory in (self.here, self.bin):
            directory.mkdir()
        (place / "failures").write_text("again\n" * failures)
        (self.here / "webinstall").write_text(
            f'echo "webinstall $HEADQUARTERS_URL $*" >>{self.log}'
        )
        note = f'#!/bin/sh\necho "${{0##*/}} $*" >>{self.log}\n'
        for name in ("systemctl", "sleep"):
            self._program(name, note)
        self._program("cloud-init", f'#!/bin/sh\n[ "$2" = {knows} ] && echo known.example\n')
        left = place / "failures"
        self._program(
            "apt-get", f"#!/bin/sh\n[ -s {left} ] || exit 0\nsed -i 1d {left}\nexit 100\n"
        )

    def _program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def run(self) -> tuple[int, list[str], str]:
        """The status of the script, what was called, and its last words."""
        told = evolve(TOLD, private_key=None)
        done = subprocess.run(
            ["bash"],
            input=script(told).replace(HERE, str(self.here)),
            env={"PATH": f"{self.bin}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        return done.returncode, self.log.read_text().splitlines(), done.stdout


def test_what_it_does(tmp_path: Path) -> None:
    """It calls webinstall with what was told, by the name that EC2 gave, and leaves nothing."""
    instance = Instance(tmp_path, knows="ds.meta_data.public_ipv4", failures=0)
    status, called, said = instance.run()
    key = f"--key ann={instance.here}/public/ann.pub"
    assert (status, said) == (0, "")
    assert called == [
        "systemctl daemon-reload",
        "systemctl enable --quiet --now starphleet-metadata.service",
        f"webinstall {TOLD.headquarters} {TOLD.remote} --host known.example {key}",
    ]
    assert not instance.here.exists()


def test_what_it_does_again(tmp_path: Path) -> None:
    """What fails at first, for apt is busy at the first boot, is tried again."""
    instance = Instance(tmp_path, knows="ds.meta_data.public_hostname", failures=2)
    status, called, _ = instance.run()
    assert status == 0
    assert called[:2] == ["sleep 20", "sleep 60"]
    assert called[-1].startswith("webinstall ")
    assert not instance.here.exists()


def test_what_it_gives_up(tmp_path: Path) -> None:
    """After four times it says so, and keeps what it was told for whoever looks."""
    instance = Instance(tmp_path, knows="nothing", failures=100)
    status, called, said = instance.run()
    assert (status, said) == (1, "No ship was made of this instance.\n")
    assert called == ["sleep 20", "sleep 60", "sleep 180"]
    assert (instance.here / "webinstall").exists()
