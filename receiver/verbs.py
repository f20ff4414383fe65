"""What people may ask a ship over SSH without a shell: verbs of `starphleet`, with its answers."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence

from attrs import field, frozen

from containers.sandbox import SYSTEM_PATH
from hooks.errors import Refused
from hooks.journal.lines import OWN
from hooks.layout import Layout
from proxy.ranks import may
from receiver.ssh.interface import Command, Login, Rank

OWNER, KEY = "STARPHLEET_OWNER", "STARPHLEET_KEY"
_WORD = re.compile(r"[A-Za-z0-9_./~%@+][A-Za-z0-9_./~%@+-]{0,199}")
_LINES = re.compile(r"[0-9]{1,5}")
_WHEN = re.compile(r"[0-9][0-9A-Za-z:-]{0,24}")


@frozen
class Verb:
    """`usage` is what follows the name, `names` how many services it takes, at least and at most;
    `options` those that it knows, and whether each takes a number (`--since` a time)."""

    about: str
    usage: str = ""
    names: tuple[int, int] = (0, 0)
    options: Mapping[str, bool] = field(factory=dict)
    rank: Rank = Rank.PUSHER


_LOGS = {"-f": False, "--follow": False, "-n": True, "--lines": True}
_LOGS |= {"--since": True, "--json": False}


def _of_one(about: str) -> Verb:
    """What a captain may do to one service."""
    return Verb(about, "SERVICE", (1, 1), rank=Rank.CAPTAIN)


VERBS: Mapping[str, Verb] = {
    "status": Verb(
        "what the ship serves, builds and makes wait",
        "[SERVICE] [--json]",
        (0, 1),
        {"--json": False, "--trouble": False},
    ),
    "logs": Verb("the log of a service", "SERVICE [-f] [-n LINES] [--since WHEN]", (1, 1), _LOGS),
    "history": Verb("every deploy, newest first", "[SERVICE] [--json]", (0, 1), {"--json": False}),
    "open": Verb("the URL of a service, or a link into the dashboard", "SERVICE|dashboard", (1, 1)),
    "cancel": Verb("end a deploy; of others only as captain", "ID", (1, 1)),
    "take-down": Verb("end a pushed service", "SERVICE", (1, 1)),
    "redeploy": _of_one("remove a service and build it anew"),
    "retry-deploy": _of_one("build and deploy a service again"),
    "restart": _of_one("stop a service and start it again"),
    "stop": _of_one("stop a service until `start`"),
    "start": _of_one("start a service that was stopped"),
}


def verbs_of(rank: Rank) -> dict[str, Verb]:
    """Those that somebody of this rank has."""
    return {name: verb for name, verb in VERBS.items() if may(rank, verb.rank)}


def read(text: str, rank: Rank) -> tuple[str, ...]:
    """The words for `starphleet`, of a command as it came; `starphleet` or `starphleet-` before it
    are the same. `Refused` for one that is not known here, or is put wrongly."""
    words = text.removeprefix("starphleet-").removeprefix("starphleet ").split()
    name, given = (words[0] if words else ""), words[1:]
    verb = verbs_of(rank).get(name)
    if verb is None:
        raise Refused(f"{ascii(text)[:60]} is not for this account; `help` lists what is")
    options, services = _sorted(name, verb, given)
    if name == "logs" and OWN in services:
        raise Refused(f"{OWN} is the ship itself; what it logs is for admirals")
    least, most = verb.names
    if not least <= len(services) <= most:
        raise Refused(f"{name} is asked as: {name} {verb.usage}")
    return (name, *options, *services)


def _sorted(name: str, verb: Verb, given: Sequence[str]) -> tuple[list[str], list[str]]:
    """Options (with their numbers) and services."""
    options, services, rest = [], [], list(given)
    while rest:
        word = rest.pop(0)
        if word in verb.options:
            options.append(word)
            if verb.options[word]:
                options.append(_value(word, name, verb, rest))
        elif _WORD.fullmatch(word):
            services.append(word)
        else:
            raise Refused(f"{ascii(word)[:60]} is nothing {name} knows: {name} {verb.usage}")
    return options, services


def _value(option: str, name: str, verb: Verb, rest: list[str]) -> str:
    grammar = _WHEN if option == "--since" else _LINES
    if not rest or not grammar.fullmatch(rest[0]):
        raise Refused(f"{name} is asked as: {name} {verb.usage}")
    return rest.pop(0)


def help_text(at: str, rank: Rank) -> str:
    """A line for each verb; `at` is how the account is reached, such as `ssh git@ship`."""
    lines = [(f"{name} {verb.usage}".rstrip(), verb.about) for name, verb in verbs_of(rank).items()]
    lines.append(("help", "this list"))
    return "".join(f"    {at} {usage:<32} {about}\n" for usage, about in lines)


def asker(login: Login | None) -> dict[str, str]:
    """The variables by which `starphleet` says who asks, to a ship that knows whose key it was."""
    if login is None:
        return {}
    return {OWNER: login.key.owner, KEY: login.key.fingerprint}


@frozen
class Starphleet:
    """The `starphleet` of this ship's own interpreter. `given` are the ship's settings that came
    from its environment."""

    layout: Layout
    given: Mapping[str, str] = field(factory=dict, repr=False)
    interpreter: str = sys.executable

    @property
    def env(self) -> dict[str, str]:
        """By which it finds the ship."""
        return {**self.given, "STARPHLEET_ROOT": str(self.layout.root)}

    def command(self, words: Sequence[str], login: Login | None = None) -> Command:
        argv = (self.interpreter, "-I", "-m", "receiver.cli", *words)
        env = {"PATH": SYSTEM_PATH, "LANG": "C.UTF-8", **self.env, **asker(login)}
        return Command(argv, env, self.layout.root)
