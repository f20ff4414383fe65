"""A process that follows repositories as a ship does, and tells what it costs and what it sees.

`python -m tests.bench.asker HOME ROOTS ROUNDS`, with a URL, or `URL#REF`, on each line of standard
input. For each round, in which everything is asked once, a line of JSON: seconds of CPU of this
process and of what it started, and how many processes that were. ROUNDS 0: it follows with a pulse
of a second, says `ready` once everything was asked, and then the URL of each repository that moved.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from hooks.layout import Layout
from hooks.standing import Source
from receiver.headquarters.asking import Asking
from receiver.headquarters.following import Following
from receiver.headquarters.git import RemoteGit

PATH = "/usr/local/bin:/usr/bin:/bin"


def processes() -> int:
    """How many processes and threads there have been in this PID namespace."""
    return int(Path("/proc/sys/kernel/ns_last_pid").read_text())


def cpu() -> float:
    """Seconds of CPU so far, here and in everything that was started."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(use.ru_utime + use.ru_stime for use in map(resource.getrusage, kinds)) + going()


def going() -> float:
    """Seconds of CPU so far of the children that go on, such as an ssh connection that is kept."""
    mine = [stat for stat in stats() if int(stat[1]) == os.getpid()]
    return sum(int(ticks) for stat in mine for ticks in stat[11:15]) / os.sysconf("SC_CLK_TCK")


def stats() -> Iterator[list[str]]:
    """What stands in each /proc/PID/stat behind the command's name."""
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            yield file.read_text().rpartition(") ")[2].split()


def following(home: Path, extra: Mapping[str, str], told: Any) -> Following:
    layout = Layout(home)
    layout.prepare()
    asking = Asking(_reactor, RemoteGit(_reactor, layout, PATH, extra))
    return Following(
        _reactor,
        asking,
        pulse=1.0,
        moved=lambda source, commit: told(source.url),
        lost=lambda source, reason: None,
    )


async def measure(reactor: Any, home: str, roots: str, rounds: str) -> None:
    sources = [Source(*line.split("#")) for line in sys.stdin.read().split()]
    ready = False

    def tell(url: str) -> None:
        if ready:
            print(url, flush=True)

    follow = following(Path(home), {"GIT_SSL_CAINFO": roots}, tell)
    if int(rounds):
        follow.pulse = 10_000.0  # only what is asked for is asked
    follow.follow(sources)
    going: Deferred[None] = Deferred.fromCoroutine(follow.go())
    going.addErrback(lambda _: None)
    if not int(rounds):
        while len(follow.known) + len(follow.troubles) < len({s.url for s in sources}) - 1:
            await follow_a_little(reactor)
        ready = True
        print("ready", flush=True)
        await Deferred()
    await follow.hurry()
    for _ in range(int(rounds)):
        before, begun = cpu(), processes()
        await follow.hurry()
        cost = {"cpu": cpu() - before, "processes": processes() - begun}
        print(json.dumps(cost), flush=True)
    going.cancel()


async def follow_a_little(reactor: Any) -> None:
    waited: Deferred[None] = Deferred()
    reactor.callLater(0.05, waited.callback, None)
    await waited


def main(argv: Sequence[str]) -> None:
    react(lambda reactor: Deferred.fromCoroutine(measure(reactor, *argv)), [])


if __name__ == "__main__":
    main(sys.argv[1:])
