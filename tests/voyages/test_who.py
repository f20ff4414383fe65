"""Who may do what: one table for SSH and one for HTTP, each row with its expected answer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping

import pytest
from attrs import frozen

from receiver.verbs import VERBS
from tests.ports import free_port
from tests.voyages.apps import web
from tests.voyages.crew import Person, ask
from tests.voyages.harbour import App, Harbour, until

TOKEN = "the-token-of-a-Prometheus-long-enough-for-anybody"
NOBODY: tuple[str, ...] = ()
ADMIRAL = ("admiral",)
CAPTAIN = ("captain", *ADMIRAL)
PUSHER = ("pusher", *CAPTAIN)
RANKS = ("no key", *PUSHER)
SAY_NO = ("Permission denied", "is not for this account", "is for admirals", "are for admirals",
          "stdio forwarding failed", "subsystem request failed")  # fmt: skip

_counted = itertools.count()


@frozen
class Scene:
    """A ship with a public service `open` and two private ones, `hidden` and `other`."""

    harbour: Harbour
    people: Mapping[str, Person]
    app: App

    @property
    def at(self) -> str:
        return f"http://localhost:{self.harbour.http_port}"


@pytest.fixture(scope="module")
def scene(runtime: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    settings = {"STARPHLEET_HTTPS_PORT": str(free_port()), "STARPHLEET_METRICS_TOKEN": TOKEN}
    with Harbour(tmp_path_factory.mktemp("harbour"), settings) as harbour:
        harbour.up()
        app = harbour.app(web())
        app.push("open")
        for name in ("hidden", "other"):
            app.push(name, "master", "-o", "private")
        people = {
            rank: Person.new(harbour, rank.replace(" ", "-"), None if rank == "no key" else rank)
            for rank in RANKS
        }
        yield Scene(harbour, people, app)


Deed = Callable[[Scene, Person], str]
"""What the ship said to somebody who tried."""


def in_session(account: str, *words: str) -> Deed:
    return lambda scene, person: person.ssh(account, *words).text


def pushing(name: str) -> Deed:
    """A new commit each time: one that is there already would be no push."""

    def push(scene: Scene, person: Person) -> str:
        scene.app.commit({"README.md": f"{next(_counted)}\n"})
        to = scene.harbour.remote(name)
        return person.run("git", "push", "--force", to, "master", cwd=scene.app.path).text

    return push


def fetching(name: str) -> Deed:
    return lambda scene, person: person.run("git", "ls-remote", scene.harbour.remote(name)).text


def copying(account: str) -> Deed:
    """With scp, which is sftp."""

    def copy(scene: Scene, person: Person) -> str:
        options = ["-P" if each == "-p" else each for each in person.options[1:]]
        to = str(scene.harbour.home / "copied")
        return person.run("scp", *options, f"{account}@localhost:/etc/hostname", to).text

    return copy


def forwarding(account: str) -> Deed:
    """A connection to the front door, by way of the ship."""

    def forward(scene: Scene, person: Person) -> str:
        to = f"localhost:{scene.harbour.http_port}"
        return person.run(*person.options, "-W", to, f"{account}@localhost").text

    return forward


BY_SSH: Mapping[str, tuple[Deed, tuple[str, ...]]] = {
    "git": (in_session("git", "help"), PUSHER),
    "captain": (in_session("captain", "help"), CAPTAIN),
    "a shell": (in_session("admiral", "id"), ADMIRAL),
    "update": (in_session("update", "id"), ADMIRAL),
    "root": (in_session("root", "id"), NOBODY),
    "a shell of git's": (in_session("git", "sh -c id"), NOBODY),
    "a shell of captain's": (in_session("captain", "sh -c id"), NOBODY),
    "scp": (copying("admiral"), ADMIRAL),
    "scp as git": (copying("git"), NOBODY),
    "forwarding": (forwarding("admiral"), ADMIRAL),
    "forwarding as git": (forwarding("git"), NOBODY),
    "forwarding as captain": (forwarding("captain"), NOBODY),
    "push a service": (pushing("pushed"), PUSHER),
    "fetch a service": (fetching("open"), PUSHER),
    "push the headquarters": (pushing("headquarters"), ADMIRAL),
    "fetch the headquarters": (fetching("headquarters"), ADMIRAL),
    "open a service": (in_session("git", "open open"), PUSHER),
    "open a private service": (in_session("git", "open hidden"), PUSHER),
    "open the dashboard": (in_session("git", "open dashboard"), ADMIRAL),
    "open it as captain": (in_session("captain", "open dashboard"), ADMIRAL),
    "a verb of captains' as git": (in_session("git", "restart open"), NOBODY),
}
"""What somebody does over SSH, and who may. For who may not it ends in one of `SAY_NO`."""

OF_VERBS: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "status": ("git", "", PUSHER),
    "logs": ("git", "open", PUSHER),
    "history": ("git", "", PUSHER),
    "open": ("git", "open", PUSHER),
    "cancel": ("git", "open", PUSHER),
    "take-down": ("git", "nothing", PUSHER),
    "redeploy": ("captain", "open", CAPTAIN),
    "retry-deploy": ("captain", "open", CAPTAIN),
    "restart": ("captain", "open", CAPTAIN),
    "stop": ("captain", "open", CAPTAIN),
    "start": ("captain", "open", CAPTAIN),
}
"""Each verb: the first account that has it, what it is asked about, and who may."""


def test_every_verb_has_a_row() -> None:
    """A verb that nobody has thought of here is none that people may have."""
    assert set(OF_VERBS) == set(VERBS)


@pytest.mark.parametrize("what", BY_SSH)
def test_over_ssh(scene: Scene, what: str) -> None:
    """What each rank may do is done, and all else is refused in words."""
    deed, who = BY_SSH[what]
    for rank, person in scene.people.items():
        text = deed(scene, person)
        assert (rank, any(no in text for no in SAY_NO)) == (rank, rank not in who), text


@pytest.mark.parametrize("verb", OF_VERBS)
def test_verbs(scene: Scene, verb: str) -> None:
    """Each verb is there for whoever may log in to its account, and for nobody else."""
    account, about, who = OF_VERBS[verb]
    for rank, person in scene.people.items():
        text = person.ssh(account, verb, about).text
        assert (rank, any(no in text for no in SAY_NO)) == (rank, rank not in who), text


PAGES = ("dashboard", "status", "logstream", "metrics")
HIDDEN = ("hidden", "hidden by its host")
LET_IN: Mapping[str, tuple[str, ...]] = {
    "nobody": NOBODY,
    "a claim": NOBODY,
    "a password": NOBODY,
    "a forged session": NOBODY,
    "a link as a session": NOBODY,
    "a pusher with hidden's session": HIDDEN,
    "a captain with hidden's session": HIDDEN,
    "an admiral with hidden's session": HIDDEN,
    "an admiral with the pages' session": PAGES,
    "who has no key, with a Prometheus' token": ("metrics",),
    "who has no key, with another token": NOBODY,
    "a key that is gone": NOBODY,
    "a rank that is lower now": NOBODY,
}
"""Who comes by HTTP, and where they are let in. Where everybody is, is not named."""


def test_over_http(scene: Scene) -> None:
    """Each place lets in whom its row says, and nobody else; the load balancer's page is there for
    all, and a hook for nobody without its secret."""
    places = {page: f"{scene.at}/starphleet/{page}" for page in PAGES}
    places |= {name: f"{scene.at}/~{name}/" for name in ("hidden", "other")}
    places["hidden by its host"] = scene.at.replace("localhost", "hidden.localhost") + "/"
    visitors = visitors_of(scene)
    assert set(visitors) == set(LET_IN)
    for who, headers in visitors.items():
        for what, url in places.items():
            answer = ask(url, headers)
            assert answer.status in (200, 401, 403), answer.text
            assert (who, what, answer.status == 200) == (who, what, what in LET_IN[who])
        assert ask(f"{scene.at}/starphleet/nginx/status", headers).status == 200
        assert ask(f"{scene.at}/starphleet/hooks/poll", headers, "POST").status in (401, 403)
        assert ask(f"{scene.at}/~open/", headers).text == "hello"


def visitors_of(scene: Scene) -> dict[str, dict[str, str]]:
    """The headers by which each comes."""
    ann = scene.people["admiral"]
    pages = ann.come_in("dashboard")
    name, _, value = pages["Cookie"].partition("=")
    return {
        "nobody": {},
        "a claim": {"X-Starphleet-Owner": "admiral", "X-Identity": "admiral"},
        "a password": {"Authorization": "Basic YWRtaXJhbDphZG1pcmFs"},
        "a forged session": {"Cookie": f"{name}={value[::-1]}"},
        "a link as a session": {"Cookie": f"{name}={ann.open('hidden').partition('link=')[2]}"},
        "a pusher with hidden's session": scene.people["pusher"].come_in("hidden"),
        "a captain with hidden's session": scene.people["captain"].come_in("hidden"),
        "an admiral with hidden's session": ann.come_in("hidden"),
        "an admiral with the pages' session": pages,
        "who has no key, with a Prometheus' token": {"Authorization": f"Bearer {TOKEN}"},
        "who has no key, with another token": {"Authorization": f"Bearer {TOKEN[::-1]}"},
        "a key that is gone": was_in(scene, "max", "remove", "max"),
        "a rank that is lower now": was_in(
            scene, "eva", "add", "eva", str(scene.harbour.home / "eva.pub"), "--rank", "captain"
        ),
    }


def was_in(scene: Scene, name: str, *key: str) -> dict[str, str]:
    """The session of an admiral who was let in, and then `starphleet key` took that away, which
    counts within 10 s."""
    kept = Person.new(scene.harbour, name, "admiral").come_in("dashboard")
    page = f"{scene.at}/starphleet/dashboard"
    assert ask(page, kept).status == 200
    scene.harbour.starphleet("key", *key)
    until(lambda: ask(page, kept).status == 401, "the session ends", 10)
    return kept
