"""TLS pairs: those of a directory, those made on the ship, and which is for whom."""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from proxy.pem import DAY, Certificate, InvalidCertificate, pair, read
from proxy.routes import HOST

__all__ = [
    "Certificate",
    "InvalidCertificate",
    "Pairs",
    "doubt",
    "expiring",
    "kept",
    "load",
    "offered",
    "pairs",
    "read",
    "save",
    "self_made",
    "write_private",
]

PAIRED = re.compile(r"([^.].*\.)?(crt|key)", re.DOTALL)


@frozen
class Pairs:
    """What a directory of pairs came to.

    `certificates` are by the name they are for: a host, a wildcard like `*.example.com`, or ""
    for the default. `refused` and `warnings` say why, by file name; what is warned of serves.
    """

    certificates: Mapping[str, Certificate]
    refused: Mapping[str, str]
    warnings: Mapping[str, str]


def pairs(files: Mapping[str, bytes], now: float) -> Pairs:
    """The pairs among files: `crt` and `key`, HOST`.crt` and HOST`.key`.

    A leading `_.` of HOST stands for a wildcard. Chains are in the `.crt`, the server's own first.
    """
    certificates: dict[str, Certificate] = {}
    refused: dict[str, str] = {}
    unused = [f for f in files if not PAIRED.fullmatch(f) and not f.startswith((".", "README"))]
    warnings = {f: f"{f} is not used: names are crt, key, HOST.crt, HOST.key" for f in unused}
    for stem in sorted({file[:-3].removesuffix(".") for file in files if PAIRED.fullmatch(file)}):
        crt, key = (f"{stem}.{kind}" if stem else kind for kind in ("crt", "key"))
        try:
            name = _named(stem, crt if crt in files else key)
            certificates[name] = _together(files, crt, key)
        except InvalidCertificate as error:
            refused[crt if crt in files else key] = str(error)
        else:
            if odd := doubt(certificates[name], name, now):
                warnings[crt] = f"{crt}: {odd}"
    return Pairs(certificates, refused, warnings)


def _named(stem: str, file: str) -> str:
    host = stem.removeprefix("_.")
    if stem and not HOST.fullmatch(host):
        raise InvalidCertificate(f"{file}: {host[:80]!r} is no host name in lower case")
    return stem if host == stem else f"*.{host}"


def _together(files: Mapping[str, bytes], crt: str, key: str) -> Certificate:
    for one, other in ((crt, key), (key, crt)):
        if other not in files:
            raise InvalidCertificate(f"{one}: there is no {other} beside it")
    return read(files[crt], files[key], crt)


def doubt(certificate: Certificate, name: str, now: float) -> str:
    """Why browsers will not like `certificate` for `name` ("" for no name of its own), or ""."""
    if certificate.expires <= now:
        return f"it expired {(now - certificate.expires) // DAY:.0f} days ago"
    if certificate.begins > now:
        return f"it is valid only in {(certificate.begins - now) // DAY + 1:.0f} days"
    if name and name not in certificate.names and not certificate.covers(name):
        return f"it is not for {name} but for {', '.join(certificate.names) or 'no name at all'}"
    return ""


def offered(certificates: Mapping[str, Certificate]) -> dict[str, Certificate]:
    """These, and each under all host names and wildcards that it is for, but for the default.

    A name's own pair goes first, then the one that lasts longest.
    """
    found: dict[str, Certificate] = {}
    for each in sorted((c for name, c in certificates.items() if name), key=lambda c: c.expires):
        found.update({n: each for n in each.names if isinstance(_general(n), x509.DNSName)})
    return {**found, **certificates}


def expiring(certificates: Mapping[str, Certificate], now: float) -> list[tuple[str, int]]:
    """Names and whole days left (negative: expired), the soonest first."""
    left = [(name, int((each.expires - now) // DAY)) for name, each in certificates.items()]
    return sorted(left, key=lambda each: (each[1], each[0]))


def self_made(names: Iterable[str], now: float, days: int = 825) -> Certificate:
    """A new key and its own certificate for host names, wildcards and IP addresses."""
    names = tuple(dict.fromkeys(names))
    key = ec.generate_private_key(ec.SECP256R1())
    begins = datetime.datetime.fromtimestamp(now, datetime.UTC)
    called = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(called)
        .issuer_name(called)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # An hour for clients whose clock is behind.
        .not_valid_before(begins - datetime.timedelta(hours=1))
        .not_valid_after(begins + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), False)
        .add_extension(x509.BasicConstraints(False, None), True)
        .add_extension(usage, True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    )
    return pair([builder.sign(key, hashes.SHA256())], key)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def kept(directory: Path, names: Iterable[str], now: float) -> Certificate:
    """The ship's own certificate for exactly `names`, kept in `directory`.

    It is made when there is none, or one for other names, or one to be renewed. Raises `OSError`.
    """
    names = tuple(str(_general(name).value).lower() for name in names)
    file = directory / "self.pem"
    old = load(file)
    if old is not None and set(old.names) == set(names) and now < old.renewal:
        return old
    new = self_made(names, now)
    save(file, new)
    return new


def load(file: Path) -> Certificate | None:
    """What `save` wrote; `None` if there is nothing, or nothing of use."""
    try:
        text = file.read_bytes()
        return read(text, text, str(file))
    except (FileNotFoundError, InvalidCertificate):
        return None


def save(file: Path, certificate: Certificate) -> None:
    """Keep a pair as one file, so that key and certificate never part; only its owner reads it."""
    write_private(file, certificate.key + certificate.chain)


def write_private(file: Path, content: bytes) -> None:
    """Write beside, for its owner alone, and rename; it outlives a loss of power. `OSError`."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    beside.replace(file)
