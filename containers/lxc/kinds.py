"""What a service may stand on, and the name by which each is kept: pure."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from attrs import frozen

from containers.interface import ContainerError

FULL, SLIM = "full", "slim"
PROVIDED = {"": FULL, "starphleet-base": FULL, SLIM: SLIM, "starphleet-base-slim": SLIM}

_URL = re.compile(r"https?://[!-~]{1,2000}\Z")
_CHECKSUM = re.compile(r"sha256=([0-9a-f]{64})\Z")
_HOST = r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?"
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"docker://(?:(?P<host>{_HOST})/)?{_PART}(?:/{_PART})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?\Z"
)
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,99}\Z")
_LONGEST = 1000


@frozen
class Standard:
    """The provided base, made of the distribution's packages: "full" or "slim"."""

    variant: str


@frozen
class Script:
    """What a script of the headquarters makes of the full one."""

    name: str
    text: bytes


@frozen
class Archive:
    """A tar archive behind a URL, as the operator wrote it; `sha256` of the file, "" for any."""

    url: str
    sha256: str = ""


@frozen
class Image:
    """An OCI image in a registry: `docker://…`."""

    reference: str


@frozen
class Restored:
    """A backup that was unpacked on this ship under a name: from a file, or by https."""

    name: str
    source: str = ""


Base = Standard | Script | Archive | Image | Restored


def restored(name: str, source: str = "") -> Restored:
    """Raises `ContainerError` for what is no name."""
    if not _NAME.match(name):
        raise ContainerError(f"{name[:80]!r} is not a name for a base, [a-z0-9][a-z0-9.-]*")
    return Restored(name, source)


def parse(text: str, scripts: Mapping[str, bytes]) -> Base:
    """The base that a value of `STARPHLEET_BASE` means; `scripts` are those there are, by name.

    Raises `ContainerError` with one line. A script wins over a provided base of the same name.
    """
    if text in scripts:
        return Script(text, scripts[text])
    if text in PROVIDED:
        return Standard(PROVIDED[text])
    if text.startswith(("https://", "http://")):
        return _archive(text)
    if text.startswith("docker://"):
        if len(text) > _LONGEST or not _IMAGE.match(text):
            raise ContainerError(f"STARPHLEET_BASE: {text[:200]!r} is not the name of an image")
        return Image(text)
    raise ContainerError(
        f"STARPHLEET_BASE: {text[:200]!r} is no script in containers/, no https:// or docker://"
        " address, and neither slim nor starphleet-base"
    )


def _archive(text: str) -> Archive:
    url = checked(text, "STARPHLEET_BASE")
    if not url.fragment.startswith("sha256"):
        return Archive(text)
    checksum = _CHECKSUM.match(url.fragment)
    if checksum is None:
        raise ContainerError(f"STARPHLEET_BASE: #{url.fragment[:80]} is not #sha256= and 64 digits")
    return Archive(text, checksum[1])


def checked(text: str, where: str) -> SplitResult:
    """A URL that may be asked; `ContainerError`, beginning with `where`, for any other.

    What is not encrypted stays on the host.
    """
    try:
        url = urlsplit(text)
        host = url.hostname or ""
        port = url.port
    except ValueError:
        host, port = "", None
    if not _URL.match(text) or not host or port == 0 or '"' in text or "\\" in text:
        raise ContainerError(f"{where}: this is not a URL: {shown(text)!r}")
    if url.scheme != "https" and not is_loopback(host):
        raise ContainerError(f"{where}: {shown(text)} is not https")
    return url


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address without a port, is this machine by definition."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def registry(image: Image) -> str:
    """The host (without its port) that an image is asked of; "" for the default one."""
    match = _IMAGE.match(image.reference)
    return (match["host"] or "").partition(":")[0] if match else ""


def shown(url: str) -> str:
    """A URL for people to see: without a login, and without what may be a signature."""
    scheme, _, rest = url.partition("://")
    host, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0][:200].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def label(base: Base) -> str:
    """What a base is called to people."""
    match base:
        case Standard(variant):
            return f"starphleet-base ({variant})"
        case Script(name):
            return name
        case Archive(url):
            return shown(url)
        case Image(reference):
            return reference
        case Restored(name):
            return name


def key(base: Base, provided: bytes) -> str:
    """The name under which a base is kept: another one whenever it would be made otherwise.

    `provided` stands for all that the provided base depends on.
    """
    match base:
        case Standard(variant):
            return f"{variant}-{_digest(provided)}"
        case Script(name, text):
            return f"script-{_digest(provided, name.encode(), text)}"
        case Archive(url):
            return f"archive-{_digest(url.encode())}"
        case Image(reference):
            return f"image-{_digest(reference.encode())}"
        case Restored(name):
            return f"restored-{name}"


def _digest(*parts: bytes) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(b"%d:" % len(part) + part)
    return whole.hexdigest()[:40]
