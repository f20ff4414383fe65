"""Files of bash from the headquarters: run in a box, so that nothing comes of it but data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import DeferredSemaphore

from containers.closed import Closed
from containers.interface import Limits
from containers.spawn import Completed
from hooks.errors import Refused
from hooks.say import clean

AT = "/headquarters"
AT_ONCE = 4
LIMITS = Limits(memory=256 << 20, processes=64, files=256, seconds=10.0, output=1 << 20)
BASH = ("/bin/bash", "--noprofile", "--norc", "-c")
PRELUDE = Path(__file__).with_name("orders.bash")
_OWN = frozenset({"PWD", "OLDPWD", "SHLVL", "_", "BASH", "BASHOPTS", "BASHPID", "SHELLOPTS"})
_GIVEN = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/tmp",  # noqa: S108 - inside the box
    "TMPDIR": "/tmp",  # noqa: S108
    "LANG": "C.UTF-8",
}
_LINE = re.compile(r"(?P<file>.+?): line (?P<line>[0-9]+): (?P<what>.*)")
_BROKEN = re.compile(
    r"(?P<file>.+?): (?:warning: )?line (?P<line>[0-9]+): "
    r"(?P<what>(?:warning: )?(?:syntax error|unexpected EOF|here-document at line).*)"
)
COMMANDS = (
    "autodeploy", "expose", "unpublished", "stop_before_autodeploy", "beta", "publish", "redirect",
    "redirect_to", "redirect_to_service", "proxy_for", "server_names", "add_header",
    "add_response_header", "enable_cache_endpoint", "log_to_stderr",
    "nginx_location_configs",
)  # fmt: skip
_WARNINGS = 10  # lines of what a file says that are passed on
_LONGEST = 200  # characters of each


@frozen
class Call:
    """A command of the headquarters: its name, its words, the line it stands on."""

    name: str
    words: tuple[str, ...]
    line: int


@frozen
class Evaluated:
    """What a file came to: what it exports in the end, the commands it gave, what it printed."""

    environment: dict[str, str]
    calls: tuple[Call, ...]
    said: tuple[str, ...]


@define(eq=False)
class Evaluator:
    """Evaluates files, so many at once."""

    reactor: Any
    closed: Closed
    _turns: DeferredSemaphore = field(factory=lambda: DeferredSemaphore(AT_ONCE), init=False)

    async def __call__(
        self, tree: Path, file: str, environment: Mapping[str, str], found: Mapping[str, str]
    ) -> Evaluated:
        """Run the file named `file` in the directory `tree` with `environment`.

        `found` are variables that it finds and that are exported only if it does so. `Refused`
        begins with the file, and the line where bash knows it.
        """
        where = PurePosixPath(AT) / file
        names = ["bash", str(where.parent), f"./{where.name}", " ".join(COMMANDS)]
        names += [f"{name}={value}" for name, value in found.items()]
        async with self._turns:
            done = await self.closed.run(
                [*BASH, PRELUDE.read_text(), *names],
                env=environment,
                view=tree,
                at=AT,
                limits=LIMITS,
                keep=LIMITS.output or 0,
            )
        return evaluated(file, done)


def evaluated(file: str, done: Completed) -> Evaluated:
    """What `done` says of `file`; `Refused` when it failed."""
    said = [clean(line) for line in done.errors.decode("utf-8", "replace").splitlines()]
    if done.exit.reason:
        raise Refused(f"{file}: {done.exit.reason}")
    found = _read(done.output.decode("utf-8", "surrogateescape"))
    if found.unknown is not None:
        line, name = found.unknown
        raise Refused(f"{file}:{line}: {_no_command(name)}")
    if broken := _broken(file, said):
        raise Refused(broken)
    if found.status is None:
        raise Refused(f"{file}: it did not come to its end{_last(said)}")
    if found.status != "0":
        last = _of_the_file(file, said[::-1], _LINE)
        raise Refused(last or f"{file}: it exits with {found.status}{_last(said)}")
    kept = {name: value for name, value in found.environment.items() if _is_theirs(name, value)}
    shown = [line[:_LONGEST] for line in said if line.strip()][:_WARNINGS]
    return Evaluated(kept, tuple(found.calls), tuple(shown))


@define
class _Found:
    """The records that the prelude wrote."""

    calls: list[Call] = field(factory=list)
    environment: dict[str, str] = field(factory=dict)
    unknown: tuple[str, str] | None = None
    status: str | None = None


def _read(output: str) -> _Found:
    found, records = _Found(), iter(output.split("\0"))
    with suppress(StopIteration, ValueError):  # cut short: what has no end did not come to one
        for kind in records:
            if kind == "call":
                line, count = int(next(records)), int(next(records))
                name, *words = [next(records) for _ in range(count)]
                found.calls.append(Call(name, tuple(words), line))
            elif kind == "unknown":
                found.unknown = found.unknown or (next(records), next(records))
            elif kind == "end":
                found.status = next(records)
            elif "=" in kind:
                name, _, value = kind.partition("=")
                found.environment[name] = value
    return found


def _is_theirs(name: str, value: str) -> bool:
    """Not bash's own, and not as it was given to make the file run at all."""
    own = name in _OWN or name.startswith(("BASH_", "__starphleet"))
    return not own and _GIVEN.get(name) != value


def _no_command(name: str) -> str:
    """Only what is nearly one is repeated: the word may be a piece of a password."""
    meant = get_close_matches(name, COMMANDS, 1)
    return f"{name} is no command; {meant[0]} is" if meant else "there is no such command"


def _broken(file: str, said: Iterable[str]) -> str | None:
    """What bash could not read, in `file` or in one that it sources."""
    for text in said:
        if match := _BROKEN.match(text):
            here = match["file"] == f"./{PurePosixPath(file).name}"
            where = file if here else f"{file}: {match['file']}"
            return f"{where}:{match['line']}: {match['what'][:_LONGEST]}"
    return None


def _of_the_file(file: str, said: Iterable[str], pattern: re.Pattern[str]) -> str | None:
    """What bash said of the file itself first, as `file:line: what`."""
    name = PurePosixPath(file).name
    for text in said:
        match = pattern.match(text)
        if match and match["file"] == f"./{name}":
            return f"{file}:{match['line']}: {match['what'][:_LONGEST]}"
    return None


def _last(said: Sequence[str]) -> str:
    return f": {said[-1][:_LONGEST]}" if said else ""
