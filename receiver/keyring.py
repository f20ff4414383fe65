"""Who may log in: files of public keys in `authorized_keys/`, named for their owners."""

from __future__ import annotations

import re
from pathlib import Path

from hooks.errors import Refused
from receiver.ssh.interface import Rank
from receiver.ssh.keys import RANKS, KeyDirectory, RefusedKeyError, fingerprint, parse_line

_ALSO = {
    Rank.PUSHER: "",
    Rank.CAPTAIN: ", and command services as captain",
    Rank.ADMIRAL: ", and log in as admiral",
}
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")


def add(directory: Path, name: str, text: str, rank: Rank = Rank.ADMIRAL) -> list[str]:
    """Put the public keys in `text` under `name`, instead of those it had; what to say of each.

    `Refused` when a line is no usable key, or there is none.
    """
    if not names(name):
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
    for key in KeyDirectory(directory).all():
        if key.fingerprint in prints and key.owner != name:
            raise Refused(
                f"{key.fingerprint} is a key of {key.owner}, and would be nobody's under two "
                f"names: starphleet key remove {key.owner}"
            )
    place = _place(directory, name, rank)
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    growing = place.with_name(f".{name}")
    growing.write_text("".join(f"{line}\n" for line in lines))
    growing.chmod(0o600)
    growing.rename(place)
    for other in set(_places(directory, name)) - {place}:
        other.unlink(missing_ok=True)
    return [f"{name} may push with {one}{_ALSO[rank]}" for one in prints]


def names(name: str) -> bool:
    """Whether `name` may be that of somebody who has keys."""
    return bool(_OWNER.fullmatch(name)) and not name.endswith(".pub") and name not in RANKS


def remove(directory: Path, name: str) -> None:
    """Take the keys of `name` away; `Refused` if there are none."""
    places = _places(directory, name) if _OWNER.fullmatch(name) else []
    found = [place for place in places if place.is_file()]
    if not found:
        raise Refused(f"there are no keys of {ascii(name)[:80]} in {directory}")
    for place in found:
        place.unlink()


def _places(directory: Path, name: str) -> list[Path]:
    """Where keys of `name` may be: whoever lays a file there by hand may leave it its `.pub`."""
    files = (name, f"{name}.pub")
    return [_place(directory, file, rank) for rank in Rank for file in files]


def _place(directory: Path, name: str, rank: Rank) -> Path:
    below = {each: sub for sub, each in RANKS.items()}
    return directory / below[rank] / name if rank in below else directory / name


def told(*directories: Path) -> list[dict[str, str]]:
    """`owner`, `fingerprint` and `rank` of each key in these that lets somebody in."""
    keys = dict.fromkeys(KeyDirectory(*directories).all())
    return [
        {"owner": key.owner, "fingerprint": key.fingerprint, "rank": key.rank.name.lower()}
        for key in keys
    ]


def listing(*directories: Path) -> list[str]:
    """The same as lines, `NAME FINGERPRINT RANK`."""
    return [" ".join(one.values()) for one in told(*directories)]
