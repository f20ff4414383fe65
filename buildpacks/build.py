"""The Heroku buildpack protocol: detect, compile, release, in a place that is given."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from attrs import frozen

from buildpacks.output import Head, Tail, plain
from buildpacks.packs import BuildError, Built, Pack

STACK = "heroku-22"
"""Told to packs that choose binaries by it: the newest stack whose glibc Debian 12 can serve."""

RELEASE_BYTES = 16384
DETECT_BYTES = 65536  # of all detects
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
PROCESS = re.compile(r"[A-Za-z0-9_-]+")

# One detect after the other, until one says yes, and after each how it ended.
ASK = """
mark=$1 app=$2
shift 2
for detect; do
  "$detect" "$app" 2>/dev/null
  status=$?
  printf '\\n%s %s\\n' "$mark" "$status"
  [ "$status" != 0 ] || exit 0
done
exit 1
"""
SIGNALLED, SIGNALS = 128, 65  # what a shell adds to the number of a signal, of which there are 64

# What a pack says on stderr is for people, not part of the protocol's answer.
QUIETLY = ("/bin/sh", "-c", 'exec "$0" "$@" 2>/dev/null')

Output = Callable[[bytes], None]


@frozen
class Outcome:
    """How a command ended. `status` is `None` when no status is known (killed by a signal or a
    limit); `reason` says in words why it was ended, else it is empty."""

    status: int | None
    reason: str = ""

    @property
    def ok(self) -> bool:
        return self.status == 0 and not self.reason

    def __str__(self) -> str:
        return self.reason or ("killed" if self.status is None else f"exit {self.status}")


class Site(Protocol):
    """A place to build in. The paths are as a command that runs there sees them.

    `app` is BUILD, `cache` CACHE (kept per service, between builds), `env_dir` ENV_DIR.
    """

    @property
    def app(self) -> str: ...
    @property
    def cache(self) -> str: ...
    @property
    def env_dir(self) -> str: ...

    def pack(self, pack: Pack) -> str:
        """Where a command there sees `pack.directory` (`pack.mount` is what must be mounted)."""
        ...

    async def run(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        output: Output,
        *,
        online: bool = True,
    ) -> Outcome:
        """Run a command to its end, cwd the app; stdout and stderr go to `output`.

        One that is not to be `online` may have no network.
        """
        ...


async def build(
    site: Site,
    packs: Sequence[Pack],
    *,
    chosen: Pack | None = None,
    env: Mapping[str, str],
    say: Callable[[str], None],
    output: Output,
) -> Built:
    """Detect in order (`chosen` is used even if its detect fails), compile, release.

    `say` takes lines, `output` the compile step's raw output as it comes. `env` is the environment
    of all three; `STACK` and `REQUEST_ID` are added where missing. Raises `BuildError`.
    """
    env = {"STACK": STACK, "REQUEST_ID": str(uuid.uuid4()), **env}
    choose = _insist(site, chosen, env) if chosen else _detect(site, packs, env, say)
    pack, detected = await choose
    say(f"-----> {detected} app detected")
    await _compile(site, pack, env, output)
    config_vars, process_types = await _release(site, pack, env)
    return Built(pack.name, detected, config_vars, process_types)


async def _insist(site: Site, pack: Pack, env: Mapping[str, str]) -> tuple[Pack, str]:
    return await _ask(site, [pack], env) or (pack, pack.name)


async def _detect(
    site: Site, packs: Sequence[Pack], env: Mapping[str, str], say: Callable[[str], None]
) -> tuple[Pack, str]:
    say(f"-----> Asking the buildpacks in order: {', '.join(pack.name for pack in packs)}")
    found = await _ask(site, packs, env)
    if found is None:
        raise BuildError(no_match(packs))
    return found


def no_match(packs: Sequence[Pack]) -> str:
    """The sentence for an app that no pack takes."""
    looked = "; ".join(f"{pack.looks_for or '?'} ({pack.name})" for pack in packs)
    return (
        f"no buildpack matches: looked for {looked}. "
        "Add a Procfile that says what to run (web: COMMAND), or set BUILDPACK_URL"
    )


async def _ask(
    site: Site, packs: Sequence[Pack], env: Mapping[str, str]
) -> tuple[Pack, str] | None:
    """The first pack whose detect says yes, and the name that it prints, else its own; `None` if
    all say no. One command asks all of them: a place to run in takes longer to make than they do.
    """
    head, mark = Head(DETECT_BYTES), uuid.uuid4().hex
    detects = (f"{site.pack(pack)}/bin/detect" for pack in packs)
    argv = ["/bin/sh", "-c", ASK, "sh", mark, site.app, *detects]
    outcome = await site.run(argv, env, head.feed, online=False)
    said = answers(head.data, mark)
    for pack, (status, name) in zip(packs, said, strict=False):
        if status == 0:
            return pack, name or pack.name
        if SIGNALLED < status < SIGNALLED + SIGNALS:
            raise BuildError(f"{pack.name}: bin/detect failed (signal {status - SIGNALLED})")
    if len(said) == len(packs):
        return None
    full = len(head.data) == DETECT_BYTES and not outcome.reason
    why = f"prints more than {DETECT_BYTES} bytes" if full else f"failed ({outcome})"
    raise BuildError(f"{packs[len(said)].name}: bin/detect {why}")


def answers(data: bytes, mark: str) -> list[tuple[int, str]]:
    """How each detect ended, and the last line that it printed, of what `ASK` prints."""
    found, name = [], ""
    for line in data.splitlines():
        text = plain(line).strip()
        if text.startswith(mark):
            found.append((int(text.removeprefix(mark)), name))
            name = ""
        elif text:
            name = text
    return found


async def _compile(site: Site, pack: Pack, env: Mapping[str, str], output: Output) -> None:
    tail = Tail()

    def both(chunk: bytes) -> None:
        tail.feed(chunk)
        output(chunk)

    argv = [f"{site.pack(pack)}/bin/compile", site.app, site.cache, site.env_dir]
    outcome = await site.run(argv, env, both)
    if outcome.ok:
        return
    complaint = "" if outcome.reason else tail.complaint()
    raise BuildError(f"{pack.name}: {complaint or f'bin/compile failed ({outcome})'}", tail.lines())


async def _release(
    site: Site, pack: Pack, env: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    if not (pack.directory / "bin" / "release").exists():
        return {}, {}
    head = Head(RELEASE_BYTES + 1)
    argv = [*QUIETLY, f"{site.pack(pack)}/bin/release", site.app]
    outcome = await site.run(argv, env, head.feed, online=False)
    if not outcome.ok:
        raise BuildError(f"{pack.name}: bin/release failed ({outcome})")
    if len(head.data) > RELEASE_BYTES:
        raise BuildError(f"{pack.name}: bin/release prints more than {RELEASE_BYTES} bytes")
    try:
        return parse_release(head.data.decode("utf-8", "replace"))
    except ValueError as error:
        raise BuildError(f"{pack.name}: bin/release: {error}") from error


def parse_release(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """`config_vars` and `default_process_types` of a release's YAML; ValueError says what is wrong.

    Every scalar is text as written (`PORT: 080` is "080"), other keys (`addons`) are ignored.
    """
    import yaml  # few packs print any, and every ship that starts would load it

    try:
        release = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - makes text, nothing else
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ValueError(f"not YAML{where}") from error
    if release in (None, ""):
        return {}, {}
    if not isinstance(release, dict):
        raise ValueError("its YAML is not a mapping")
    return (
        _mapping(release, "config_vars", VARIABLE),
        _mapping(release, "default_process_types", PROCESS),
    )


def _mapping(release: Mapping[object, object], key: str, names: re.Pattern[str]) -> dict[str, str]:
    mapping = release.get(key) or {}
    if not isinstance(mapping, dict):
        raise ValueError(f"{key} is not a mapping")
    for name, value in mapping.items():
        if not (isinstance(name, str) and names.fullmatch(name)):
            raise ValueError(f"{key} has a bad name {str(name)[:60]!r}")
        if not isinstance(value, str) or "\0" in value:
            raise ValueError(f"{key}: {name} is not text")
    return dict(mapping)
