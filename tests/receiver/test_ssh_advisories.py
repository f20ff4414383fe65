"""Holes that other receivers fell into, each by its name: the SSH server's share of them."""

# Trial's assertions have no annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import base64
import contextlib
import subprocess
import time

import paramiko
from twisted.trial.unittest import SynchronousTestCase

from tests.receiver.ssh_case import ShipCase
from tests.receiver.ssh_raw import Forged, Raw
from tests.receiver.ssh_ship import CLIENT_ENV, Ship, make_key, until

ACCOUNTS = ("git", "captain", "update")


class Advisories(ShipCase):
    def test_key_probe_is_not_identity(self) -> None:
        """CVE-2026-24058, CVE-2024-45337: who offers the admin's public key unsigned and then
        signs with their own is themselves."""
        boss = self.ship.admit("boss")
        locked = ("ssh-keygen", "-q", "-p", "-P", "", "-N", "not for us", "-f", str(boss))
        subprocess.run(locked, check=True, stdout=subprocess.DEVNULL)
        ran = self.ship.run("who", "-v", "-i", str(self.ship.alice), key=boss)
        said = ran.stderr.decode()
        self.assertEqual(said.count("Server accepts key"), 2, said)
        self.assertLess(said.index(f"accepts key: {boss}"), said.index("git alice 127.0.0.1"))
        self.assertNotIn("git boss", said)

    def test_key_probe_right_before_the_login(self) -> None:
        """As above, with a client that probes only the admin's key and signs at once."""
        boss = self.ship.admit("boss3")
        blob = base64.b64decode(boss.with_name(boss.name + ".pub").read_text().split()[1])
        probe = paramiko.Message()
        probe.add_byte(bytes((50,)))
        for word in (b"git", b"ssh-connection", b"publickey"):
            probe.add_string(word)
        probe.add_boolean(False)
        probe.add_string(b"ssh-ed25519")
        probe.add_string(blob)
        asked = paramiko.Message()
        asked.add_byte(bytes((5,)))
        asked.add_string(b"ssh-userauth")
        transport = paramiko.Transport(("127.0.0.1", self.ship.port))
        transport.start_client()
        with self.assertLogs("paramiko.transport", "WARNING") as heard:
            transport._send_message(asked)
            transport._send_message(probe)
            until(lambda: "unhandled type 60" in "".join(heard.output), "the probe is answered")
        transport.auth_publickey(
            "git", paramiko.Ed25519Key.from_private_key_file(str(self.ship.alice))
        )
        channel = transport.open_session()
        channel.exec_command("who")
        self.assertEqual(channel.makefile_stderr().read(), b"git alice 127.0.0.1\n")
        transport.close()

    def test_signature_of_another_key(self) -> None:
        """A signature that another key made is no login: boss's public half, mallory's private."""
        boss = self.ship.admit("boss2")
        mallory = make_key(self.ship.root / "mallory")
        boss.write_bytes(mallory.read_bytes())
        with paramiko.Transport(("127.0.0.1", self.ship.port)) as transport:
            transport.start_client()
            public = boss.with_name(boss.name + ".pub").read_text().split()[1]
            forged = Forged.from_private_key_file(str(mallory))
            forged.claim = base64.b64decode(public)
            with self.assertRaises(paramiko.AuthenticationException):
                transport.auth_publickey("git", forged)
        self.assertIn("bad signature for a key of boss2", self.ship.log.read_text())

    def test_env_injection(self) -> None:
        """CVE-2024-41956, CVE-2024-39930: no variable of the client's but a well-formed
        GIT_PROTOCOL reaches a child, and none of the ship's."""
        hostile = (
            "LD_PRELOAD=/tmp/x.so",
            "GIT_SSH_COMMAND=id",
            "PATH=/tmp",
            "BASH_ENV=/tmp/x",
            "GIT_PROTOCOL=version=3",
            "GIT_PROTOCOL=version=2;id",
            "GIT_PROTOCOL=version=2:$(id)",
            "GIT_PROTOCOL=version=2\nLD_PRELOAD=/tmp/x.so",
            "GIT_PROTOCOL=version=2\n",
            "GIT_PROTOCOL=VERSION=2",
            "GIT_PROTOCOL=version=2:" + "x" * 300,
        )
        for variable in hostile:
            with self.ship.paramiko() as transport:
                name, _, value = variable.partition("=")
                channel = transport.open_session()
                with contextlib.suppress(
                    paramiko.SSHException
                ):  # paramiko does not ask for a reply
                    channel.set_environment_variable(name, value)
                channel.exec_command("env")
                self.assertEqual(channel.makefile().read(), b"PATH=/usr/bin:/bin\n", variable)
        good = self.ship.run("env", "-o", "SetEnv=GIT_PROTOCOL=version=2:agent=git")
        self.assertEqual(
            sorted(good.stdout.split()),
            [b"GIT_PROTOCOL=version=2:agent=git", b"PATH=/usr/bin:/bin"],
        )

    def test_no_pty_forwarding_sftp_or_subsystem_but_for_admirals(self) -> None:
        """No account but `admiral` gets a pty, X11, a subsystem or a forwarding of any kind."""
        for account in ACCOUNTS:
            with self.ship.paramiko(account) as transport:
                for ask in (
                    lambda channel: channel.get_pty(),
                    lambda channel: channel.invoke_subsystem("sftp"),
                    lambda channel: channel.invoke_subsystem("anything"),
                    lambda channel: channel.request_x11(),
                ):
                    with self.assertRaises(paramiko.SSHException):
                        ask(transport.open_session())
                with self.assertRaises(paramiko.SSHException):
                    transport.request_port_forward("127.0.0.1", 0)
                for kind in ("direct-tcpip", "forwarded-tcpip"):
                    with self.assertRaisesRegex(paramiko.ChannelException, "prohibited"):
                        transport.open_channel(kind, ("127.0.0.1", 22), ("127.0.0.1", 1))
                with self.assertRaisesRegex(paramiko.ChannelException, "prohibited"):
                    transport.open_channel("direct-streamlocal@openssh.com")

    def test_sessions_are_bounded(self) -> None:
        """One connection has ten sessions at a time; a closed one makes room."""
        with self.ship.paramiko() as transport:
            channels = [transport.open_session() for _ in range(10)]
            with self.assertRaises(paramiko.ChannelException):
                transport.open_session()
            channels[0].exec_command("who")
            channels[0].recv_exit_status()
            channels[0].close()
            until(lambda: opened(transport), "there is room for another")

    def test_one_command_a_session(self) -> None:
        """A second command, or a variable after the first, is refused."""
        with self.ship.paramiko() as transport:
            channel = transport.open_session()
            channel.exec_command("sh sleep 5")
            with self.assertRaises(paramiko.SSHException):
                channel.exec_command("who")

    def test_public_keys_only(self) -> None:
        """Passwords and keyboard-interactive are not offered, and nobody comes in without a key."""
        ran = self.ship.run("who", "-o", "PubkeyAuthentication=no")
        self.assertEqual(ran.returncode, 255)
        self.assertIn(b"Permission denied (publickey).", ran.stderr)

    def test_unknown_account(self) -> None:
        """CVE-2026-22253: a good key does not open an account that does not exist."""
        for account in ("root", "Git", "git ", "", "git\0", "../git", "x" * 5000):
            with self.assertRaises(paramiko.SSHException), self.ship.paramiko(account):
                self.fail(f"{account!r} came in")

    def test_weak_signatures_and_keys(self) -> None:
        """RSA with SHA-1, RSA under 2048 bits and DSA are refused though their keys are listed."""
        strong = self.ship.admit("sha1", "rsa", 2048)
        self.assertEqual(self.ship.run("who", key=strong).returncode, 0)
        old = ("-o", "PubkeyAcceptedAlgorithms=ssh-rsa")
        self.assertEqual(self.ship.run("who", *old, key=strong).returncode, 255)
        weak = self.ship.admit("weak", "rsa", 1024)
        self.assertEqual(self.ship.run("who", key=weak).returncode, 255)
        dsa = ("-o", "PubkeyAcceptedAlgorithms=ssh-dss")
        self.assertEqual(
            self.ship.run("who", *dsa, key=self.ship.admit("dsa", "dsa")).returncode, 255
        )

    def test_removed_key(self) -> None:
        """A key that was taken away opens nothing from that moment."""
        key = self.ship.admit("leaver")
        self.assertEqual(self.ship.run("who", key=key).returncode, 0)
        (self.ship.keys / "leaver.pub").unlink()
        self.assertEqual(self.ship.run("who", key=key).returncode, 255)

    def test_login_attempts_are_bounded(self) -> None:
        """After twenty requests to log in the client is disconnected."""
        key = paramiko.Ed25519Key.from_private_key_file(str(make_key(self.ship.root / "nobody")))
        transport = paramiko.Transport(("127.0.0.1", self.ship.port))
        transport.start_client()
        attempts = 0
        while transport.is_active() and attempts < 50:
            with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
                transport.auth_publickey("git", key)
            attempts += 1
        transport.close()
        self.assertEqual(attempts, 21)
        self.assertIn("disconnected: too many login attempts", self.ship.log.read_text())


def opened(transport: paramiko.Transport) -> bool:
    with contextlib.suppress(paramiko.ChannelException):
        transport.open_session()
        return True
    return False


class Bounds(SynchronousTestCase):
    def test_login_timeout(self) -> None:
        """Conch's ten hours: a client that is not logged in in time is told so and closed,
        whether it said nothing, half of a key exchange, or all but its key."""
        ship = Ship(login_timeout=0.6)
        self.addCleanup(ship.close)
        silent, halfway = Raw(ship.port, version=False), Raw(ship.port)
        halfway.send(halfway.kexinit())
        patient = paramiko.Transport(("127.0.0.1", ship.port))
        patient.start_client()
        begun = time.monotonic()
        for client in (silent, halfway):
            self.assertEqual(client.farewell(), "login took longer than 0.6 s")
        until(lambda: not patient.is_active(), "the third is closed")
        patient.close()
        self.assertLess(time.monotonic() - begun, 5)
        self.assertEqual(ship.run("sh sleep 1").returncode, 0)

    def test_connections_per_address(self) -> None:
        """One address has so many connections; one more is refused in words, then there is room."""
        ship = Ship(per_address=3)
        self.addCleanup(ship.close)
        self.bounded(ship, 3, b"too many connections from 127.0.0.1, at most 3")

    def test_connections_in_all(self) -> None:
        """All addresses together have so many connections."""
        ship = Ship(total=2)
        self.addCleanup(ship.close)
        self.bounded(ship, 2, b"too many connections, at most 2; try again in a minute")

    def bounded(self, ship: Ship, most: int, why: bytes) -> None:
        command = (*ship.ssh(), "git@127.0.0.1", "sh echo; cat")
        clients = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=CLIENT_ENV)
            for _ in range(most)
        ]
        for client in clients:
            assert client.stdout is not None
            self.assertEqual(client.stdout.read(1), b"\n")
        refused = ship.run("who")
        self.assertEqual(refused.returncode, 255)
        self.assertIn(why, refused.stderr)
        for client in clients:
            self.assertEqual((client.communicate()[0], client.returncode), (b"", 0))
        until(lambda: ship.run("who").returncode == 0, "there is room again")

    def test_flood_of_refused(self) -> None:
        """A flood beyond the caps costs no descriptors."""
        ship = Ship(per_address=1)
        self.addCleanup(ship.close)
        before = ship.idle_descriptors()
        flood = []
        for _ in range(150):
            with contextlib.suppress(ConnectionResetError):  # thrown out before it knew it was in
                flood.append(Raw(ship.port, version=False))
        until(lambda: ship.log.read_text().count("refused: ") == 149, "all were seen")
        until(lambda: ship.watched.num_fds() <= before + 60, "most are closed at once")
        for client in flood:
            client.close()
        until(lambda: ship.watched.num_fds() <= before, "all are closed")
        until(lambda: ship.run("who").returncode == 0, "there is room again")
