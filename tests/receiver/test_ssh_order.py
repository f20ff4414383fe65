"""Messages out of their place, and nonsense: what other servers stumbled over."""

# Trial's assertions have no annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import paramiko

from tests.receiver.ssh_case import ShipCase
from tests.receiver.ssh_raw import Raw, text
from tests.receiver.ssh_ship import until


class Order(ShipCase):
    def test_answers_to_nothing(self) -> None:
        """A client that confirms or fails channels which the ship never opened is disconnected:
        the first would set a packet size of nothing, on which sending would turn for ever."""
        for message, fields in ((91, bytes(16)), (92, bytes(16))):
            with self.ship.paramiko() as transport:
                transport.open_session().exec_command("sh sleep 0.1; echo x; sleep 5")
                raw = paramiko.Message()
                raw.add_bytes(bytes((message,)) + fields)
                transport._send_message(raw)
                transport.join(10)
                self.assertFalse(transport.is_active())
            self.assertEqual(self.ship.run("who").returncode, 0)

    def test_new_keys_before_the_login(self) -> None:
        """A client cannot have key exchanges, which cost us most, again and again without login."""
        transport = paramiko.Transport(("127.0.0.1", self.ship.port))
        self.addCleanup(transport.close)
        transport.start_client()
        with self.assertRaises((paramiko.SSHException, EOFError)):
            transport.renegotiate_keys()
        until(lambda: "new keys before the login" in self.ship.log.read_text(), "it is told")

    def test_nothing_before_keys_and_login(self) -> None:
        """Services, logins and channels asked for without encryption end the connection."""
        early = {
            "service request": bytes((5,)) + text(b"ssh-connection"),
            "login": bytes((50,)) + text(b"git") + text(b"ssh-connection") + text(b"none"),
            "channel": bytes((90,)) + text(b"session") + bytes(12),
            "new keys": bytes((21,)),
            "half a key exchange": bytes((30,)) + text(bytes(32)),
        }
        for what, payload in early.items():
            client = Raw(self.ship.port)
            client.send(payload)
            self.assertRegex(client.farewell(), "out of order", what)

    def test_channel_before_login(self) -> None:
        """A channel asked for before the login is not opened."""
        transport = paramiko.Transport(("127.0.0.1", self.ship.port))
        transport.start_client()
        with self.assertRaises((paramiko.SSHException, EOFError)):
            transport.open_session(timeout=1)
        transport.close()
        self.assertEqual(self.ship.run("who").returncode, 0)

    def test_terrapin(self) -> None:
        """CVE-2023-48795: under strict key exchange nothing may be slipped in before the keys."""
        marker, ignore = b"kex-strict-c-v00@openssh.com", bytes((2,)) + text(b"")
        client = Raw(self.ship.port)
        client.send(ignore, client.kexinit(marker))
        self.assertIn("KEXINIT was not the first", client.farewell())
        client = Raw(self.ship.port)
        client.send(client.kexinit(marker), ignore)
        self.assertIn("message 2 out of order", client.farewell())

    def test_nonsense(self) -> None:
        """Broken messages end the connection with one line, and the server lives on."""
        for payload in (bytes((20,)) + bytes(16), bytes((20,)), b"\xff" * 30, bytes((1,))):
            client = Raw(self.ship.port)
            client.send(payload)
            client.farewell()
        client = Raw(self.ship.port, version=False)
        client._socket.sendall(b"SSH-2.0-x\r\n" + b"\x7f\xff\xff\xff" * 100)
        self.assertIn("bad packet length", client.farewell())
        self.assertEqual(self.ship.run("who").returncode, 0)
        self.assertNotIn("Traceback", self.ship.log.read_text())

    def test_no_common_algorithm(self) -> None:
        """A client without a cipher of ours is told what there is."""
        ran = self.ship.run("who", "-c", "chacha20-poly1305@openssh.com")
        self.assertEqual(ran.returncode, 255)
