"""Completion of `starphleet` commands in shells: they ask, and what they ask is decided here."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence

from receiver.manual import commands_of

NAMED = ("service", "deploy")
"""Arguments for which the ship is asked."""

# Each hands over the words before the one under the cursor, and that one; a line for each answer.
_BASH = """\
_starphleet() {
  local word="${COMP_WORDS[COMP_CWORD]}" own="${COMP_WORDS[0]##*/}"
  local -a before=("${COMP_WORDS[@]:1:COMP_CWORD-1}")
  [[ $own == starphleet-* ]] && before=("${own#starphleet-}" "${before[@]}")
  mapfile -t COMPREPLY < <(
    "${COMP_WORDS[0]%starphleet*}starphleet" complete -- "${before[@]}" "$word" 2>/dev/null)
  if [[ ${COMPREPLY[0]} == : ]]; then COMPREPLY=(); compopt -o default; fi
}
complete -F _starphleet COMMANDS
"""
_ZSH = """\
#compdef COMMANDS
_starphleet() {
  local own="${words[1]:t}"
  local -a before=("${(@)words[2,CURRENT-1]}") found
  [[ $own == starphleet-* ]] && before=("${own#starphleet-}" "${before[@]}")
  found=("${(@f)$(starphleet complete -- "${before[@]}" "${words[CURRENT]}" 2>/dev/null)}")
  if [[ $found == : ]]; then _files; else compadd -- $found; fi
}
if [[ $funcstack[1] == _starphleet ]]; then _starphleet "$@"; else compdef _starphleet COMMANDS; fi
"""
_FISH = """\
function __starphleet
  set -l before (commandline -opc)
  set -l own (string replace -r '.*/' '' -- $before[1])
  set before $before[2..]
  string match -q 'starphleet-*' -- $own; and set before (string sub -s 12 -- $own) $before
  set -l found (starphleet complete -- $before (commandline -ct) 2>/dev/null)
  if test "$found" = :; __fish_complete_path (commandline -ct); else; printf '%s\\n' $found; end
end
for own in COMMANDS; complete -c $own -f -a '(__starphleet)'; end
"""
SHELLS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def script(shell: str, commands: Iterable[str]) -> str:
    """What a shell reads to complete `starphleet`, and each command by its other name."""
    own = " ".join(["starphleet", *(f"starphleet-{name}" for name in commands)])
    return SHELLS[shell].replace("COMMANDS", own)


def candidates(
    parser: argparse.ArgumentParser, words: Sequence[str], names: Callable[[], Iterable[str]]
) -> list[str]:
    """What the last of `words` may become; [":"] for a file of the shell's own choice. `names` are
    those of services."""
    *before, last = words or [""]
    while before and (below := commands_of(parser)):
        word = before.pop(0)
        if word in below:
            parser = below[word]
    options = [
        one
        for action in parser._actions
        for one in action.option_strings
        if action.help != argparse.SUPPRESS
    ]
    if last.startswith("-"):
        found = [one for one in options if one.startswith("--")]
    elif below := commands_of(parser):
        found = list(below)
    else:
        found = _values(parser, before, names)
    return sorted(one for one in found if one.startswith(last) or one == ":")


def _values(
    parser: argparse.ArgumentParser, before: Sequence[str], names: Callable[[], Iterable[str]]
) -> list[str]:
    """What stands next, of the arguments that a command takes."""
    wanting = {one: action for action in parser._actions for one in action.option_strings}
    given = [word for word in before if not word.startswith("-")]
    if before and _takes(wanting, before[-1]):
        return [str(one) for one in wanting[before[-1]].choices or ()]
    taking = [each for each in parser._actions if not each.option_strings]
    taken = len(given) - sum(_takes(wanting, word) for word in before)
    if taken >= len(taking) and not (taking and taking[-1].nargs == argparse.REMAINDER):
        return []
    action = taking[min(taken, len(taking) - 1)]
    if action.choices is not None:
        return [str(one) for one in action.choices]
    return list(names()) if action.dest in NAMED else [":"]


def _takes(options: dict[str, argparse.Action], word: str) -> bool:
    """Whether the word after it is its own."""
    return word in options and options[word].nargs != 0
