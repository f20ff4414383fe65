"""Algorithms as real clients meet them: ciphers, compression, new keys, tampering, user keys."""

# Trial's assertions have no annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from typing import Any

import paramiko

from tests.receiver.ssh_case import ShipCase
from tests.receiver.ssh_ship import Ship

FIFTY_MB = os.urandom(1_000_000) * 50

# ssh-audit's own KEXINIT is that of an OpenSSH of 2020; this is one of today's.
AUDIT_OF_TODAY = """
import sys
from ssh_audit.ssh_socket import SSH_Socket
from ssh_audit.ssh_audit import main
SSH_Socket.send_kexinit.__defaults__[0].insert(0, "mlkem768x25519-sha256")
sys.exit(main())
"""


class Wire(ShipCase):
    def echo(self, data: bytes, *options: str, ship: Ship | None = None) -> int:
        """Send data through `cat`, check what comes back; how often keys were exchanged."""
        ran = (ship or self.ship).run("sh cat", "-v", *options, stdin=data)
        self.assertEqual(ran.returncode, 0, ran.stderr[-500:])
        self.assertEqual(hashlib.sha256(ran.stdout).digest(), hashlib.sha256(data).digest())
        return ran.stderr.count(b"SSH2_MSG_NEWKEYS received")

    def test_each_cipher_with_and_without_compression(self) -> None:
        """Data survives every cipher and MAC offered, compressed and not."""
        ciphers = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes256-ctr")
        data = FIFTY_MB[:2_500_000] + bytes(2_500_000)
        for cipher in ciphers:
            for compressed in ((), ("-C",)):
                self.echo(data, "-c", cipher, *compressed)
        self.echo(data, "-c", "aes192-ctr", "-m", "hmac-sha2-512-etm@openssh.com")

    def test_client_changes_keys_while_data_flows(self) -> None:
        """With new keys every megabyte, 50 MB there and back arrive unharmed."""
        for cipher in ("aes256-gcm@openssh.com", "aes256-ctr"):
            changes = self.echo(FIFTY_MB, "-c", cipher, "-o", "RekeyLimit=1M")
            self.assertGreater(changes, 20)

    def test_keys_change_under_compression(self) -> None:
        """Compression begins anew with each new key, on both sides alike."""
        self.assertGreater(self.echo(FIFTY_MB[:10_000_000], "-C", "-o", "RekeyLimit=1M"), 4)

    def test_server_changes_keys(self) -> None:
        """The server asks for new keys by itself, after so many bytes and after so long."""
        ship = Ship(rekey_bytes=1_000_000, rekey_seconds=0.2)
        self.addCleanup(ship.close)
        for options in ((), ("-C",), ("-c", "aes128-ctr")):
            self.assertGreater(self.echo(FIFTY_MB[:10_000_000], *options, ship=ship), 5)
        ran = ship.run("sh sleep 1", "-v")
        self.assertGreater(ran.stderr.count(b"SSH2_MSG_NEWKEYS received"), 2)

    def test_tampered_packet_ends_the_connection(self) -> None:
        """One bit changed on the way: disconnected, and nothing of that packet gets through."""
        for number, (cipher, word) in enumerate(
            (("aes256-gcm@openssh.com", "bad authentication tag"), ("aes256-ctr", "bad MAC"))
        ):
            relay = TamperingRelay(self.ship.port, at=150_000)
            self.addCleanup(relay.close)
            copy = self.ship.root / f"copy{number}"
            copy.touch()  # its writer may be gone before it has begun
            data, put = FIFTY_MB[:5_000_000], f"sh cat >{copy}"
            ran = self.ship.run(put, "-c", cipher, port=relay.port, stdin=data)
            self.assertEqual(ran.returncode, 255)
            self.assertIn(f"disconnected: {word}", self.ship.log.read_text())
            got = copy.read_bytes()
            self.assertLess(len(got), 150_000)
            self.assertEqual(got, FIFTY_MB[: len(got)])

    def audit(self, *argv: str) -> tuple[set[str], set[str]]:
        """Algorithms that ssh-audit fails, and `name: warning` for those it warns of."""
        where = ("-j", "--skip-rate-test", "-p", str(self.ship.port), "127.0.0.1")
        ran = subprocess.run(
            (sys.executable, *argv, *where), capture_output=True, timeout=30, check=False
        )
        report: dict[str, Any] = json.loads(ran.stdout)
        found = [one for kind in ("kex", "key", "enc", "mac") for one in report[kind]]
        self.assertGreaterEqual(len(found), 5)
        self.assertEqual(report["cves"], [])
        fails = {one["algorithm"] for one in found if one["notes"].get("fail")}
        warnings = {
            f"{one['algorithm']}: {text}" for one in found for text in one["notes"].get("warn", ())
        }
        return fails, warnings

    def test_ssh_audit(self) -> None:
        """ssh-audit finds nothing to fail, and nothing to warn of in what a client of today gets.

        To a client without a post-quantum exchange (OpenSSH before 9.9, so Debian 12's) the ship
        still offers curve25519; that is the one warning, for such clients alone.
        """
        self.assertEqual(self.audit("-c", AUDIT_OF_TODAY), (set(), set()))
        fails, warnings = self.audit("-m", "ssh_audit")
        self.assertEqual(fails, set())
        weakness = "does not provide protection against post-quantum attacks"
        fallbacks = ("curve25519-sha256", "curve25519-sha256@libssh.org")
        self.assertEqual(warnings, {f"{name}: {weakness}" for name in fallbacks})

    def test_strict_key_exchange(self) -> None:
        """OpenSSH and the ship agree on strict key exchange, the cure for Terrapin."""
        ran = self.ship.run("who", "-vvv")
        self.assertIn(b"kex-strict-s-v00@openssh.com", ran.stderr)
        self.assertIn(b"resetting send seqnr", ran.stderr)
        self.assertIn(b"resetting read seqnr", ran.stderr)

    def test_every_kind_of_user_key(self) -> None:
        """Ed25519, ECDSA and RSA keys log in, RSA with SHA-2 since the client is told."""
        kinds = (("ecdsa", 256), ("ecdsa", 384), ("ecdsa", 521), ("rsa", 2048), ("rsa", 3072))
        for kind, bits in kinds:
            key = self.ship.admit(f"user-{kind}", kind, bits)
            ran = self.ship.run("who", key=key)
            self.assertEqual(ran.stderr, b"git user-%s 127.0.0.1\n" % kind.encode())

    def test_paramiko_with_post_quantum_exchange(self) -> None:
        """A client that is not OpenSSH logs in, by ML-KEM, and by CTR when it has no GCM."""
        for off in ((), ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")):
            client = paramiko.SSHClient()
            self.addCleanup(client.close)
            client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
            client.connect(
                "127.0.0.1",
                self.ship.port,
                username="git",
                key_filename=str(self.ship.alice),
                allow_agent=False,
                look_for_keys=False,
                disabled_algorithms={
                    "kex": ["curve25519-sha256@libssh.org", "ecdh-sha2-nistp256"],
                    "ciphers": list(off),
                },
            )
            _, stdout, _ = client.exec_command("sh echo hello; exit 5")
            self.assertEqual((stdout.read(), stdout.channel.recv_exit_status()), (b"hello\n", 5))

    def test_a_client_that_waits_for_our_kexinit(self) -> None:
        """A client that sends nothing after its version gets the whole list of algorithms."""
        with socket.create_connection(("127.0.0.1", self.ship.port), timeout=10) as sock:
            sock.sendall(b"SSH-2.0-patient\r\n")
            said = b""
            while b"curve25519-sha256" not in said:
                said += sock.recv(4096)
            self.assertIn(b"mlkem768x25519-sha256", said)

    def test_not_an_ssh_client(self) -> None:
        """A browser is told what this port is, and disconnected."""
        with socket.create_connection(("127.0.0.1", self.ship.port), timeout=10) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n")
            said = b""
            while chunk := sock.recv(4096):
                said += chunk
            self.assertIn(b"This is an SSH server", said)


class TamperingRelay:
    """Passes one connection on, with one bit flipped in what the client sends."""

    def __init__(self, port: int, *, at: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._target = port
        self._at = at
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._threads[0].start()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(("127.0.0.1", self._target))
        back = threading.Thread(target=self._pass, args=(server, client, -1), daemon=True)
        back.start()
        self._pass(client, server, self._at)
        back.join()
        client.close()
        server.close()

    @staticmethod
    def _pass(source: socket.socket, target: socket.socket, at: int) -> None:
        seen = 0
        try:
            while data := source.recv(65536):
                if seen <= at < seen + len(data):
                    changed = bytearray(data)
                    changed[at - seen] ^= 0x10
                    data = bytes(changed)
                seen += len(data)
                target.sendall(data)
        except OSError:  # the other side has gone
            pass
        finally:
            for one, how in ((target, socket.SHUT_WR), (source, socket.SHUT_RD)):
                try:
                    one.shutdown(how)
                except OSError:  # it has been shut down
                    continue

    def close(self) -> None:
        self._listener.close()
        self._threads[0].join(10)
