"""Keys on disk: who may log in, and the host's own."""

# Trial's assertions have no annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import cast

from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from receiver.ssh.keys import KeyDirectory, RefusedKeyError, host_key, parse_line
from tests.receiver.ssh_ship import make_key


class Temporary(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)
        self.said: list[str] = []
        observer = cast(ILogObserver, self.listen)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def listen(self, event: LogEvent) -> None:
        if "text" in event:
            self.said.append(str(event["text"]))

    def line(self, name: str, kind: str = "ed25519", bits: int = 0) -> str:
        """A new public key's line."""
        make_key(self.root / name, kind, bits)
        return (self.root / f"{name}.pub").read_text()


class Users(Temporary):
    def setUp(self) -> None:
        super().setUp()
        self.keys = self.root / "keys"
        self.keys.mkdir()
        self.directory = KeyDirectory(self.keys)

    def test_owner_and_fingerprint(self) -> None:
        """The owner is the file's name without .pub; the fingerprint is what ssh-keygen says."""
        lines = [self.line("one"), self.line("two", "ecdsa")]
        (self.keys / "alice.pub").write_text("# home\n" + lines[0] + "\n" + lines[1])
        (self.keys / "bob").write_text(self.line("three", "rsa", 2048))
        listed = subprocess.run(
            ("ssh-keygen", "-l", "-f", str(self.keys / "alice.pub")),
            capture_output=True,
            check=True,
        ).stdout.decode()
        for line in lines:
            key = self.directory.find(parse_line(line))
            assert key is not None
            self.assertEqual(key.owner, "alice")
            self.assertIn(f" {key.fingerprint} ", listed)
        self.assertEqual([key.owner for key in self.directory.all()], ["alice", "alice", "bob"])
        self.assertEqual(self.said, [])

    def test_refused_lines(self) -> None:
        """Options, DSA, short RSA, certificates and nonsense are skipped with one log line each,
        however often the directory is read; the good key among them counts."""
        good = self.line("good")
        bad = (
            f'command="id" {good}',
            f'from="192.0.2.1" {good}',
            f"restrict {good}",
            self.line("dsa", "dsa"),
            self.line("short", "rsa", 1024),
            "ssh-ed25519 not-base64",
            "ssh-ed25519",
            "ssh-ed25519 AAAA",
            good.replace("ssh-ed25519 ", "ssh-rsa ", 1),
            "-----BEGIN OPENSSH PRIVATE KEY-----",
            "ssh-ed25519-cert-v01@openssh.com AAAA",
            "ssh-ed25519\0 AAAA",
        )
        (self.keys / "alice").write_text("\n".join(line.strip() for line in (*bad, good)))
        for _ in range(3):
            self.assertEqual(len(list(self.directory.all())), 1)
        self.assertEqual(len(self.said), len(bad))
        for number, text in enumerate(self.said, 1):
            self.assertIn(f"alice:{number}: ", text)

    def test_one_key_under_two_names(self) -> None:
        """A key that stands under two names identifies nobody, and the log says so."""
        line = self.line("key")
        for name in ("alice", "boss"):
            (self.keys / name).write_text(line)
        self.assertIsNone(self.directory.find(parse_line(line)))
        self.assertIn("stands under alice, boss; refused", self.said[0])

    def test_changes_count_at_once(self) -> None:
        """A key is known from the moment its file is there until the moment it is gone."""
        line = self.line("key")
        blob = parse_line(line)
        self.assertIsNone(self.directory.find(blob))
        (self.keys / "alice").write_text(line)
        self.assertIsNotNone(self.directory.find(blob))
        (self.keys / "alice").unlink()
        self.assertIsNone(self.directory.find(blob))

    def test_what_is_no_file_of_keys(self) -> None:
        """Hidden files are passed over; odd names, directories and huge files are told of."""
        line = self.line("key")
        for name in (".alice.tmp", "-rf", "a b", "x" * 65):
            (self.keys / name).write_text(line)
        (self.keys / "folder").mkdir()
        (self.keys / "huge").write_bytes(b"#" * 2_000_000)
        self.assertEqual(list(self.directory.all()), [])
        self.assertEqual(len(self.said), 5)

    def test_no_directory(self) -> None:
        """Without the directory nobody is known, and the log says why."""
        self.keys.rmdir()
        self.assertEqual(list(self.directory.all()), [])
        self.assertIn("No such file or directory", self.said[0])

    def test_refusals_are_words(self) -> None:
        """A refused line says why in a sentence."""
        with self.assertRaisesRegex(RefusedKeyError, "RSA of 1024 bits, fewer than 2048"):
            parse_line(self.line("short", "rsa", 1024))


class Host(Temporary):
    def test_made_once(self) -> None:
        """The host key is made at the first start, for its owner alone, and is the same after."""
        path = self.root / "host_key"
        first = host_key(path)
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(host_key(path), first)
        self.assertEqual(list(self.root.iterdir()), [path])
        public = subprocess.run(
            ("ssh-keygen", "-y", "-f", str(path)), capture_output=True, check=True
        ).stdout
        self.assertTrue(public.startswith(b"ssh-ed25519 "))

    def test_refused(self) -> None:
        """A host key that others may read, or that is none, stops the ship with a sentence."""
        path = self.root / "host_key"
        host_key(path)
        path.chmod(0o640)
        with self.assertRaisesRegex(ValueError, "chmod 600"):
            host_key(path)
        path.write_text("nonsense")
        path.chmod(0o600)
        with self.assertRaisesRegex(ValueError, "not an OpenSSH private key"):
            host_key(path)
        with self.assertRaisesRegex(ValueError, "not an Ed25519 private key"):
            host_key(make_key(self.root / "rsa", "rsa", 2048))
