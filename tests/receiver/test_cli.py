"""The words of `starphleet`: what is known, what is said of it, and what shells complete."""

from __future__ import annotations

import io
import os
import re
import select
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from hooks.layout import Layout
from receiver import cli, local, shown
from receiver.choosing import matching
from receiver.completion import SHELLS, candidates, script
from receiver.man import page
from receiver.manual import GROUPS, PAGES, commands_of

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PARSER = cli.build_parser()
COMMANDS = commands_of(PARSER)
INTERNAL = {"check"}


def said(*words: str) -> tuple[int, str, str]:
    """A command's status, and what it printed on both."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = cli.main(words)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 2
    return status, out.getvalue(), err.getvalue()


def test_each_command_has_its_page() -> None:
    """No command without help worth reading."""
    assert set(COMMANDS) - INTERNAL <= set(PAGES)
    for name in set(COMMANDS) - INTERNAL:
        status, text, _ = said(name, "--help")
        assert status == 0
        assert PAGES[name].more.split()[0] in text
        assert said("help", name) == (0, text, "")
        for example in PAGES[name].examples:
            assert example in text


def test_the_listing() -> None:
    """Every command stands once in the listing, in its group; no words are `--help`."""
    status, text, _ = said()
    assert (status, text) == (0, said("--help")[1])
    assert said("help")[1] == text
    for name in set(COMMANDS) - INTERNAL:
        assert len(re.findall(rf"(?m)^  {name} ", text.partition("Every day:")[2])) == 1, name
    assert [text.index(f"{group}:\n") for group in GROUPS] == sorted(
        text.index(f"{group}:\n") for group in GROUPS
    )


def test_what_is_no_command() -> None:
    """A wrong word exits with 2 and names the nearest command, in one line, whatever it is."""
    assert said("stauts") == (2, "", "starphleet: 'stauts' is no command; did you mean status?\n")
    for wrong in ("x" * 10_000, "a\nb\x1b[31m", ""):
        status, out, err = said(wrong)
        assert (status, out, len(err.splitlines())) == (2, "", 1)
        assert "\x1b" not in err


def test_whoever_reads_has_enough() -> None:
    """What is printed into a pipe that nobody reads any more ends as other programs do."""
    reader, writer = os.pipe()
    os.close(reader)
    argv = [sys.executable, "-m", "receiver.cli", "completion", "bash"]
    done = subprocess.run(argv, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_what_does_not_go_on_is_trouble() -> None:
    """`status` says of a service that it ended by itself, how, and how often."""
    served = {
        "service": "shop", "commit": "c" * 40, "owner": "ann", "url": "http://shop",
        "expires": None, "orphaned": False, "stopped": False, "ended": "exit status 1",
        "restarts": 7,
    }  # fmt: skip
    answer: dict[str, Any] = {
        "services": [served], "ordered": [], "headquarters": None, "host": [], "signs": [],
        "certificates": [], "online": True, "deploys": [],
    }  # fmt: skip
    said = shown.status("ssh://ship", answer, None, trouble=True).splitlines()
    assert said[0].startswith("  shop ")
    assert said[1:] == [
        "    ! it ended by itself (exit status 1, 7 times by now), and is started again"
    ]
    answer["services"] = [{**served, "ended": ""}]
    assert shown.status("ssh://ship", answer, None, trouble=True) == "no trouble"


def test_the_version() -> None:
    """`--version` names what is installed."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert said("--version") == (0, f"starphleet {version}\n", "")


def test_other_names() -> None:
    """Each command that is about services or the ship is there as `starphleet-COMMAND` too."""
    given = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    names = {one.removeprefix("starphleet-") for one in given if one != "starphleet"}
    here = {"ship", "up", "down", "reload", "demo", "completion", "man", "new", "key", "open"}
    here |= {"install", "uninstall", "update"}
    here |= {"init", "add", "info", "remove", "name"}
    assert names | here | INTERNAL >= set(COMMANDS)
    assert names <= set(COMMANDS)


def test_errors_of_programs() -> None:
    """With --json nothing is on standard output but JSON: an error is its line, and a status."""
    with tempfile.TemporaryDirectory() as root:
        os.environ["STARPHLEET_ROOT"] = root
        try:
            for words in (("status", "--json"), ("history", "--json"), ("headquarters", "--json")):
                status, out, err = said(*words)
                assert (status, out, len(err.splitlines())) == (1, "", 1)
                assert err.startswith("starphleet: no ship")
            assert said("key", "--json") == (0, "[]\n", "")
        finally:
            del os.environ["STARPHLEET_ROOT"]


def test_what_the_disk_does_not_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written is told in one line that says where."""
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("STARPHLEET_ROOT", str(blocked / "ship"))
    assert said("up") == (1, "", f"starphleet: {blocked}/ship: Not a directory\n")


def test_a_ship_that_ends_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the ship was asked to do, and ended before it said how that went, is no success."""
    monkeypatch.setenv("STARPHLEET_ROOT", str(tmp_path))
    place = Layout(tmp_path).socket
    place.parent.mkdir()

    def end(listening: socket.socket) -> None:
        ship, _ = listening.accept()
        with ship, ship.makefile("rb") as asked:
            asked.readline()
            ship.sendall(b'{"say": "Stopping it"}\n')

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place))
        listening.listen()
        ending = Thread(target=end, args=[listening])
        ending.start()
        status, out, err = said("restart", "app")
        ending.join()
    assert (status, out) == (1, "Stopping it\n")
    assert err == "starphleet: the ship ended before it said how that went: starphleet status\n"


def test_whose_the_ship_is(tmp_path: Path) -> None:
    """Who may not ask a ship is told whose it is and what to do."""
    place = tmp_path / "run" / "ship"
    line = local.foreign(PermissionError(13, "Permission denied", str(place)))
    owner = tmp_path.owner()
    sudo = "sudo" if owner == "root" else f"sudo -u {owner}"
    assert line == f"{place} is {owner}'s, and the ship with it: {sudo} starphleet"


def test_a_part_of_a_name() -> None:
    """The name itself wins over those that it is a part of; slashes may be left out."""
    names = ["/web", "/web/api", "web2", "blog"]
    assert matching(names, "web") == ["/web"]
    assert matching(names, "api") == ["/web/api"]
    assert matching(names, "we") == ["/web", "/web/api", "web2"]
    assert matching(names, "") == sorted(names)
    assert matching(names, "x") == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("stat", ["status"]),
        ("status --tr", ["--trouble"]),
        ("status ", ["blog", "shop"]),
        ("logs -n ", []),
        ("logs -n 5 b", ["blog"]),
        ("status blog ", []),
        ("run blog ls ", [":"]),
        ("key ", ["add", "remove"]),
        ("key add ann --rank c", ["captain"]),
        ("key add ann ", [":"]),
        ("completion ", ["bash", "fish", "zsh"]),
        ("cancel --", ["--help"]),
        ("add ", ["ship"]),
        ("add ship ", ["ec2"]),
        ("add ship ec2 us-west-1 --", ["--help", "--vpc"]),
        ("nonsense ", sorted(COMMANDS)),
    ],
)
def test_candidates(line: str, found: list[str]) -> None:
    """Commands, options, values of options and names of services, where each may stand."""
    assert candidates(PARSER, line.split(" "), lambda: ["shop", "blog"]) == found


@contextmanager
def interactive(*argv: str) -> Iterator[Callable[[str, str], None]]:
    """A shell on a terminal: types something, and waits until something is seen."""
    pid, fd = os.forkpty()
    if pid == 0:
        env = {"PATH": f"{BIN}:{os.environ['PATH']}", "TERM": "xterm", "PS1": "ready> "}
        os.execvpe(argv[0], argv, {**env, "HOME": "/nonexistent", "PROMPT": "ready> "})

    def tell(text: str, wanted: str) -> None:
        os.write(fd, text.encode())
        seen, end = "", time.monotonic() + 30
        while wanted not in seen:
            assert select.select([fd], [], [], max(0, end - time.monotonic()))[0], seen
            seen += os.read(fd, 4096).decode("utf-8", "replace")

    try:
        yield tell
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(fd)


def test_bash_completes() -> None:
    """In a real bash, Tab completes a command, an option, a file, and the other names too."""
    with interactive("bash", "--norc", "--noprofile", "-i") as tell:
        tell('eval "$(starphleet completion bash)"; echo lo""aded\n', "loaded")
        tell("starphleet hist\t", "history ")
        tell("--js\t", "--json ")
        tell("\x15starphleet-status --tr\t", "--trouble ")
        tell("\x15starphleet key add ann /etc/hostn\t", "hostname ")


def test_zsh_completes() -> None:
    """In a real zsh too."""
    with interactive("zsh", "-f", "-i") as tell:
        tell("autoload -Uz compinit; compinit -u -D; echo re''ady\n", "ready")
        tell('eval "$(starphleet completion zsh)"; echo lo""aded\n', "loaded")
        tell("starphleet hist\t", "starphleet history")
        tell("--js\t", "--json")


def test_fish_completes() -> None:
    """In a real fish too."""
    asked = "starphleet completion fish | source; complete -C "
    for line, answer in (("starphleet hist", "history\n"), ("starphleet-logs --fol", "--follow\n")):
        done = subprocess.run(
            ["fish", "--no-config", "-c", f"{asked}'{line}'"],
            env={"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": "/nonexistent"},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.stdout == answer, done.stderr


def test_scripts_are_about_all_names() -> None:
    """A shell completes each command by its other name as well."""
    for shell in SHELLS:
        assert "starphleet-orphan-reaper" in script(shell, COMMANDS)
        assert "COMMANDS" not in script(shell, COMMANDS)


def test_the_manual_page(tmp_path: Path) -> None:
    """groff and mandoc find nothing wrong with it, and every command and option is in it."""
    roff = tmp_path / "starphleet.1"
    roff.write_text(page(PARSER, "2026-01-31"))
    shown = subprocess.run(
        ["groff", "-ww", "-man", "-Tascii", "-P-c", str(roff)], capture_output=True, text=True
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    lint = subprocess.run(
        ["mandoc", "-Tlint", "-Wwarning", str(roff)], capture_output=True, text=True
    )
    assert (lint.returncode, lint.stdout) == (0, "")
    text = re.sub(r".\x08", "", shown.stdout)
    for name in set(COMMANDS) - INTERNAL:
        assert re.search(rf"(?m)^ +{name}( |$)", text), name
    for option in ("--trouble", "--follow", "--rank"):
        assert option in text
    with suppress(ValueError):
        assert not text.index("SUPPRESS")
