"""TLS pairs: what is taken, what is refused and what is said of it."""

from __future__ import annotations

import contextlib
import datetime
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as some
from twisted.trial.unittest import SynchronousTestCase, TestCase

from proxy.certificates import (
    Certificate,
    InvalidCertificate,
    doubt,
    expiring,
    kept,
    load,
    offered,
    pairs,
    read,
    save,
    self_made,
)
from proxy.distribution import SYSTEM_PATHS
from tests.proxy.reactor import run

DAY = 86400.0
NOW = 1_800_000_000.0
PEM = serialization.Encoding.PEM


def called(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def key_pem(key: Any, passphrase: bytes | None = None) -> bytes:
    lock: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        lock = serialization.BestAvailableEncryption(passphrase)
    found: bytes = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, lock)
    return found


def signed(
    key: Any, subject: str = "a.example.com", by: tuple[Any, str] | None = None, how: Any = None
) -> bytes:
    """A certificate of `key`, signed by itself or `by` a key and name."""
    signer, issuer = by or (key, subject)
    if how is None and not isinstance(signer, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        how = hashes.SHA256()
    begins = datetime.datetime.fromtimestamp(NOW, datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(called(subject))
        .issuer_name(called(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + datetime.timedelta(days=90))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(subject)]), False)
    )
    return builder.sign(signer, how).public_bytes(PEM)


P256 = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)
SMALL = rsa.generate_private_key(65537, 1024)
ED25519 = ed25519.Ed25519PrivateKey.generate()
TAKEN: dict[str, Callable[[], tuple[bytes, bytes]]] = {
    "P-256": lambda: (signed(P256), key_pem(P256)),
    "RSA": lambda: (signed(RSA), key_pem(RSA)),
    "Ed25519": lambda: (signed(ED25519), key_pem(ED25519)),
    "P-521": lambda: _own(ec.generate_private_key(ec.SECP521R1())),
    "a chain": lambda: (
        signed(P256, by=(RSA, "between")) + signed(RSA, "between", by=(ED25519, "root")),
        key_pem(P256),
    ),
    "a weakly signed root": lambda: (
        signed(P256, by=(RSA, "root")) + signed(RSA, "root", how=hashes.SHA224()),
        key_pem(P256),
    ),
    "text around": lambda: (
        b"Bag Attributes\r\n  name\r\n" + signed(P256).replace(b"\n", b"\r\n") + b"\nend",
        b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
        + P256.private_bytes(
            PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        ),
    ),
}


def _own(key: Any) -> tuple[bytes, bytes]:
    return signed(key), key_pem(key)


class ReadTests(SynchronousTestCase):
    def test_refusals(self) -> None:
        """What nginx or browsers would not take is refused in one line that names the file."""
        good, key = _own(P256)
        small = signed(SMALL)
        for chain, private, why in (
            (b"", key, "the certificate is not valid PEM"),
            (b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", key, "not valid"),
            (good[:-60], key, "the certificate is not valid PEM"),
            (good + good[:-60], key, "a certificate of the chain is cut off"),
            (key, key, "the certificate is not valid PEM"),
            (good, b"", "the key is not a PEM private key"),
            (good, good, "the key is not a PEM private key"),
            (good, key[:-40], "the key is not a PEM private key"),
            (good, key_pem(P256, b"secret"), "the key has a passphrase"),
            (good, key_pem(RSA), "the key does not belong to the first certificate"),
            (signed(RSA) + good, key, "the key does not belong to the first certificate"),
            (small, key_pem(SMALL), "an RSA key of 1024 bits; it takes 2048"),
            (good + small, key, "an RSA key of 1024 bits"),
            (signed(RSA, by=(P256, "old"), how=hashes.SHA224()), key_pem(RSA), "with sha224"),
            (*_own(ec.generate_private_key(ec.SECP256K1())), "the curve secp256k1"),
            (*_own(dsa.generate_private_key(2048)), "neither RSA, ECDSA nor Ed25519"),
            (*_own(ed448.Ed448PrivateKey.generate()), "neither RSA, ECDSA nor Ed25519"),
        ):
            with self.assertRaises(InvalidCertificate) as caught:
                read(chain, private, "ssl/a.crt")
            said = str(caught.exception)
            self.assertIn(why, said)
            self.assertTrue(said.startswith("ssl/a.crt: "))
            self.assertNotIn("\n", said)

    def test_chains_and_forms(self) -> None:
        """Chains, the usual algorithms and PEM with text around it are read."""
        for what, make in TAKEN.items():
            found = read(*make(), "x")
            self.assertEqual(found.names, ("a.example.com",), what)
            self.assertEqual(found.expires, NOW + 90 * DAY, what)
            self.assertEqual(read(found.chain, found.key, "again"), found, what)
        self.assertEqual(read(*TAKEN["a chain"](), "x").chain.count(b"BEGIN"), 2)
        self.assertNotIn(b"Bag Attributes", read(*TAKEN["text around"](), "x").chain)

    @given(some.binary(max_size=200), some.binary(max_size=200))
    def test_anything_else_is_refused(self, chain: bytes, key: bytes) -> None:
        """No bytes make anything but a pair or a refusal."""
        for certificate, private in ((chain, key), (signed(P256) + chain, key_pem(P256) + key)):
            with contextlib.suppress(InvalidCertificate):
                self.assertTrue(read(certificate, private, "x").key)

    def test_no_key_is_shown(self) -> None:
        """Neither a value nor a refusal shows any of a private key."""
        body = key_pem(P256).splitlines()[1].decode()
        self.assertNotIn(body, repr(read(*_own(P256), "x")))
        with self.assertRaises(InvalidCertificate) as caught:
            read(signed(RSA), key_pem(P256), "x")
        self.assertNotIn(body, str(caught.exception))

    def test_who_is_covered(self) -> None:
        """A wildcard stands for exactly one label, and an address is a name too."""
        made = self_made(["Example.com", "*.example.com", "192.0.2.1", "2001:DB8::1"], NOW)
        for host in ("example.com", "a.example.com", "192.0.2.1", "2001:db8::1"):
            self.assertTrue(made.covers(host), host)
        for host in ("a.b.example.com", "com", "", ".example.com.", "192.0.2.2", "aexample.com"):
            self.assertFalse(made.covers(host), host)

    def test_renewal(self) -> None:
        """A certificate is renewed 30 days before its end, one for days in its last third."""
        for days, left in ((825, 30), (90, 30), (45, 15), (6, 2)):
            made = self_made(["a"], NOW, days)
            self.assertAlmostEqual((made.expires - made.renewal) / DAY, left, places=1)


class NginxTests(TestCase):
    async def test_nginx_takes_what_is_read(self) -> None:
        """nginx loads every pair that is not refused, so none can spoil the whole configuration."""
        directory = Path(tempfile.mkdtemp(prefix="pairs-"))
        self.addCleanup(shutil.rmtree, directory)
        servers = ""
        for number, make in enumerate((*TAKEN.values(), self.own)):
            pair = read(*make(), "x")
            (directory / f"{number}.crt").write_bytes(pair.chain)
            (directory / f"{number}.key").write_bytes(pair.key)
            servers += (
                f"server {{ listen 127.0.0.1:8443 ssl; server_name n{number}; "
                f"ssl_certificate {number}.crt; ssl_certificate_key {number}.key; }}\n"
            )
        (directory / "nginx.conf").write_text(
            f"pid x.pid; error_log stderr; events {{}} http {{ access_log off; {servers} }}"
        )
        nginx = shutil.which("nginx", path=SYSTEM_PATHS)
        argv = [str(nginx), "-p", str(directory), "-e", "stderr", "-t", "-c", "nginx.conf"]
        status, output = await run(argv, 20)
        self.assertEqual(status, 0, output)

    @staticmethod
    def own() -> tuple[bytes, bytes]:
        made = self_made(["*.a.example", "127.0.0.1"], NOW)
        return made.chain, made.key


class PairsTests(SynchronousTestCase):
    def test_names_of_files(self) -> None:
        """`crt` is the default, HOST.crt is for a host, and _.HOST.crt for a wildcard."""
        crt, key = _own(P256)
        found = pairs(
            {
                **{"crt": crt, "key": key, "a.example.com.crt": crt, "a.example.com.key": key},
                **{"_.example.com.crt": crt, "_.example.com.key": key, "README.md": b"us"},
            },
            NOW,
        )
        self.assertEqual(set(found.certificates), {"", "a.example.com", "*.example.com"})
        self.assertEqual(found.refused, {})
        self.assertEqual(
            found.warnings,
            {"_.example.com.crt": "_.example.com.crt: it is not for *.example.com but for "
             "a.example.com"},
        )  # fmt: skip

    def test_one_wrong_pair_holds_back_nothing_else(self) -> None:
        """What is half there or wrong is refused by its file's name; the others serve."""
        crt, key = _own(P256)
        other = key_pem(RSA)
        found = pairs(
            {
                **{"crt": crt, "half.com.crt": crt, "other.com.key": key, "UP.com.crt": crt},
                **{"bad.com.crt": crt, "bad.com.key": other, "ok.com.crt": crt, "ok.com.key": key},
                **{"..crt": crt, "a/b.crt": crt, "a\nb.key": key, "x.pem": crt, ".x.crt": crt},
            },
            NOW,
        )
        self.assertEqual(set(found.certificates), {"ok.com"})
        self.assertEqual(
            found.refused,
            {
                "crt": "crt: there is no key beside it",
                "half.com.crt": "half.com.crt: there is no half.com.key beside it",
                "other.com.key": "other.com.key: there is no other.com.crt beside it",
                "UP.com.crt": "UP.com.crt: 'UP.com' is no host name in lower case",
                "bad.com.crt": "bad.com.crt: the key does not belong to the first certificate",
                "a/b.crt": "a/b.crt: 'a/b' is no host name in lower case",
                "a\nb.key": "a\nb.key: 'a\\nb' is no host name in lower case",
            },
        )
        self.assertEqual(set(found.warnings), {"ok.com.crt", "x.pem"})

    def test_an_expired_one_serves_with_a_warning(self) -> None:
        """One that has expired, or is not valid yet, is served, and said to be so."""
        crt, key = _own(P256)
        files = {"crt": crt, "key": key}
        for now, why in (
            (NOW + 92 * DAY, "crt: it expired 2 days ago"),
            (NOW - DAY / 2, "crt: it is valid only in 1 days"),
        ):
            found = pairs(files, now)
            self.assertEqual((set(found.certificates), found.warnings), ({""}, {"crt": why}))
        self.assertEqual(pairs(files, NOW + DAY).warnings, {})

    def test_which_is_for_whom(self) -> None:
        """A host gets its own pair, else the longest of those that are for it too."""
        default, own = self_made(["ship.example"], NOW), self_made(["other"], NOW)
        short = self_made(["*.b.example", "c.example", "a.example", "10.0.0.1", "::1"], NOW, 90)
        longer = self_made(["c.example", "d.example"], NOW, 900)
        given = {"": default, "a.example": own, "b.example": short, "d.example": longer}
        self.assertEqual(
            offered(given),
            {**given, "*.b.example": short, "c.example": longer, "other": own},
        )

    def test_days_left(self) -> None:
        """What is told of ends is days, the soonest first, and negative once it is over."""
        given = {"late": self_made(["x"], NOW, 90), "gone": self_made(["x"], NOW - 9 * DAY, 5)}
        self.assertEqual(expiring(given, NOW), [("gone", -4), ("late", 90)])

    def test_doubts(self) -> None:
        """A pair for the right name has nothing said of it, one for no name at all has."""
        self.assertEqual(doubt(self_made(["a.b"], NOW), "a.b", NOW), "")
        self.assertEqual(doubt(self_made(["a.b"], NOW), "", NOW), "")
        nameless = self_made(["_"], NOW)
        self.assertEqual(doubt(nameless, "a.b", NOW), "it is not for a.b but for no name at all")


class KeptTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="kept-"))
        self.addCleanup(shutil.rmtree, self.directory)

    def kept(self, *names: str, now: float = NOW) -> Certificate:
        return kept(self.directory / "own", names, now)

    def test_made_once(self) -> None:
        """A ship without a pair makes one, and has the same afterwards."""
        names = ("ship.example", "127.0.0.1", "0:0::1")
        first = self.kept(*names)
        self.assertEqual(first.names, ("ship.example", "127.0.0.1", "::1"))
        self.assertEqual(self.kept(*reversed(names), now=NOW + 700 * DAY), first)
        self.assertNotEqual(kept(self.directory / "another", names, NOW).key, first.key)

    def test_made_again(self) -> None:
        """It is made again for other names, near its end, and when it is damaged."""
        first = self.kept("a.example")
        second = self.kept("a.example", "b.example")
        third = self.kept("a.example", "b.example", now=NOW + 796 * DAY)
        (self.directory / "own" / "self.pem").write_bytes(third.chain[:-50])
        fourth = self.kept("a.example", "b.example", now=NOW + 796 * DAY)
        self.assertEqual(len({first, second, third, fourth}), 4)
        self.assertEqual(load(self.directory / "own" / "self.pem"), fourth)

    def test_only_its_owner_reads_it(self) -> None:
        """A private key is never in a file that others may read, and no half is left behind."""
        file = self.directory / "deep" / "x.pem"
        save(file, self_made(["a"], NOW))
        save(file, self_made(["b"], NOW))
        self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(file.parent.stat().st_mode), 0o700)
        self.assertEqual([each.name for each in file.parent.iterdir()], ["x.pem"])
        self.assertIsNone(load(self.directory / "nothing.pem"))
