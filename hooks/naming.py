"""Names: what a service may be called, and how a branch and a release become names.

A pushed service's name is a host label (RFC 1123), so that `NAME.<ship host>` always works. An
ordered service's is its path in the headquarters, `/a/b`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256

from attrs import frozen

from hooks.errors import Refused
from hooks.stamps import when_stamped

LABEL = 63  # octets of a DNS label
_NAME = re.compile(r"[a-z0-9](?:-?[a-z0-9])*")
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_BRANCH_PREFIX = "refs/heads/"
# git-check-ref-format(1); git itself checks only the refs that it moves by itself.
_PART = r"(?!\.)(?:(?!\.\.|@\{)[^\x00-\x20\x7f~^:?*\[\\/])+(?<!\.lock)"
_BRANCH = re.compile(rf"{_PART}(?:/{_PART})*(?<!\.)")
_TRUNKS = ("master", "main")
_RESERVED = frozenset({"dashboard", "headquarters", "starphleet", "localship", "www"})
_ESCAPED = re.compile(r"--|(?:-x[0-9a-f]{2})+|.", re.DOTALL)
_LOOKS_ESCAPED = re.compile(r"x[0-9a-f]{2}")


def repository_name(text: str) -> str:
    """`text` when it may name a repository and its service, else `Refused`.

    Lower-case letters, digits and single dashes inside; at most 63; `--` is kept for branches.
    """
    if len(text) > LABEL:
        raise Refused(f"the name is {len(text)} characters long, at most {LABEL} are allowed")
    if not _NAME.fullmatch(text):
        shown = ascii(text)
        raise Refused(
            f"the name {shown} is not allowed: use a-z, 0-9 and single dashes between them"
        )
    if text in _RESERVED:
        raise Refused(f"the name '{text}' is reserved by the ship")
    return text


def branch_of(ref: str) -> str:
    """The branch that `ref` names (`refs/heads/x` -> `x`), else `Refused` with what to push."""
    if ref.startswith("refs/tags/"):
        tag = ref.removeprefix("refs/tags/")
        raise Refused(
            f"{_shown(tag)} is a tag; a ship builds branches. "
            f"Push its commit instead: git push ship '{_shown(tag)}^{{}}:refs/heads/master'"
        )
    if not ref.startswith(_BRANCH_PREFIX) or ref == _BRANCH_PREFIX:
        raise Refused(f"{_shown(ref)} is not a branch; a ship builds refs/heads/* only")
    branch = ref.removeprefix(_BRANCH_PREFIX)
    if branch.startswith("-"):
        raise Refused(f"the branch {_shown(branch)} begins with a dash")
    if not _BRANCH.fullmatch(branch):
        raise Refused(f"{_shown(branch)} is not a name that git has for a branch")
    return branch


def service_name(repository: str, branch: str) -> str:
    """`NAME` for master and main, else `NAME--BRANCH`; one-to-one. `Refused` when too long.

    In a branch `/` becomes `--` and whatever a host label cannot carry `-xHH` (UTF-8 bytes).
    """
    if branch in _TRUNKS:
        return repository
    if branch.startswith("/") or branch.endswith("/"):
        raise Refused(f"the branch {_shown(branch)} is not one that git knows")
    name = f"{repository}--{_escaped(branch)}"
    if len(name) > LABEL:
        raise Refused(
            f"the branch '{_shown(branch)}' makes the host name '{name}' of {len(name)} "
            f"characters, at most {LABEL} are possible: push it under a shorter name, "
            "git push ship BRANCH:refs/heads/SHORT"
        )
    return name


def pushed_refs(service: str) -> tuple[str, list[str]]:
    """The repository whose pushes make `service`, and the refs that may have been pushed."""
    branch = branch_in(service)
    branches = _TRUNKS if branch is None else (branch,)
    return service.partition("--")[0], [f"{_BRANCH_PREFIX}{one}" for one in branches]


def branch_in(service: str) -> str | None:
    """The branch that `service_name` put into a name; `None` for master or main."""
    _, mark, escaped = service.partition("--")
    return _unescaped(escaped) if mark else None


def stem(service: str) -> str:
    """What the names of a service's containers begin with; one-to-one among ordered services.

    The path of an ordered one is escaped as a branch is; `x.` stands before what would be empty or
    begin with a dash, and a dot is in no other stem.
    """
    if not service.startswith("/"):
        return service
    escaped = _escaped(service[1:])
    return f"x.{escaped}" if not escaped or escaped.startswith("-") else escaped


def commit_id(text: str) -> str:
    """`text` when it is a full object id in hex, else `Refused`."""
    if not _COMMIT.fullmatch(text):
        raise Refused(f"{_shown(text)} is not an object id")
    return text


@frozen
class Release:
    """One commit of one service under one configuration: an identity that never changes. Of a
    working directory `commit` is a stamp (see `hooks.stamps`).

    `configuration` is 12 hex digits over the effective environment, and for an ordered service
    over what stands beside its orders (see `configuration_id`).
    """

    service: str
    configuration: str
    commit: str

    def __str__(self) -> str:
        commit = self.commit if when_stamped(self.commit) is not None else self.commit[:12]
        return f"{stem(self.service)}-{self.configuration}-{commit}"


def configuration_id(environment: Mapping[str, str]) -> str:
    """12 hex digits that change when, and only when, a variable does."""
    digest = sha256()
    for name in sorted(environment):
        for part in (name, environment[name]):
            data = part.encode("utf-8", "surrogateescape")
            digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:12]


def _escaped(branch: str) -> str:
    return "".join(_escape_at(branch, i) for i in range(len(branch)))


def _escape_at(branch: str, i: int) -> str:
    char = branch[i]
    if char == "/":
        return "--"
    if _plain(char) or (char == "-" and _dash_is_safe(branch, i)):
        return char
    return "".join(f"-x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))


def _dash_is_safe(branch: str, i: int) -> bool:
    """A dash stays a dash between plain characters, unless it would read as an escape."""
    before, after = branch[i - 1 : i], branch[i + 1 : i + 2]
    looks_escaped = _LOOKS_ESCAPED.match(branch, i + 1) is not None
    return _plain(before) and _plain(after) and not looks_escaped


def _plain(char: str) -> bool:
    return len(char) == 1 and char.isascii() and (char.islower() or char.isdigit())


def _unescaped(escaped: str) -> str:
    parts = []
    for match in _ESCAPED.finditer(escaped):
        part = match.group()
        if part == "--":
            parts.append(b"/")
        elif part.startswith("-x") and len(part) > 2:
            parts.append(bytes.fromhex(part.replace("-x", "")))
        else:
            parts.append(part.encode())
    return b"".join(parts).decode("utf-8", "surrogateescape")


def _shown(text: str) -> str:
    """`text` for a message: printable ASCII, bounded."""
    return ascii(text)[1:-1][:100]
