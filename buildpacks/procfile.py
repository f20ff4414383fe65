"""The Procfile, and which command serves the web."""

from __future__ import annotations

import re
from collections.abc import Mapping

from buildpacks.packs import BuildError, Built

LINE = re.compile(r"([A-Za-z0-9_-]+)[ \t]*:[ \t]*(.*)")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def parse_procfile(text: str) -> dict[str, str]:
    """Process type to command, in the file's order. Raises `BuildError` with the line's number.

    Blank lines and lines that begin with `#` are skipped; a type may stand only once.
    """
    processes: dict[str, str] = {}
    for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        name, command = _entry(line, number)
        if name in processes:
            raise BuildError(f"Procfile:{number}: {name!r} stands twice")
        processes[name] = command
    return processes


def _entry(line: str, number: int) -> tuple[str, str]:
    match = LINE.fullmatch(line)
    if match is None or CONTROL.search(line):
        shown = CONTROL.sub("?", line)[:60]
        raise BuildError(f"Procfile:{number}: {shown!r} is not of the form 'web: COMMAND'")
    if not match[2]:
        raise BuildError(f"Procfile:{number}: {match[1]!r} has no command")
    return match[1], match[2]


def web_command(procfile: Mapping[str, str] | None, built: Built) -> str:
    """The Procfile's `web`, else the pack's default. Raises `BuildError` that says what to do."""
    command = (procfile or {}).get("web") or built.process_types.get("web")
    if command:
        return command
    lacks = "has no 'web:' line" if procfile else "is missing"
    raise BuildError(
        f"nothing to run: the Procfile {lacks} and the {built.pack} buildpack knows no default "
        "for this app. Write a Procfile with a line like 'web: COMMAND' that listens on $PORT"
    )
