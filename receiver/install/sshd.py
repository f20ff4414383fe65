"""The step that makes room on the ship's SSH port: the host's own sshd listens elsewhere."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from tempfile import NamedTemporaryFile

from attrs import field, frozen

from hooks.errors import Refused
from receiver.install.host import Host, put

SSHD = "/usr/sbin/sshd"
DROP_IN = "/etc/ssh/sshd_config.d/00-starphleet.conf"
CONFIG = "/etc/ssh/sshd_config"
SECONDS = 15.0  # for sshd to be where it is told
_LISTENS = re.compile(r"^listenaddress .*:([0-9]+)$", re.MULTILINE)
_DROPPED = re.compile(r"^Port ([0-9]+)$", re.MULTILINE)


def ports_of(told: str) -> set[int]:
    """Where sshd listens, by what `sshd -T` prints."""
    return {int(port) for port in _LISTENS.findall(told)}


def moved_to(host: Host) -> int | None:
    """Where an earlier installation moved sshd to."""
    place = host.at(DROP_IN)
    found = _DROPPED.search(place.read_text()) if place.is_file() else None
    return int(found[1]) if found else None


def answers(port: int) -> bool:
    """Whether an SSH server of OpenSSH's is on this port of the host."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as there:
            there.settimeout(1)
            return b"OpenSSH" in there.recv(64)
    except OSError:
        return False


@frozen
class Sshd:
    """`ship` is the port that is wanted for the ship, `port` the one for sshd."""

    ship: int
    port: int
    answers: Callable[[int], bool] = field(default=answers, repr=False)
    seconds: float = SECONDS
    data: bool = False
    name: str = "sshd"

    @property
    def _content(self) -> bytes:
        return (
            f"# The ship has port {self.ship}: `starphleet uninstall` gives it back.\n"
            f"Port {self.port}\n"
        ).encode()

    def lacking(self, host: Host) -> str:
        if not host.at(SSHD).exists():
            return ""
        ports = ports_of(_told(host))
        dropped = moved_to(host)
        if self.ship not in ports and dropped in (None, self.port):
            return ""
        return f"move it from port {self.ship} to {self.port}, by {DROP_IN}"

    def do(self, host: Host) -> None:
        before = host.at(DROP_IN).read_bytes() if host.at(DROP_IN).is_file() else None
        self._try(host)
        put(host, DROP_IN, self._content, 0o644)
        try:
            self._reload(host, self.port)
        except Refused:
            _restore(host, before)
            _hurry(host)
            raise

    def undo(self, host: Host) -> None:
        host.at(DROP_IN).unlink(missing_ok=True)
        if host.at(SSHD).exists():  # the ship may have had another port since
            self._reload(host, min(ports_of(_told(host)), default=self.ship))

    def _try(self, host: Host) -> None:
        """`Refused` when sshd does not take it, or would listen where the ship is to."""
        ports = ports_of(_told(host, self._content.decode()))
        if self.ship in ports:
            raise Refused(
                f"sshd would go on listening on port {self.ship}, for its configuration says that "
                "in another place: take that out of it, or install with --ssh shared"
            )
        if self.port not in ports:
            raise Refused(f"sshd would not listen on port {self.port}: sshd -T says where")

    def _reload(self, host: Host, port: int) -> None:
        """Sessions that are open go on."""
        if not host.booted or not _hurry(host):
            return
        end = time.monotonic() + self.seconds
        while not self.answers(port):
            if time.monotonic() > end:
                raise Refused(f"sshd does not answer on port {port}; it is left where it was")
            time.sleep(0.1)


def _told(host: Host, before: str = "") -> str:
    """What `sshd -T` says of its configuration, with `before` in front of it; `ShipError` when
    it does not like it."""
    privileged = host.at("/run/sshd")  # where it never ran, as in an image
    made = not privileged.exists()
    privileged.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        with NamedTemporaryFile("w", prefix="sshd_config") as trial:
            trial.write(before + host.at(CONFIG).read_text())
            trial.flush()
            return host.run(SSHD, "-T", "-f", trial.name)
    finally:
        if made:
            privileged.rmdir()


def _hurry(host: Host) -> bool:
    """Let sshd read its configuration; False when there is none that runs. Some distributions let
    systemd listen for it."""
    host.system("daemon-reload")
    if host.systemctl("is-active", "ssh.socket").status == 0:
        host.system("restart", "ssh.socket")
        return True
    if host.systemctl("is-active", "ssh.service").status == 0:
        host.system("reload", "ssh.service")
        return True
    return False


def _restore(host: Host, before: bytes | None) -> None:
    if before is None:
        host.at(DROP_IN).unlink(missing_ok=True)
    else:
        put(host, DROP_IN, before, 0o644)
