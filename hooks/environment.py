"""The environment of a service: which layers there are and which of them wins."""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import StringIO

from hooks.errors import Refused

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
DEFAULTS = {"PORT": "3000", "HEALTHCHECK_INIT_DELAY": "60"}


def read_env_file(text: str, where: str) -> dict[str, str]:
    """Variables of a `.env` file (`[export ]NAME=value`, quotes, comments), never expanded.

    `Refused` names `where:line` of the first thing that is not an assignment.
    """
    from dotenv.parser import parse_stream  # half of what a quick command would wait for

    variables: dict[str, str] = {}
    for binding in parse_stream(StringIO(text)):
        if binding.error:
            raise Refused(f"{where}:{_line(binding.original)}: this is not NAME=value")
        if binding.key is None:
            continue
        if not _VARIABLE.fullmatch(binding.key) or binding.value is None:
            raise Refused(f"{where}:{_line(binding.original)}: this is not NAME=value")
        if "\0" in binding.value:
            raise Refused(f"{where}:{_line(binding.original)}: the value has a NUL in it")
        variables[binding.key] = binding.value
    return variables


def effective(*layers: Mapping[str, str]) -> dict[str, str]:
    """All layers as one environment, the later ones stronger."""
    merged: dict[str, str] = dict(DEFAULTS)
    for layer in layers:
        merged.update(layer)
    return merged


def _line(original: object) -> int:
    """The line the binding stands on: the parser counts the blank lines before it as its own."""
    text = getattr(original, "string", "")
    blank = len(text) - len(text.lstrip("\n"))
    return int(getattr(original, "line", 0)) + blank
