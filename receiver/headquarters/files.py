"""The files of a headquarters: whose they are, which may be read, and what some of them say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import PurePosixPath

from hooks.errors import Refused
from hooks.repository import Blob
from receiver.headquarters.evaluate import Call

RESERVED = frozenset(
    {
        "authorized_keys", "beta_groups", "containers", "ldap_servers", "overlay", "ships",
        "shipscripts", "ssl",
    }
)  # fmt: skip
LARGEST = 1 << 20  # bytes of a file that the ship reads


def directories(name: str, files: Mapping[str, Blob]) -> list[str]:
    """The directories ("" the root) that hold a file `name`, outside of what is reserved."""
    found = (PurePosixPath(path) for path in files if PurePosixPath(path).name == name)
    return sorted("/".join(path.parts[:-1]) for path in found if path.parts[0] not in RESERVED)


def own_files(path: str, files: Mapping[str, Blob]) -> dict[str, Blob]:
    """The files of the order at `path`, by name from there.

    What is below another order belongs to that one. The root has its direct files alone, without
    `.starphleet`, which counts by what it changes in an environment.
    """
    if not path:
        return {name: b for name, b in files.items() if "/" not in name and name != ".starphleet"}
    others = [f"{other}/" for other in directories("orders", files) if other.startswith(f"{path}/")]
    return {
        name.removeprefix(f"{path}/"): blob
        for name, blob in files.items()
        if name.startswith(f"{path}/") and not name.startswith(tuple(others))
    }


def content(own: Mapping[str, Blob], calls: Sequence[Call]) -> str:
    """A digest of files by name, mode and content, and of the commands that came of them."""
    lines = [f"{name}\0{blob.mode} {blob.oid}\n" for name, blob in sorted(own.items())]
    lines += ["\0".join([call.name, *call.words, "\n"]) for call in calls]
    return sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def regular(name: str, files: Mapping[str, Blob]) -> None:
    """`Refused` when `name` is a link, a submodule or too large."""
    blob = files[name]
    if not blob.regular:
        raise Refused(f"{name}: it must be a regular file")
    if blob.size > LARGEST:
        raise Refused(f"{name}: it is {blob.size >> 10} KB, at most {LARGEST >> 10} are read")


def within(directory: str, data: Mapping[str, bytes]) -> dict[str, bytes]:
    """What is below `directory`, by path in it."""
    start = f"{directory}/"
    return {name.removeprefix(start): one for name, one in data.items() if name.startswith(start)}


def beta_groups(data: Mapping[str, bytes]) -> dict[str, tuple[str, ...]]:
    """Who is in which group. Names are compared in lower case."""
    return {
        name: tuple(one.decode("utf-8", "replace").lower().split())
        for name, one in within("beta_groups", data).items()
        if "/" not in name and not is_document(name)
    }


def is_document(name: str) -> bool:
    """Whether a file is there for people alone."""
    return PurePosixPath(name).suffix.lower() in (".md", ".txt", ".rst")


def at(path: str, name: str) -> str:
    """The file `name` in the directory `path` ("" the root)."""
    return f"{path}/{name}" if path else name
