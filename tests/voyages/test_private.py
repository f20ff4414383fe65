"""What is for who has a key alone: services that are pushed private, and links to them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.ports import free_port
from tests.voyages.apps import slow_build, web
from tests.voyages.crew import Person, ask
from tests.voyages.harbour import REAL, Harbour, until
from tests.voyages.websocket import Websocket


@pytest.fixture(scope="module")
def harbour(runtime: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harbour]:
    """A ship that speaks TLS."""
    settings = {"STARPHLEET_HTTPS_PORT": str(free_port())}
    with Harbour(tmp_path_factory.mktemp("harbour"), settings) as harbour:
        harbour.up()
        yield harbour


def ways(harbour: Harbour, name: str) -> tuple[str, ...]:
    plain, tls = harbour.http_port, harbour.settings["STARPHLEET_HTTPS_PORT"]
    return (
        f"http://{name}.localhost:{plain}/",
        f"http://localhost:{plain}/~{name}/",
        f"https://{name}.localhost:{tls}/",
        f"https://localhost:{tls}/~{name}/",
    )


def test_a_private_push(harbour: Harbour) -> None:
    """`-o private` closes every way to a service, `open` opens each, once; the push says how."""
    pia = Person.new(harbour, "pia", "pusher")
    said = harbour.app(web("secret"), "mine").push("mine", "master", "-o", "private")
    assert said.url == f"http://mine.localhost:{harbour.http_port}/"
    opening = f"private: ssh -p {harbour.ssh_port} git@localhost open mine"
    assert any(opening in line for line in said.remote), said.text
    for way in ways(harbour, "mine"):
        refused = ask(way, {"Accept": "text/html"})
        assert (refused.status, "open mine" in refused.text) == (401, True)
        link = f"{way}?{urlsplit(pia.open('mine')).query}"
        answer = ask(link)
        assert (answer.status, answer.headers["Location"]) == (302, urlsplit(way).path)
        kept = answer.headers["Set-Cookie"]
        assert f"Path={urlsplit(way).path};" in kept
        assert ("Secure" in kept) == way.startswith("https")
        assert ask(way, {"Cookie": kept.partition(";")[0]}).text == "secret"
        assert ask(link).status == 401


def test_private_until_somebody_says_otherwise(harbour: Harbour) -> None:
    """What was pushed private stays so, with the next push and after the service went, and its
    branches are by themselves; `-o public` ends it."""
    app = harbour.app(web("first"), "kept")
    url = app.push("kept").url
    assert ask(url).text == "first"
    app.commit({})
    app.push("kept", "master", "-o", "private")
    assert ask(url).status == 401
    app.commit(web("second"))
    said = app.push("kept")
    assert any("Private, as before" in line for line in said.remote), said.text
    assert ask(url).status == 401
    assert ask(app.push("kept", "master:refs/heads/x").url).text == "second"
    app.commit(web("third"))
    app.push("kept", "master", "-o", "ttl=1s")
    until(lambda: ask(url).status == 404, "the service goes")
    app.push("kept")
    assert ask(url).status == 401
    app.commit({})
    app.push("kept", "master", "-o", "public")
    assert ask(url).text == "third"
    app.commit(web("fourth"))
    app.push("kept")
    assert ask(url).text == "fourth"


def test_joining_a_deploy(harbour: Harbour) -> None:
    """A private push that joins a deploy of the same commit is private for all that."""
    app = harbour.app(slow_build("joined"), "joined")
    first = app.pushing("joined")
    until(lambda: list((harbour.root / "containers").glob("joined-*")), "it is underway")
    said = app.push("joined", "master", "-o", "private")
    first.communicate()
    assert any("Joining" in line for line in said.remote), said.text
    assert ask(f"http://joined.localhost:{harbour.http_port}/").status == 401


def test_what_makes_no_sense_is_refused(harbour: Harbour) -> None:
    """Both at once, the headquarters, and a service whose environment asks for something itself."""
    app = harbour.app(web(), "odd")
    own = web(HTPASSWD="ann:$apr1$abcdefgh$" + "x" * 22)
    for name, options, words in (
        ("odd", ("-o", "private", "-o", "public"), "the opposite of each other"),
        ("headquarters", ("-o", "private"), "not for the headquarters"),
        ("dashboard", (), "is reserved by the ship"),
    ):
        said = app.push(name, "master", *options, check=False)
        assert (said.status != 0, words in said.text) == (True, True), said.text
    app.commit(own)
    for option in ("private", "public"):
        said = app.push("odd", "master", "-o", option, check=False)
        assert (said.status != 0, f"-o {option}: " in said.text) == (True, True), said.text
    assert ask(app.push("odd").url).headers["WWW-Authenticate"].startswith("Basic")


def test_by_its_environment(harbour: Harbour) -> None:
    """SECURITY_MODE=private in `.env` is the same, and no push makes that public."""
    app = harbour.app(web("own", SECURITY_MODE="private"), "env")
    url = app.push("env").url
    assert ask(url).status == 401
    assert app.push("env", "master:refs/heads/y", "-o", "public", check=False).status != 0
    ann = Person(harbour, harbour.key)
    assert ask(url, ann.come_in("env")).text == "own"


def test_websockets(harbour: Harbour) -> None:
    """A websocket is open to who is in, and to nobody else."""
    url = harbour.app(REAL / "liner", "liner").push("liner", "master", "-o", "private").url
    with pytest.raises(AssertionError, match="401"):
        Websocket(url, harbour.http_port)
    kept = Person(harbour, harbour.key).come_in("liner")
    with Websocket(url, harbour.http_port, kept["Cookie"]) as socket:
        assert socket.ask("ahoy")


def test_open(harbour: Harbour) -> None:
    """`open` prints where a service is, alone on its line; what is not there is said."""
    ann = Person(harbour, harbour.key)
    url = harbour.app(web(), "seen").push("seen").url
    assert ann.open("seen") == url
    assert harbour.starphleet("open", "seen").text.strip() == url
    for words in (("nothing",), ("-x",), (), ("a", "b")):
        assert ann.ssh("git", "open", *words).status == 1


def test_on_the_host(harbour: Harbour) -> None:
    """`starphleet open` needs no key on the host; in an admiral's session it is for their key."""
    link = harbour.starphleet("open", "dashboard").text.strip()
    assert ask(link).status == 302
    eva = Person.new(harbour, "eva", "admiral")
    link = eva.ssh("admiral", "starphleet", "open", "dashboard").text.strip()
    kept = {"Cookie": ask(link).headers["Set-Cookie"].partition(";")[0]}
    page = link.partition("?")[0]
    assert ask(page, kept).status != 401
    harbour.starphleet("key", "remove", "eva")
    until(lambda: ask(page, kept).status == 401, "the session ends with the key", 10)


def test_restarts(harbour: Harbour) -> None:
    """A session is the same after ship and checker were killed, and a link that was used stays
    used; one that was not is still good."""
    ann = Person(harbour, harbour.key)
    url = harbour.app(web("there"), "again").push("again", "master", "-o", "private").url
    used, unused = ann.open("again"), ann.open("again")
    kept = {"Cookie": ask(used).headers["Set-Cookie"].partition(";")[0]}
    harbour.kill()
    assert ask(url, kept).text == "there"
    os.kill(int((harbour.root / "nginx/guard/pid").read_text().split()[0]), signal.SIGKILL)
    harbour.up()
    until(lambda: ask(url, kept).status == 200, "it serves again")
    assert ask(used).status == 401
    assert ask(unused).status == 302
    assert ask(url).status == 401
