"""Fetches a file by https, with curl: followed hop by hop, bounded, never in the clear."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult

from containers.interface import ContainerError, Limits
from containers.lxc.kinds import checked, is_loopback, shown
from containers.lxc.worker import BEHIND
from containers.spawn import run

SECONDS = 3600.0
STALLED = 60  # seconds in which less than 1 KB/s comes
CONNECTING = 20  # seconds
HOPS = 5
FILE_TOO_BIG = 25  # SIGXFSZ, of which a process dies that writes beyond its limit
ERROR = re.compile(r"curl: \(\d+\) (?P<what>.*)")
ANSWER = re.compile(r"(?P<status>\d{3}) (?P<next>\S*)\Z")


async def fetch(reactor: Any, url: str, file: Path, *, most: int, env: Mapping[str, str]) -> None:
    """Write what `url` answers into `file`, at most `most` bytes, following a few redirects.

    Only https, or http on the loopback. `env` says which proxies and roots to use. Raises
    `ContainerError` with one line, in which the URL's login and query do not appear.
    """
    way = [url]
    while len(way) <= HOPS + 1:
        answered = await _asked(reactor, way, file, most, env)
        if not answered:
            return
        way.append(answered)
    raise ContainerError(f"it redirects more than {HOPS} times")


async def _asked(
    reactor: Any, way: Sequence[str], file: Path, most: int, env: Mapping[str, str]
) -> str:
    """Where the end of the way redirects to, "" when the file is there."""
    try:
        status, following = await _ask(reactor, checked(way[-1], "it"), file, most, env)
        if status != 200 and not following:
            raise ContainerError(f"the answer is {status}")
    except ContainerError as error:
        if len(way) == 1:
            raise
        raise ContainerError(f"redirected to {shown(way[-1])}: {error}") from error
    return following if status != 200 else ""


async def _ask(
    reactor: Any, url: SplitResult, file: Path, most: int, env: Mapping[str, str]
) -> tuple[int, str]:
    """The status, and where it redirects to ("" if it does not)."""
    # The URL may hold a login, so it is nowhere in an argv.
    bounded = [*BEHIND, "/usr/bin/prlimit", "--core=0", f"--fsize={most}", "--"]
    argv = [*bounded, "curl", "--disable", "--config", "-"]
    done = await run(
        reactor,
        argv,
        env=env,
        stdin=_config(url, file).encode(),
        limits=Limits(seconds=SECONDS),
        merge=False,
    )
    if done.exit.signal == FILE_TOO_BIG:
        raise ContainerError(f"it has more than {most} bytes")
    said = ANSWER.search(done.output.decode(errors="replace"))
    if done.exit.ok and said:
        return int(said["status"]), said["next"]
    raise ContainerError(done.exit.reason or _why(done.errors.decode(errors="replace")))


def _why(errors: str) -> str:
    """What curl says went wrong, without what it says besides."""
    for line in errors.splitlines():
        if said := ERROR.match(line):
            return said["what"]
    return "curl was ended"


def _config(url: SplitResult, file: Path) -> str:
    near = is_loopback(url.hostname or "")
    options = [
        f'url = "{url._replace(fragment="").geturl()}"',
        f'output = "{file}"',
        f"connect-timeout = {CONNECTING}",
        "speed-limit = 1024",
        f"speed-time = {STALLED}",
        'write-out = "%{http_code} %{redirect_url}"',
        *("silent", "show-error", "globoff", "max-redirs = 0"),
        *(['noproxy = "*"'] if near else []),
    ]
    return "\n".join(options) + "\n"
