"""A real directory for tests: slapd with people and a referral, on free ports of loopback."""

from __future__ import annotations

import base64
import re
import shutil
import socket
import subprocess
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic, sleep

from attrs import define, evolve, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from proxy.protection import LdapServer
from tests.ports import free_port

BASE = "dc=ship,dc=test"
ASKER = f"cn=asker,{BASE}"
CREW = f"cn=crew,ou=groups,{BASE}"
SECRET = "asker's 5ecret"
HARD = r"cn=O\22Neil\, Zoë \2B Co+uid=odd"

# Binds without a name or a password are let in: who asks has to know better.
CONFIGURATION = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
attributetype ( 1.2.840.113556.1.4.221 NAME 'sAMAccountName'
  EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 SINGLE-VALUE )
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
pidfile {home}/pid
allow bind_anon_cred bind_anon_dn
access to dn.base="" by * read
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="{asker}" read by anonymous auth by * none
database mdb
suffix "{base}"
directory {home}/data
dbnosync
overlay memberof
"""
TLS = """\
TLSCACertificateFile {home}/authority.pem
TLSCertificateFile {home}/own.pem
TLSCertificateKeyFile {home}/own.key
"""


@frozen
class Entry:
    """What is in the directory: a name, and attributes."""

    dn: str
    attributes: tuple[tuple[str, str], ...]

    @property
    def ldif(self) -> str:
        lines = (("dn", self.dn), *self.attributes)
        return "\n".join(f"{n}:: {base64.b64encode(v.encode()).decode()}" for n, v in lines)


def person(rdn: str, password: str, *more: tuple[str, str], where: str = "people") -> Entry:
    classes = (("objectClass", "inetOrgPerson"), ("objectClass", "extensibleObject"))
    named = (("sn", "x"),) if rdn.startswith("cn=") else (("cn", "x"), ("sn", "x"))
    at = f"{rdn},ou={where},{BASE}"
    return Entry(at, (*classes, *named, *more, ("userPassword", password)))


def unit(name: str) -> Entry:
    return Entry(f"ou={name},{BASE}", (("objectClass", "organizationalUnit"), ("ou", name)))


def entries(elsewhere: int) -> list[Entry]:
    """All that is in the directory; its referral leads to the port `elsewhere`."""
    top = (("objectClass", "dcObject"), ("objectClass", "organization"))
    away = (("objectClass", "referral"), ("objectClass", "extensibleObject"))
    asker = (("objectClass", "organizationalRole"), ("objectClass", "simpleSecurityObject"))
    refers = ("ref", f"ldap://127.0.0.1:{elsewhere}/ou=away,{BASE}")
    return [
        Entry(BASE, (*top, ("dc", "ship"), ("o", "Ship"))),
        Entry(ASKER, (*asker, ("cn", "asker"), ("userPassword", SECRET))),
        *(unit(name) for name in ("people", "others", "groups", "büro")),
        person("uid=ann", "ann's", ("sAMAccountName", "ANN.Ad"), ("memberOf", CREW)),
        person("uid=bob", "bob's"),
        person("uid=zoë", "pässwörd \u00aa"),
        person("uid=twin", "twin's"),
        person("uid=twin", "twin's", where="others"),
        *(person("uid=many", "many's", where=where) for where in ("people", "others", "büro")),
        person("uid=desk", "desk's", where="büro"),
        person(HARD, "hard's"),
        person("cn=star", "star's", ("uid", r"*)(uid=\2a")),
        Entry(f"uid=mute,ou=people,{BASE}", person("uid=mute", "").attributes[:-1]),
        Entry(f"ou=away,{BASE}", (*away, ("ou", "away"), refers)),
    ]


@define
class Directory:
    """A slapd of the test's own, until `stop`. Its certificate is for `localhost` only."""

    tls: bool = True
    home: Path = field(factory=lambda: Path(tempfile.mkdtemp(prefix="ldap-")))
    port: int = field(factory=free_port)
    secure: int = field(factory=free_port)
    trap: socket.socket = field(factory=lambda: socket.create_server(("127.0.0.1", 0)))
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> Directory:
        settings = CONFIGURATION.format(home=self.home, asker=ASKER, base=BASE)
        if self.tls:
            certify(self.home)
            settings = TLS.format(home=self.home) + settings
        (self.home / "data").mkdir()
        (self.home / "conf").write_text(settings)
        content = "\n\n".join(one.ldif for one in entries(self.trap.getsockname()[1]))
        (self.home / "ldif").write_text(content + "\n")
        self._run("slapadd", "-q", "-l", str(self.home / "ldif"))
        self.listen()
        return self

    def listen(self) -> None:
        """Start the server on what was loaded, and wait until it answers."""
        urls = f"ldap://127.0.0.1:{self.port}"
        if self.tls:
            urls += f" ldaps://127.0.0.1:{self.secure}"
        ours = ["setpriv", "--pdeathsig", "TERM"]  # it ends with the tests, however they end
        argv = [*ours, "/usr/sbin/slapd", "-d", "256", "-f", str(self.home / "conf"), "-h", urls]
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log)
        await_that(self._answers, "slapd answers")

    def hang_up(self) -> None:
        """End the server."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait(10)

    def stop(self) -> None:
        self.hang_up()
        self.trap.close()
        shutil.rmtree(self.home)

    def server(
        self, asked: str = "?uid", *, secure: bool = False, starttls: bool = False
    ) -> LdapServer:
        """How the ship asks this directory; `asked` is what follows the base in the URL."""
        scheme, port = ("ldaps", self.secure) if secure else ("ldap", self.port)
        plain = LdapServer(f"{scheme}://localhost:{port}/{BASE}{asked}", ASKER, SECRET, starttls)
        return evolve(plain, authorities=self.authority) if secure or starttls else plain

    @property
    def authority(self) -> str:
        return (self.home / "authority.pem").read_text()

    @property
    def log(self) -> str:
        return (self.home / "log").read_text(errors="replace")

    def open(self) -> int:
        """How many connections it has, as its log tells."""
        opened = len(re.findall(r"fd=\d+ ACCEPT", self.log))
        return opened - len(re.findall(r"fd=\d+ closed", self.log))

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", self.secure if self.tls else self.port)) == 0

    def _run(self, tool: str, *options: str) -> None:
        argv = [f"/usr/sbin/{tool}", "-f", str(self.home / "conf"), *options]
        done = subprocess.run(argv, capture_output=True, timeout=20, check=False)
        assert done.returncode == 0, done.stderr.decode()


def await_that(condition: object, what: str, most: float = 10.0) -> None:
    """Wait for `condition()` without a reactor."""
    assert callable(condition)
    deadline = monotonic() + most
    while not condition():
        assert monotonic() < deadline, f"waited {most} s for: {what}"
        sleep(0.005)


def certify(home: Path) -> None:
    """Write `authority.pem`, and `own.pem` with `own.key`, which it signed for localhost."""
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = _certificate("Test authority", root_key, "Test authority", root_key, authority=True)
    own = _certificate("localhost", key, "Test authority", root_key, authority=False)
    (home / "authority.pem").write_bytes(root.public_bytes(serialization.Encoding.PEM))
    (home / "own.pem").write_bytes(own.public_bytes(serialization.Encoding.PEM))
    (home / "own.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    signer: ec.EllipticCurvePrivateKey,
    *,
    authority: bool,
) -> x509.Certificate:
    now = datetime.now(UTC)
    begun = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if not authority:
        named = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        begun = begun.add_extension(named, critical=False)
    return begun.sign(signer, hashes.SHA256())
