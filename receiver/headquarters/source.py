"""What may be followed: the grammar of `url#ref`, for the operator and for an orders file."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from buildpacks.remote import URL, good_ref
from hooks.errors import Refused
from hooks.standing import Source

_SECRET = re.compile(r"https://[^/]*@")
_LOCAL = re.compile(r"/[^\x00-\x1f\x7f]{1,1000}")


def source_of_orders(text: str, where: str, *, headquarters: Source | None = None) -> Source:
    """The `Source` that `autodeploy` names in an orders file; `Refused` begins with `where`.

    https and ssh only. `headquarters` is where the operator said the headquarters is: that place
    may be named too, whatever it is.
    """
    url, ref = _parted(text, where)
    if headquarters is not None and url == headquarters.url:
        return Source(url, ref)
    return Source(_remote(url, where), ref)


def source_of_operator(text: str, where: str) -> Source:
    """The `Source` that an operator named on the ship: https, ssh or an absolute path."""
    url, ref = _parted(text, where)
    local = url.removeprefix("file://")
    if local.startswith("/"):
        if not _LOCAL.fullmatch(local) or ".." in PurePosixPath(local).parts:
            raise Refused(f"{where}: {ascii(local)[:100]} is not an absolute path")
        return Source(local, ref)
    return Source(_remote(url, where), ref)


def same(url: str) -> str:
    """What is equal in two URLs that mean one repository, whichever way it is reached."""
    scp = re.sub(r"^([^@/]+@[^/:]+):", r"ssh://\1/", url.strip())
    rest = re.sub(r"^[a-z+]+://([^@/]*@)?", "", scp)
    host, mark, path = rest.partition("/")
    host = re.sub(r":[0-9]+$", "", host)
    path = re.sub(r"/+", "/", path.removeprefix("~/")).strip("/")
    return f"{host}{mark}{path.removesuffix('.git').rstrip('/')}".lower()


def _parted(text: str, where: str) -> tuple[str, str]:
    url, mark, ref = text.strip().partition("#")
    if mark and not good_ref(ref):
        raise Refused(f"{where}: {ascii(ref)[:80]} is not a branch, a tag or a commit")
    return url, ref


def _shown(url: str) -> str:
    """What was given, without what may be a password."""
    bare = re.sub(r"[^/@]*@", "...@", url.partition("?")[0])
    return ascii(bare)[:100]


def _remote(url: str, where: str) -> str:
    if _SECRET.match(url):
        raise Refused(
            f"{where}: a user or password in an https URL would end up in logs; use ssh with a key"
        )
    if not URL.fullmatch(url) or any(part in (".", "..") for part in url.split("/")):
        raise Refused(
            f"{where}: {_shown(url)} is not followed; only https://HOST/PATH, "
            "ssh://USER@HOST/PATH and USER@HOST:PATH are"
        )
    return url
