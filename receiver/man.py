"""starphleet(1), made of the same parser as everything else."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from importlib.metadata import version

from receiver.manual import ABOUT, GROUPS, MORE, NO_PAGE, PAGES, SETTINGS, commands_of

_ENDS = """\
.SH EXIT STATUS
0 for what succeeded, 1 for what was refused or failed, with one line on standard error, 2 for wrong
words, 130 after Ctrl\\-C. The commands that run another one exit with its status.
.SH FILES
.TP
.I /var/starphleet
The root of the system's ship; \\fI~/.local/share/starphleet\\fR of a user's, or what
.B STARPHLEET_ROOT
says.
.TP
.IR settings ,
in the root
Settings, as NAME=value lines.
"""


def page(parser: argparse.ArgumentParser, date: str) -> str:
    """The whole manual page, as roff; `date` is as 2026-01-31."""
    lines = [
        f'.TH STARPHLEET 1 "{date}" "Starphleet {version("starphleet")}" "User Commands"',
        ".SH NAME",
        r"starphleet \- a git\-push deploy server for your own hosts",
        ".SH SYNOPSIS",
        r".B starphleet",
        r".I COMMAND",
        r"[\fIOPTION\fR ...] [\fIARGUMENT\fR ...]",
        ".br",
        r".B starphleet\-\fICOMMAND",
        ".SH DESCRIPTION",
        *_text(f"{ABOUT}\n{MORE}"),
        ".SH COMMANDS",
    ]
    commands = commands_of(parser)
    for group in GROUPS:
        lines.append(f".SS {_escaped(group)}")
        for name in sorted(commands, key=lambda name: [*PAGES, name].index(name)):
            if PAGES.get(name, NO_PAGE).group == group:
                lines += _command(name, commands[name])
    lines += [".SH ENVIRONMENT", *_text(SETTINGS)]
    return "\n".join(lines) + "\n" + _ENDS


def _command(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    yield ".TP"
    yield rf".B {_escaped(name)}" + _usage(parser)
    yield from _text(parser.description or "")
    below = commands_of(parser)
    taken = [one for one in parser._actions if one.help not in (None, argparse.SUPPRESS)]
    for action in taken:
        if not isinstance(action, argparse._SubParsersAction | argparse._HelpAction):
            yield ".RS"
            yield ".TP"
            yield _heading(action)
            yield _escaped(str(action.help))
            yield ".RE"
    for action_name, one in below.items():
        yield ".RS"
        yield from _command(f"{name} {action_name}", one)
        yield ".RE"
    if name in PAGES and PAGES[name].examples:
        yield ".IP"
        yield ".nf"
        yield from (_escaped(example) for example in PAGES[name].examples)
        yield ".fi"


def _usage(parser: argparse.ArgumentParser) -> str:
    """The arguments that stand after the name."""
    shown = []
    for one in parser._actions:
        if one.option_strings or isinstance(one, argparse._SubParsersAction):
            continue
        name = str(one.metavar or one.dest)
        fixed = list(one.choices or ()) == [name]
        word = rf"\fB{_escaped(name)}\fR" if fixed else rf"\fI{_escaped(name.upper())}\fR"
        optional = one.nargs in ("?", argparse.REMAINDER)
        shown.append(f"[{word}]" if optional else word)
    return "".join(rf" {word}" for word in shown).replace(" ", r"\fR ", 1) if shown else ""


def _heading(action: argparse.Action) -> str:
    names = ", ".join(rf"\fB{_escaped(one)}\fR" for one in action.option_strings)
    value = _escaped(str(action.metavar or action.dest).upper())
    if not names:
        return rf"\fI{value}\fR"
    return names if action.nargs == 0 else rf"{names} \fI{value}\fR"


def _text(text: str) -> Iterator[str]:
    """Paragraphs; lines that are set in stay as they are."""
    plain = True
    for line in text.splitlines():
        if line and line.startswith(" ") == plain:
            plain = not plain
            yield ".fi" if plain else ".nf"
        yield _escaped(line) or ".sp"
    if not plain:
        yield ".fi"


def _escaped(text: str) -> str:
    """Text in which roff finds nothing to do."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq")
    escaped = escaped.replace("`", r"\(ga").replace("…", "...")
    return rf"\&{escaped}" if escaped.startswith(".") else escaped
