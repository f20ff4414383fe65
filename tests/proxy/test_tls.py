"""What a TLS scanner, clients and a certificate's authority get of the ship's nginx."""

from __future__ import annotations

import shutil
import socket
import ssl
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

from cryptography import x509
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest

from proxy.acme import Acme
from proxy.certificates import Certificate, offered, read, self_made
from proxy.distribution import SYSTEM_PATHS
from tests.ports import free_port
from tests.proxy.authority import NEEDED, Pebble
from tests.proxy.reactor import reactor, run
from tests.proxy.test_certificates import RSA, key_pem, signed
from tests.proxy.world import ProxyCase, public, route

SUITES = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")


def weaknesses(report: str) -> set[str]:
    """What an XML report of sslscan holds against a server."""
    test = ElementTree.fromstring(report).find("ssltest")
    assert test is not None, report
    found = set[str]()
    enabled = {
        f"{p.get('type')} {p.get('version')}": p.get("enabled") for p in test.iter("protocol")
    }
    for name in ("ssl 2", "ssl 3", "tls 1.0", "tls 1.1", "tls 1.2", "tls 1.3"):
        if enabled[name] != ("1" if name in ("tls 1.2", "tls 1.3") else "0"):
            found.add(name)
    for each in test.iter("cipher"):
        suite = str(each.get("cipher"))
        if each.get("strength") != "strong" and suite not in SUITES:
            found.add(suite)
    found |= {str(g.get("name")) for g in test.iter("group") if int(str(g.get("bits"))) < 128}
    for each in (*test.iter("compression"), *test.iter("heartbleed")):
        if "1" in (each.get("supported"), each.get("vulnerable")):
            found.add(each.tag)
    found |= {each.tag for each in test.iter("renegotiation") if each.get("supported") != "0"}
    return found


def shown(port: int, name: str) -> x509.Certificate:
    """The certificate that a client gets who asks for `name`. Blocks."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=name or None) as wrapped,
    ):
        return x509.load_der_x509_certificate(wrapped.getpeercert(binary_form=True) or b"")


class TlsCase(ProxyCase):
    def setUp(self) -> None:
        super().setUp()
        self.https = free_port()

    async def names(self, name: str) -> str:
        """The first name of the certificate that is shown for `name`."""
        found = await deferToThread(shown, self.https, name)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.DNSName)[0]


class ScannerTests(TlsCase):
    def setUp(self) -> None:
        super().setUp()
        if not shutil.which("sslscan"):
            raise SkipTest("sslscan is not installed")

    async def scanned(self, name: str = "ship.example") -> set[str]:
        argv = ["/usr/bin/sslscan", "--xml=-", f"--sni-name={name}", f"127.0.0.1:{self.https}"]
        status, output = await run(argv, 50)
        self.assertEqual(status, 0, output)
        return weaknesses(output)

    async def test_no_weak_setting(self) -> None:
        """A scanner finds no weak protocol, suite, group or option, whatever the key."""
        pair = read(signed(RSA, "rsa.example"), key_pem(RSA), "test")
        certificates = {"": self_made(["ship.example"], time.time()), "rsa.example": pair}
        await self.proxy(https_port=self.https).start({}, None, certificates)
        for name in ("ship.example", "rsa.example"):
            self.assertEqual(await self.scanned(name), set(), name)

    async def test_a_weak_one_would_be_found(self) -> None:
        """The scan is worth something: it finds what is weak in an nginx that is set up badly."""
        pair = read(signed(RSA), key_pem(RSA), "test")
        (self.prefix / "crt").write_bytes(pair.chain)
        (self.prefix / "key").write_bytes(pair.key)
        (self.prefix / "nginx.conf").write_text(
            "pid nginx.pid; error_log log; events {} http { access_log off; server { "
            f"listen 127.0.0.1:{self.https} ssl; ssl_certificate crt; ssl_certificate_key key; "
            "ssl_protocols TLSv1 TLSv1.1 TLSv1.2; ssl_ciphers ALL:@SECLEVEL=0; } }"
        )
        nginx = str(shutil.which("nginx", path=SYSTEM_PATHS))
        argv = [nginx, "-p", str(self.prefix), "-e", "log", "-c", "nginx.conf"]
        self.addCleanup(run, [*argv, "-s", "stop"], 10)
        status, output = await run(argv, 10)
        self.assertEqual(status, 0, output)
        found = await self.scanned()
        self.assertLessEqual({"tls 1.0", "tls 1.1", "tls 1.3", "AES256-SHA"}, found)


class PairTests(TlsCase):
    async def test_each_name_has_its_pair(self) -> None:
        """A client is shown the pair for the name that it asks for, else one that covers it."""
        now = time.time()
        given = {
            "": self_made(["ship.example"], now),
            "a.example": self_made(["a.example", "also.example"], now),
            "b.example": self_made(["b.example", "*.b.example", "a.example"], now),
        }
        await self.proxy(https_port=self.https).start({}, None, offered(given))
        for name, expected in (
            ("", "ship.example"),
            ("nobody.example", "ship.example"),
            ("a.example", "a.example"),
            ("A.Example", "a.example"),
            ("also.example", "a.example"),
            ("x.b.example", "b.example"),
            ("y.x.b.example", "ship.example"),
        ):
            self.assertEqual(await self.names(name), expected, name)

    async def test_replaced_without_a_restart(self) -> None:
        """Another pair serves once it is given, and nginx has not been restarted for it."""
        app = self.app("hello")
        proxy = self.proxy(https_port=self.https)
        first, second = (self_made([name], time.time()) for name in ("one.example", "two.example"))
        await proxy.start(public({route("hello"): app.backend}), None, {"": first})
        master = await self.master()
        self.assertEqual(await self.names(""), "one.example")
        self.assertEqual(await proxy.refit(certificates={"": second}), {})
        self.assertEqual(await self.names(""), "two.example")
        self.assertEqual(await self.master(), master)


class AuthorityTests(TlsCase):
    timeout = 120.0

    async def test_from_the_authority_to_the_client(self) -> None:
        """A challenge is found on the ship's own port, and clients are shown what came of it."""
        if not all(map(shutil.which, NEEDED)):
            raise SkipTest("pebble is not installed")
        self.prefix.chmod(0o711)  # for nginx's workers to get to the challenge
        proxy = self.proxy(https_port=self.https, https_redirect=True)
        app, host = self.app("hello"), "hello.starphleet.net"
        default = {"": self_made(["ship.example"], time.time())}
        await proxy.start(public({route("hello", host): app.backend}), None, default)
        pebble = Pebble(self.scratch(), self.port)
        self.addCleanup(pebble.stop)
        await pebble.start()
        acme = Acme(
            reactor,
            pebble.directory / "kept",
            proxy.instance.challenges,
            email="us@example.net",
            server=pebble.server,
            roots=pebble.roots,
        )
        got: dict[str, Certificate] = {}
        self.assertEqual(await acme.renew([host], time.time(), got.__setitem__), {})
        await proxy.refit(certificates={**default, **got})
        self.assertEqual(await self.names(host), host)
        self.assertEqual(await self.names("ship.example"), "ship.example")

    def scratch(self) -> Path:
        directory = Path(tempfile.mkdtemp(prefix="acme-"))
        self.addCleanup(shutil.rmtree, directory)
        return directory
