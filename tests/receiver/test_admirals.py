"""The headquarters' `authorized_keys/`: whom it lets in."""

# Trial's assertions have no annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import shutil
import tempfile
import threading
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from receiver.headquarters.admirals import write_admirals
from receiver.ssh.keys import KeyDirectory, parse_line
from tests.receiver.ssh_ship import Ship, make_key

README = b"# Keys\n\nPut `ssh-ed25519 AAAA...` lines here, one file for each of us.\n"


class Written(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)
        self.own = self.root / "own"
        self.own.mkdir()
        self.directory = self.root / "authorized_keys"
        self.known = KeyDirectory(self.own, self.directory)

    def line(self, name: str, kind: str = "ed25519", bits: int = 0) -> bytes:
        """A new public key's line."""
        make_key(self.root / name, kind, bits)
        return (self.root / f"{name}.pub").read_bytes()

    def owner(self, line: bytes) -> str | None:
        key = self.known.find(parse_line(line.decode()))
        return key.owner if key else None

    def owners(self) -> list[str]:
        return [key.owner for key in self.known.all()]

    def test_named_for_their_owners(self) -> None:
        """A key's owner is its file's name, wherever below the directory that is; files of one
        owner are kept together."""
        ann, home, bob = self.line("ann"), self.line("home"), self.line("bob", "ecdsa")
        keys = {"ann.pub": ann, "team/ann": home, "team/deep/bob.pub": b"# bob\n" + bob}
        self.assertEqual(write_admirals(self.directory, keys), ())
        self.assertEqual([self.owner(one) for one in (ann, home, bob)], ["ann", "ann", "bob"])
        self.assertEqual(self.owners(), ["ann", "ann", "bob"])

    def test_ranks(self) -> None:
        """What is below `pushers/` and `captains/` is theirs; the rest is admirals'."""
        ann, bob, cat, dan = (self.line(name) for name in ("ann", "bob", "cat", "dan"))
        keys = {"ann": ann, "pushers/bob.pub": bob, "captains/deep/cat": cat, "team/pushers": dan}
        (warning,) = write_admirals(self.directory, keys)
        self.assertIn("authorized_keys/team/pushers: that is no name", warning)
        ranks = {key.owner: key.rank.name for key in self.known.all()}
        self.assertEqual(ranks, {"ann": "ADMIRAL", "bob": "PUSHER", "cat": "CAPTAIN"})
        laid = self.directory.readlink()
        write_admirals(self.directory, keys)
        self.assertEqual(self.directory.readlink(), laid)

    def test_what_is_no_key(self) -> None:
        """Prose is passed over in silence, a document even where it shows a key."""
        example = README + self.line("example")
        keys = {"README.md": example, "README": example, "notes": b"who is who\n", ".keep": b""}
        self.assertEqual(write_admirals(self.directory, {**keys, "ann": self.line("ann")}), ())
        self.assertEqual(self.owners(), ["ann"])

    def test_private_key(self) -> None:
        """A private key is never written, nor what stands beside it; the warning names the file."""
        public = self.line("ann")
        private = (self.root / "ann").read_bytes()
        keys = {"ann": private, "team/bob": public + private, "README.md": private}
        warnings = write_admirals(self.directory, keys)
        self.assertEqual(len(warnings), 3)
        for name, warning in zip(sorted(keys), warnings, strict=True):
            self.assertIn(f"authorized_keys/{name}: this is a private key", warning)
        self.assertEqual(list(self.directory.iterdir()), [])

    def test_refused_keys(self) -> None:
        """DSA, short RSA and options are warned of with file and line; the good key counts."""
        good = self.line("good")
        lines = (self.line("d", "dsa"), self.line("s", "rsa", 1024), b'command="id" ' + good, good)
        warnings = write_admirals(self.directory, {"ann": b"".join(lines), "a b": good})
        self.assertEqual(len(warnings), 4)
        self.assertIn("authorized_keys/a b: that is no name", warnings[0])
        self.assertIn("authorized_keys/ann:1: the key DSA keys are refused", warnings[1])
        self.assertIn("authorized_keys/ann:2: ", warnings[2])
        self.assertIn("authorized_keys/ann:3: ", warnings[3])
        self.assertEqual(self.owners(), ["ann"])

    def test_both_ways_at_once(self) -> None:
        """A key counts from the moment it is written until the moment it is gone."""
        ann, bob = self.line("ann"), self.line("bob")
        write_admirals(self.directory, {"ann": ann})
        self.assertEqual([self.owner(ann), self.owner(bob)], ["ann", None])
        write_admirals(self.directory, {"bob": bob})
        self.assertEqual([self.owner(ann), self.owner(bob)], [None, "bob"])
        write_admirals(self.directory, {})
        self.assertEqual([self.owner(ann), self.owner(bob)], [None, None])

    def test_beside_the_ships_own(self) -> None:
        """A key under one name in both directories lets in; under two names it lets in nobody."""
        ann, bob = self.line("ann"), self.line("bob")
        (self.own / "ann.pub").write_bytes(ann)
        (self.own / "robert").write_bytes(bob)
        write_admirals(self.directory, {"ann": ann, "bob": bob})
        self.assertEqual([self.owner(ann), self.owner(bob)], ["ann", None])

    def test_unchanged(self) -> None:
        """The same keys again touch nothing; what somebody changed on the ship is put right."""
        keys = {"ann": self.line("ann")}
        write_admirals(self.directory, keys)
        laid = self.directory.readlink()
        write_admirals(self.directory, keys)
        self.assertEqual(self.directory.readlink(), laid)
        (self.directory / "eve").write_bytes(self.line("eve"))
        write_admirals(self.directory, keys)
        self.assertEqual(self.owners(), ["ann"])

    def test_only_for_the_ship(self) -> None:
        """Nobody else may read or write the keys, and no more than two versions are kept."""
        for name in ("ann", "bob", "eve", "ian"):
            write_admirals(self.directory, {name: self.line(name)})
        self.assertEqual((self.directory / "ian").stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.directory.stat().st_mode & 0o777, 0o700)
        self.assertEqual(len(list(self.root.glob(".authorized_keys-*"))), 2)

    def test_instead_of_a_directory(self) -> None:
        """A plain directory in the place is replaced as well."""
        self.directory.mkdir()
        (self.directory / "eve").write_bytes(self.line("eve"))
        write_admirals(self.directory, {"ann": self.line("ann")})
        self.assertEqual(self.owners(), ["ann"])

    def test_never_without_keys(self) -> None:
        """Whoever looks while keys change finds one that stays, every time,
        and nothing that is half gone."""
        ann, keys = self.line("ann"), [{"bob": self.line("bob")}, {"eve": self.line("eve")}]
        write_admirals(self.directory, {"ann": ann})
        ended = threading.Event()

        def change() -> None:
            for turn in range(100):
                write_admirals(self.directory, {"ann": ann, **keys[turn % 2]})
            ended.set()

        changing = threading.Thread(target=change)
        changing.start()
        missed = 0
        while not ended.is_set():
            missed += self.owner(ann) != "ann"
        changing.join()
        self.assertEqual(missed, 0)
        self.assertEqual(self.known._told, set())


class Login(SynchronousTestCase):
    def test_in_force_at_the_next_login(self) -> None:
        """A key of the headquarters lets in over ssh at once, and once it is gone no more."""
        ship = Ship()
        self.addCleanup(ship.close)
        key = make_key(ship.root / "ann")
        line = key.with_suffix(".pub").read_bytes()
        self.assertEqual(ship.run("who", key=key).returncode, 255)
        write_admirals(ship.root / "admirals", {"team/ann.pub": line})
        self.assertEqual(ship.run("who", key=key).stderr, b"git ann 127.0.0.1\n")
        write_admirals(ship.root / "admirals", {})
        self.assertEqual(ship.run("who", key=key).returncode, 255)
