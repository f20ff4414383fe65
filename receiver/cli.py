"""The `starphleet` command."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hooks.errors import ShipError
from receiver import local
from receiver.cloud.words import of_cloud
from receiver.config import Config, load
from receiver.manual import ABOUT, GROUPS, MORE, NO_PAGE, PAGES, SETTINGS, commands_of
from receiver.words.host import of_keys, of_the_host
from receiver.words.services import of_services, of_the_front_door
from receiver.words.ship import of_the_ship


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, 1 for a refusal in one line, 2 for wrong words."""
    words, parser = _words(sys.argv) if argv is None else list(argv), build_parser()
    try:
        if words[:2] == ["complete", "--"]:  # asked by shells: see completion
            return _complete(words[2:], parser)
        arguments = parser.parse_args(_asked(words, parser))
        status = int(arguments.run(arguments, load()))
        sys.stdout.flush()
        return status
    except ShipError as error:
        print(f"starphleet: {error}", file=sys.stderr)
        return 1
    except PermissionError as error:
        print(f"starphleet: {local.foreign(error)}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever reads it has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:  # a full disk, a path that leads through a file
        where = f"{error.filename}: " if error.filename else ""
        print(f"starphleet: {where}{error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _words(argv: Sequence[str]) -> list[str]:
    """The words of `starphleet`, also when it was called as `starphleet-COMMAND`."""
    _, dash, command = Path(argv[0]).name.partition("-")
    return [command, *argv[1:]] if dash else list(argv[1:])


def _asked(words: list[str], parser: argparse.ArgumentParser) -> list[str]:
    """`words` as the parser reads them: `help` is an option, and a wrong command is answered."""
    if words[:1] in ([], ["help"]):
        words = [*words[1:2], "--help"]
    known = commands_of(parser)
    if words[0] not in known and not words[0].startswith("-"):
        from difflib import get_close_matches

        near = get_close_matches(words[0], known, 1)
        hint = f"did you mean {near[0]}?" if near else "`starphleet help` lists what is"
        parser.exit(2, f"starphleet: {ascii(words[0])[:60]} is no command; {hint}\n")
    return words


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"starphleet {version('starphleet')}")
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """All commands with their options; help, completion and the manual page are made of it."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "starphleet", "starphleet COMMAND …", epilog=SETTINGS, formatter_class=raw
    )
    parser.add_argument("--version", nargs=0, action=_Version, help="print the version, and exit")
    commands = parser.add_subparsers(
        prog=parser.prog, required=True, metavar="COMMAND", help=argparse.SUPPRESS
    )

    def command(name: str, run: object, about: str) -> argparse.ArgumentParser:
        page = PAGES.get(name, NO_PAGE)
        added = commands.add_parser(
            name, description=page.told(about), epilog=page.epilog, formatter_class=raw
        )
        added.set_defaults(run=run, command=name, about=about)
        return added

    of_the_ship(command)
    of_services(command)
    of_the_front_door(command)
    of_the_host(command)
    of_cloud(command)
    of_keys(command)
    completion = command("completion", _completion, "let a shell complete commands and services")
    completion.add_argument("shell", choices=["bash", "zsh", "fish"])
    command("man", _man, "the manual page")
    parser.description = f"{ABOUT}\n{_listing(parser)}\n{MORE}"
    return parser


def _listing(parser: argparse.ArgumentParser) -> str:
    """A line for each command, group by group."""
    there = commands_of(parser)
    names = sorted(there, key=lambda name: [*PAGES, name].index(name))
    lines = [
        (PAGES.get(name, NO_PAGE).group, f"  {name:<16}{there[name].get_default('about')}\n")
        for name in names
    ]
    return "\n".join(
        f"{group}:\n{''.join(line for of, line in lines if of == group)}" for group in GROUPS
    )


def _complete(words: Sequence[str], parser: argparse.ArgumentParser) -> int:
    from receiver.completion import candidates

    def names() -> list[str]:
        answer = local.status(load(), seconds=1.0) or {"services": ()}
        return [one["service"] for one in answer["services"]]

    print("\n".join(candidates(parser, words, names)))
    return 0


def _completion(arguments: argparse.Namespace, config: Config) -> int:
    from receiver.completion import script

    print(script(arguments.shell, commands_of(build_parser())), end="")
    return 0


def _man(arguments: argparse.Namespace, config: Config) -> int:
    from receiver.man import page

    print(page(build_parser(), time.strftime("%Y-%m-%d")), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
