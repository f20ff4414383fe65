"""The deciding parts of the SSH server by themselves."""

# Trial's assertions have no annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import errno
import os
import signal
import struct
import tracemalloc
import zlib
from base64 import b64encode
from hashlib import sha256
from typing import Any, cast

from attrs import evolve
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from receiver.ssh import algorithms
from receiver.ssh.channel import git_protocol
from receiver.ssh.child import farewell
from receiver.ssh.ciphers import LARGEST, Clear, Direction, direction, packet_end
from receiver.ssh.compression import Deflate, Inflate
from receiver.ssh.errors import DisagreementError, FramingError, InflationError, TamperError
from receiver.ssh.keys import parse_line
from receiver.ssh.login import verified
from receiver.ssh.packets import BACKLOG, PacketTransport
from receiver.ssh.pipes import Inlet
from receiver.ssh.transport import Phase, allowed


def string(value: bytes) -> bytes:
    return struct.pack(">L", len(value)) + value


OPENSSH_9 = evolve(
    algorithms.OURS,
    kex=(b"sntrup761x25519-sha512@openssh.com", b"curve25519-sha256"),
    host_keys=(b"ecdsa-sha2-nistp256", b"ssh-ed25519"),
    ciphers_in=(b"chacha20-poly1305@openssh.com", b"aes128-ctr", b"aes128-gcm@openssh.com"),
    ciphers_out=(b"chacha20-poly1305@openssh.com", b"aes128-ctr", b"aes128-gcm@openssh.com"),
)


class Negotiation(SynchronousTestCase):
    def test_gcm_before_the_clients_own_order(self) -> None:
        """A client that has GCM gets it, though it lists CTR first."""
        agreed = algorithms.agree(algorithms.answer(OPENSSH_9), OPENSSH_9)
        self.assertEqual(agreed.cipher_in, b"aes128-gcm@openssh.com")
        self.assertEqual(agreed.kex, b"curve25519-sha256")

    def test_ctr_for_who_has_no_gcm(self) -> None:
        """A client without GCM, in either direction, gets CTR in both."""
        client = evolve(OPENSSH_9, ciphers_out=(b"aes256-ctr",))
        agreed = algorithms.agree(algorithms.answer(client), client)
        self.assertEqual((agreed.cipher_in, agreed.cipher_out), (b"aes128-ctr", b"aes256-ctr"))

    def test_post_quantum_alone_where_there_is_one(self) -> None:
        """A client with ML-KEM is offered nothing weaker."""
        client = evolve(OPENSSH_9, kex=(b"curve25519-sha256", b"mlkem768x25519-sha256"))
        self.assertEqual(algorithms.answer(client).kex, (b"mlkem768x25519-sha256",))

    def test_nothing_in_common(self) -> None:
        """The disagreement says about what, and who has what."""
        client = evolve(OPENSSH_9, macs_in=(b"hmac-sha1",))
        with self.assertRaisesRegex(DisagreementError, "no common MAC.*the client hmac-sha1"):
            algorithms.agree(algorithms.answer(client), client)
        client = evolve(OPENSSH_9, macs_in=(b"\x1b[2J\n",))
        with self.assertRaisesRegex(DisagreementError, r"the client \?\[2J\?$"):
            algorithms.agree(algorithms.answer(client), client)

    def test_pseudo_algorithms_are_never_agreed_on(self) -> None:
        """A client that lists the server's markers as key exchanges gets no such exchange."""
        client = evolve(OPENSSH_9, kex=(b"ext-info-s", algorithms.STRICT_SERVER))
        with self.assertRaises(DisagreementError):
            algorithms.agree(algorithms.answer(client), client)

    def test_what_a_client_may_send_when(self) -> None:
        """In a key exchange only its next message, and no data; strict: not even an IGNORE."""
        due = {Phase.BEFORE: 20, Phase.AGREED: 30, Phase.KEYED: 21}
        for phase, message in due.items():
            for strict in (False, True):
                may = {n for n in range(256) if allowed(phase, n, strict=strict)}
                self.assertEqual(may, {message} if strict else {message, 1, 2, 3, 4})
        self.assertFalse(any(allowed(Phase.OPEN, n, strict=False) for n in (21, 30, 34)))
        self.assertTrue(all(allowed(Phase.OPEN, n, strict=True) for n in (2, 20, 50, 94)))


def pair(cipher: bytes, mac: bytes) -> tuple[Direction, Direction]:
    def make() -> Direction:
        return direction(cipher, mac, iv=b"i" * 64, key=b"k" * 128, mac_key=b"m" * 128)

    return make(), make()


class Packets(SynchronousTestCase):
    def test_round_trip(self) -> None:
        """What one side seals the other opens, for every cipher and length of payload."""
        ciphers = [pair(c, m) for c in algorithms.GCM + algorithms.CTR for m in algorithms.MACS]
        for sealing, opening in (*ciphers, (Clear(), Clear())):
            for number, size in enumerate((*range(1, 70), 32768)):
                payload = os.urandom(size)
                packet = memoryview(sealing.seal(number, payload))
                self.assertEqual(packet_end(packet, 0, opening.extra), len(packet))
                self.assertIsNone(packet_end(packet[:-1], 0, opening.extra))
                self.assertEqual(opening.open(number, packet), payload)

    def test_any_changed_bit_is_noticed(self) -> None:
        """Any byte changed after the length: refused. Replayed or reordered: refused."""
        for cipher in (b"aes128-gcm@openssh.com", b"aes256-ctr"):
            mac = b"hmac-sha2-256-etm@openssh.com"
            packet = pair(cipher, mac)[0].seal(0, b"payload")
            for at in range(4, len(packet)):
                changed = bytearray(packet)
                changed[at] ^= 1
                with self.assertRaises(TamperError):
                    pair(cipher, mac)[1].open(0, memoryview(changed))
            opening = pair(cipher, mac)[1]
            opening.open(0, memoryview(packet))
            with self.assertRaises(TamperError):
                opening.open(1, memoryview(packet))

    def test_lengths_that_cannot_be(self) -> None:
        """A packet that says it is longer than any may be is refused at its first four bytes."""
        for length in (0, 7, LARGEST + 1, 0xFFFFFFFF):
            with self.assertRaises(FramingError):
                packet_end(memoryview(struct.pack(">L", length)), 0, 4)

    def test_padding_that_cannot_be(self) -> None:
        """Padding that is too short, or leaves no payload, is refused."""
        for size in (0, 3, 11, 255):
            packet = struct.pack(">LB", 12, size) + bytes(11)
            with self.assertRaises(FramingError):
                Clear().open(0, memoryview(packet))

    def test_compressed_bomb(self) -> None:
        """A small packet that would grow to gigabytes is refused before it does."""
        with self.assertRaisesRegex(InflationError, "grows beyond"):
            Inflate()(memoryview(zlib.compress(bytes(100_000_000))))
        with self.assertRaisesRegex(InflationError, "broken"):
            Inflate()(memoryview(b"no zlib"))

    def test_compression(self) -> None:
        """What one side deflates the other inflates, packet by packet."""
        deflate, inflate = Deflate(), Inflate()
        for payload in (b"x", bytes(30000), os.urandom(30000)):
            self.assertEqual(inflate(memoryview(deflate(payload))), payload)

    def test_replies_that_are_not_read(self) -> None:
        """A client that asks and does not read the answers is dropped before they fill memory."""
        transport = PacketTransport(cast(Any, Clock()), "192.0.2.1")
        wire = StringTransport()
        transport.transport = cast(Any, wire)
        wire.registerProducer(transport, True)
        transport.pauseProducing()
        for _ in range(BACKLOG // 1000 + 1):
            transport.sendPacket(82, bytes(1000))
        self.assertTrue(wire.disconnecting)
        self.assertLess(len(wire.value()), BACKLOG + 5000)


class Signatures(SynchronousTestCase):
    def test_no_sha_1(self) -> None:
        """An RSA signature counts with SHA-2 only, under exactly the name that it was asked by."""
        private = rsa.generate_private_key(65537, 2048)
        line = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        blob = parse_line(line)
        names = {b"ssh-rsa": hashes.SHA1(), b"rsa-sha2-256": hashes.SHA256()}
        for name, digest in names.items():
            made = string(name) + string(private.sign(b"message", padding.PKCS1v15(), digest))
            for asked in (b"ssh-rsa", b"rsa-sha2-256", b"rsa-sha2-512"):
                good = name == asked == b"rsa-sha2-256"
                self.assertEqual(verified(blob, asked, made, b"message"), good, (name, asked))

    def test_touch_is_required(self) -> None:
        """A security key's signature counts only if it says that somebody touched the key."""
        private = Ed25519PrivateKey.generate()
        raw = private.public_key().public_bytes_raw()
        kind = b"sk-ssh-ed25519@openssh.com"
        blob = string(kind) + string(raw) + string(b"ssh:")
        for flags, good in ((b"\1", True), (b"\5", True), (b"\0", False), (b"\4", False)):
            inner = sha256(b"ssh:").digest() + flags + bytes(4) + sha256(b"message").digest()
            signature = string(kind) + string(private.sign(inner)) + flags + bytes(4)
            self.assertEqual(verified(blob, kind, signature, b"message"), good)
            self.assertFalse(verified(blob, kind, signature, b"another message"))
            self.assertFalse(verified(blob, b"ssh-ed25519", signature, b"message"))
        self.assertFalse(verified(blob, kind, string(kind), b"message"))
        self.assertEqual(parse_line(f"{kind.decode()} {b64encode(blob).decode()} x"), blob)


class ChildAndPipes(SynchronousTestCase):
    def test_farewell(self) -> None:
        """Statuses and signals are told as RFC 4254 has it; a signal it does not know is marked."""

        def died(number: int) -> Failure:
            return Failure(ProcessTerminated(None, number, number))

        self.assertEqual(farewell(Failure(ProcessDone(0))), (b"exit-status", bytes(4)))
        status = Failure(ProcessTerminated(255, None, 0xFF00))
        self.assertEqual(farewell(status), (b"exit-status", b"\0\0\0\xff"))
        rest = b"\0" + bytes(8)
        self.assertEqual(farewell(died(15)), (b"exit-signal", b"\0\0\0\4TERM" + rest))
        self.assertEqual(farewell(died(signal.SIGBUS))[1], b"\0\0\0\x09BUS@linux" + rest)
        self.assertEqual(farewell(died(40))[1], b"\0\0\0\x0840@linux" + rest)

    def test_git_protocol(self) -> None:
        """Exactly the values that git sends, under exactly its name."""
        for value in (b"version=0", b"version=1", b"version=2", b"version=2:a=b:c"):
            self.assertEqual(git_protocol(b"GIT_PROTOCOL", value), value.decode())
        for value in (b"", b"version=", b"version=22", b"version=2\n", b"version=2:", b"x=2"):
            self.assertIsNone(git_protocol(b"GIT_PROTOCOL", value))
        self.assertIsNone(git_protocol(b"LD_PRELOAD", b"version=2"))

    def test_many_tiny_pieces(self) -> None:
        """A window full of one-byte packets takes about as much memory as one of large ones."""
        inlet = Inlet(cast(Any, MemoryReactor()), lambda size: None)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for _ in range(100_000):
            inlet.feed(memoryview(bytes(1)))
        self.assertLess(tracemalloc.get_traced_memory()[0], 1_000_000)

    def test_credit_for_every_byte(self) -> None:
        """Every byte fed is given back once: written, or dropped when the child is gone."""
        credit: list[int] = []
        inlet = Inlet(cast(Any, MemoryReactor()), credit.append)
        read, write = os.pipe()
        inlet.open(write)
        data = os.urandom(6_000_000)
        for at in range(0, len(data), 30_000):
            inlet.feed(memoryview(data)[at : at + 30_000])
        inlet.flush()
        got = bytearray()
        while len(got) < 2_000_000:
            got += os.read(read, 65536)
            self.assertIsNone(inlet.doWrite())
            self.assertLessEqual(len(got), sum(credit))
        self.assertEqual(got, data[: len(got)])
        os.close(read)
        self.assertIsNotNone(inlet.doWrite())
        inlet.connectionLost(Failure(OSError(errno.EPIPE)))
        inlet.feed(memoryview(bytes(10)))
        self.assertEqual(sum(credit), len(data) + 10)
