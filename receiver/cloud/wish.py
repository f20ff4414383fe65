"""What a ship on EC2 is to be, read from the settings before anything is asked of AWS."""

from __future__ import annotations

import re
from hashlib import md5
from pathlib import Path

from attrs import frozen
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

from containers.calling import call
from hooks.errors import Refused, ShipError
from receiver import keyring
from receiver.cloud.aws import needed
from receiver.cloud.user_data import Told
from receiver.config import Config
from receiver.headquarters.source import source_of_orders
from receiver.install.command import CLONE, owner_of
from receiver.ssh.keys import RefusedKeyError, parse_line

SIZE = "t3.large"
"""Two processors and 8 GB: a build may take four of them beside services of one each; hardly a
region has it not."""
_OF_EC2 = ("ssh-ed25519", "ssh-rsa")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")
_MOST = 16384  # bytes of a key


@frozen
class Wish:
    """`told` is for the instance, the rest for AWS. `warnings` are lines."""

    told: Told
    size: str
    warnings: tuple[str, ...] = ()

    @property
    def key_name(self) -> str:
        """Of the key pair, the same for all ships of a headquarters."""
        return key_name(self.told.headquarters)


def key_name(headquarters: str) -> str:
    return f"starphleet-{md5(headquarters.encode(), usedforsecurity=False).hexdigest()[:8]}"


def headquarters_of(config: Config) -> str:
    """Its URL, which has no password in it."""
    if not config.headquarters:
        raise ShipError(needed("STARPHLEET_HEADQUARTERS"))
    return str(source_of_orders(config.headquarters, "STARPHLEET_HEADQUARTERS"))


def wish_of(config: Config) -> Wish:
    """`ShipError` names the variable that is missing or not right: a key is one line of one owner,
    or opens without a passphrase."""
    headquarters = headquarters_of(config)
    owner, key = _public_key(config)
    private_key = _private_key(config)
    missing = (
        "warning: STARPHLEET_PRIVATE_KEY is not in your environment, so the ship will read public "
        "repositories alone"
    )
    return Wish(
        Told(
            _remote(config, has_key=private_key is not None),
            headquarters,
            owner,
            key,
            (CLONE / "overlay/usr/share/starphleet/webinstall").read_text(),
            private_key,
        ),
        config.ec2_size or SIZE,
        () if private_key else (missing,),
    )


def _public_key(config: Config) -> tuple[str, str]:
    """Its owner, and the one line of it."""
    name, file = "STARPHLEET_PUBLIC_KEY", config.public_key
    if file is None:
        raise ShipError(needed(name))
    where, owner = f"{name} {file}", owner_of(file)
    lines = [line for line in _text(file, name).splitlines() if line.strip()]
    if len(lines) != 1:
        raise Refused(f"{where}: EC2 wants one public key, a line; this is {len(lines)}")
    try:
        parse_line(lines[0])
    except RefusedKeyError as error:
        raise Refused(f"{where}: the key {error}") from None
    if lines[0].split()[0] not in _OF_EC2:
        raise Refused(f"{where}: EC2 takes keys of {' and '.join(_OF_EC2)} alone")
    if not keyring.names(owner):
        raise Refused(f"{where}: name the file for the key's owner, as ann.pub")
    return owner, f"{lines[0].strip()}\n"


def _private_key(config: Config) -> tuple[str, str] | None:
    """The name of its file, and its text."""
    name, file = "STARPHLEET_PRIVATE_KEY", config.private_key
    if file is None:
        return None
    text = _text(file, name)
    load = load_ssh_private_key if "OPENSSH PRIVATE" in text else load_pem_private_key
    try:
        load(text.encode(), None)
    except (TypeError, ValueError, UnsupportedAlgorithm):  # what is there is said nowhere
        raise Refused(f"{name} {file}: no private key that opens without a passphrase") from None
    return (file.name if _FILE.fullmatch(file.name) else "headquarters"), text


def _text(file: Path, name: str) -> str:
    try:
        with file.open() as opened:
            return opened.read(_MOST)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not a text file"
        raise Refused(f"{name} {file}: {why}") from None


def _remote(config: Config, *, has_key: bool) -> str:
    """Where Starphleet comes from: the origin of this checkout, if nothing is said."""
    name, said = "STARPHLEET_REMOTE", config.remote
    if not said:
        argv = ["git", "-c", "safe.directory=*", "-C", str(CLONE), "remote", "get-url", "origin"]
        asked = call(argv)
        said = asked.text.strip() if asked.status == 0 else ""
    try:
        remote = source_of_orders(said, name)
    except Refused:
        if config.remote:
            raise
        raise ShipError(f"{needed(name)}: this checkout has no origin that EC2 reaches") from None
    if not has_key and not remote.url.startswith("https://"):
        raise Refused(f"{name}: by ssh it is reached with a key alone: set STARPHLEET_PRIVATE_KEY")
    return str(remote)
