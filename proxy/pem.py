"""One TLS pair: what it says of itself, and whether nginx would take it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from typing import Any

from attrs import field, frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import PublicKeyAlgorithmOID

from proxy.routes import HOST, ProxyError

DAY = 86400.0
RENEWAL = 30 * DAY  # before the end; a short-lived one is renewed in its last third
KINDS = (
    PublicKeyAlgorithmOID.RSAES_PKCS1_v1_5,
    PublicKeyAlgorithmOID.EC_PUBLIC_KEY,
    PublicKeyAlgorithmOID.ED25519,
)
SHORTEST_RSA = 2048
CURVES = ("secp256r1", "secp384r1", "secp521r1")
BEGUN = re.compile(rb"-----BEGIN [A-Z0-9 ]*CERTIFICATE-----")
HASHES = ("sha256", "sha384", "sha512")


class InvalidCertificate(ProxyError, ValueError):
    """A certificate or its key cannot serve; the text says which file and why."""


@frozen
class Certificate:
    """A chain of certificates, the server's own first, and its private key: both PEM.

    Times are in epoch seconds. `names` are host names, wildcards and IP addresses, in lower case.
    """

    chain: bytes
    key: bytes = field(repr=False)

    @cached_property
    def _own(self) -> x509.Certificate:
        return x509.load_pem_x509_certificates(self.chain)[0]

    @property
    def begins(self) -> float:
        return self._own.not_valid_before_utc.timestamp()

    @property
    def expires(self) -> float:
        return self._own.not_valid_after_utc.timestamp()

    @property
    def renewal(self) -> float:
        """When it is time to get the next one."""
        return self.expires - min(RENEWAL, (self.expires - self.begins) / 3)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return _names(self._own)

    def covers(self, host: str) -> bool:
        """Whether a browser that asked for `host` would take this; a `*` stands for one label."""
        _, _, parent = host.partition(".")
        return host in self.names or (bool(parent) and f"*.{parent}" in self.names)


def _names(own: x509.Certificate) -> tuple[str, ...]:
    try:
        found = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    hosts = [name.lower() for name in found.get_values_for_type(x509.DNSName)]
    addresses = [str(each) for each in found.get_values_for_type(x509.IPAddress)]
    return (*(name for name in hosts if HOST.fullmatch(name.removeprefix("*."))), *addresses)


def read(chain: bytes, key: bytes, where: str) -> Certificate:
    """The pair that two PEM files hold, as nginx would take it; text around the PEM is dropped.

    `where` names them for a person. Raises `InvalidCertificate`. One that has expired is read too.
    """
    private = _read_key(key, where)
    found = _read_chain(chain, where)
    if found[0].public_key_algorithm_oid not in KINDS:
        raise InvalidCertificate(f"{where}: the key is neither RSA, ECDSA nor Ed25519")
    if _public(private.public_key()) != _public(found[0].public_key()):
        raise InvalidCertificate(f"{where}: the key does not belong to the first certificate")
    for each in found:
        _refuse_weak(each, where)
    return pair(found, private)


def _read_key(key: bytes, where: str) -> Any:
    try:
        return serialization.load_pem_private_key(key, password=None)
    except TypeError:
        raise InvalidCertificate(f"{where}: the key has a passphrase; give one without") from None
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidCertificate(f"{where}: the key is not a PEM private key") from None


def _read_chain(chain: bytes, where: str) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(chain)
        _names(found[0])
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        raise InvalidCertificate(f"{where}: the certificate is not valid PEM") from None
    if len(BEGUN.findall(chain)) != len(found):
        raise InvalidCertificate(f"{where}: a certificate of the chain is cut off")
    return found


def _public(key: Any) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    encoded: bytes = key.public_bytes(serialization.Encoding.DER, form)
    return encoded


def _refuse_weak(certificate: x509.Certificate, where: str) -> None:
    """OpenSSL would not load these, and with them nginx the whole configuration."""
    try:
        key, signed = certificate.public_key(), certificate.signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidCertificate(f"{where}: the certificate's algorithm is not known") from error
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < SHORTEST_RSA:
        raise InvalidCertificate(
            f"{where}: an RSA key of {key.key_size} bits; it takes {SHORTEST_RSA}"
        )
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name not in CURVES:
        raise InvalidCertificate(f"{where}: the curve {key.curve.name} is none that browsers know")
    by_itself = certificate.issuer == certificate.subject
    if signed is not None and signed.name not in HASHES and not by_itself:
        raise InvalidCertificate(f"{where}: a certificate is signed with {signed.name}")


def pair(chain: Iterable[x509.Certificate], key: Any) -> Certificate:
    """These certificates and this private key as the PEM that `read` would give."""
    pem = serialization.Encoding.PEM
    return Certificate(
        b"".join(each.public_bytes(pem) for each in chain),
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
