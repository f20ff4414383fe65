"""Who may push: files of public keys in `authorized_keys/`, named for their owners."""

from __future__ import annotations

import re
from pathlib import Path

from hooks.errors import Refused
from receiver.ssh.keys import KeyDirectory, RefusedKeyError, fingerprint, parse_line

_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")


def add(directory: Path, name: str, text: str) -> list[str]:
    """Put the public keys in `text` under `name`, instead of those it had; what to say of each.

    `Refused` when a line is no usable key, or there is none.
    """
    if not _OWNER.fullmatch(name) or name.endswith(".pub"):
        raise Refused(f"{ascii(name)[:80]} cannot name a person; letters, digits and ._@+- can")
    if "PRIVATE KEY" in text:
        raise Refused("this is a private key; the public one is in the file that ends in .pub")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise Refused("there is no public key in it")
    try:
        prints = [fingerprint(parse_line(line)) for line in lines]
    except RefusedKeyError as error:
        raise Refused(f"the key {error}") from None
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    growing = directory / f".{name}"
    growing.write_text("".join(f"{line}\n" for line in lines))
    growing.chmod(0o600)
    growing.rename(directory / name)
    return [f"{name} may push with {one}" for one in prints]


def remove(directory: Path, name: str) -> None:
    """Take the keys of `name` away; `Refused` if there are none."""
    path = directory / name
    if not _OWNER.fullmatch(name) or not path.is_file():
        raise Refused(f"there are no keys of {ascii(name)[:80]}")
    path.unlink()


def listing(directory: Path) -> list[str]:
    """`NAME FINGERPRINT` of each key that lets somebody in."""
    return [f"{key.owner} {key.fingerprint}" for key in KeyDirectory(directory).all()]
