"""Where everything is measured: a ship, OpenSSH's server beside it, and one client for both."""

from __future__ import annotations

import getpass
import shlex
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from hooks.repository import serving_environment
from tests.ports import free_port
from tests.voyages.harbour import App, Harbour, until

OF_THE_SHIP = ("core.hooksPath", "receive.procReceiveRefs")  # settings that only a ship can use


@frozen
class Scene:
    """A ship that is up, and an sshd that lets the same key in. `sshd_port` is sshd's."""

    harbour: Harbour
    sshd_port: int

    def bare(self, name: str) -> Path:
        """A new bare repository for sshd, which receives with the ship's own settings."""
        path = self.harbour.home / f"{name}.git"
        subprocess.run(["git", "init", "-q", "--bare", str(path)], check=True)
        for key, value in receiving().items():
            subprocess.run(["git", "-C", str(path), "config", key, value], check=True)
        return path

    def push(self, app: App, where: str, *words: str, port: int, fails: bool = False) -> None:
        """`git push` to `where` by way of `port`, with the client that both sides get."""
        ssh = self.harbour.ssh
        ssh[ssh.index("-p") + 1] = str(port)
        env = {**self.harbour.git_env, "GIT_SSH_COMMAND": shlex.join(ssh)}
        said = self.harbour._said(["git", "push", where, *words], app.path, check=False, env=env)
        if (said.status != 0) != fails:
            raise AssertionError(f"git push {where}: status {said.status}\n{said.text}")

    def at_ship(self, name: str) -> str:
        return f"git@localhost:{name}"

    def at_sshd(self, bare: Path) -> str:
        return f"{getpass.getuser()}@localhost:{bare}"


def receiving() -> dict[str, str]:
    """The settings with which a ship receives, as far as they mean anything to a bare git."""
    env = serving_environment(Path("/"), 1 << 30)
    numbers = range(int(env["GIT_CONFIG_COUNT"]))
    settings = {env[f"GIT_CONFIG_KEY_{i}"]: env[f"GIT_CONFIG_VALUE_{i}"] for i in numbers}
    return {key: value for key, value in settings.items() if key not in OF_THE_SHIP}


@contextmanager
def scene(home: Path) -> Iterator[Scene]:
    """Ship and sshd below `home`; both end with the block."""
    with Harbour(home / "harbour") as harbour:
        harbour.up()
        with sshd(home, Path(f"{harbour.key}.pub")) as port:
            yield Scene(harbour, port)


@contextmanager
def sshd(home: Path, key: Path) -> Iterator[int]:
    """OpenSSH's server as it comes, on a port of the loopback, for the owner of `key`."""
    program = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if program is None:
        raise SystemExit("there is no sshd to compare with: apt install openssh-server")
    host_key, config, port = home / "sshd_host_key", home / "sshd_config", free_port()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", host_key], check=True)
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {host_key}\nPidFile none\n"
        f"AuthorizedKeysFile {key}\nStrictModes no\nPasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nUsePAM no\n"
        "UseDNS no\nPrintMotd no\nPrintLastLog no\nAcceptEnv GIT_PROTOCOL\nMaxStartups 100\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)  # where it separates its privileges, if it is root
    with (home / "sshd.log").open("wb") as log:
        process = subprocess.Popen([program, "-D", "-e", "-f", str(config)], stderr=log)
    try:
        until(lambda: process.poll() is not None or _listens(port), "sshd listens")
        if process.poll() is not None:
            raise SystemExit(f"sshd ended: {(home / 'sshd.log').read_text()}")
        yield port
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
