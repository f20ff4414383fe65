"""Bad input: one clear line each, and nothing changed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.voyages.apps import web
from tests.voyages.harbour import App, Harbour, Said


@pytest.fixture(scope="module")
def harbour(runtime: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harbour]:
    """One ship for all refusals: none of them may change anything."""
    with Harbour(tmp_path_factory.mktemp("harbour")) as harbour:
        harbour.up()
        yield harbour


def refused(app: App, name: str, reason: str, *refspecs: str) -> Said:
    """Push, and see that it fails for this reason, told on the ship's last line."""
    said = app.git("push", app.harbour.remote(name), *(refspecs or ("master",)), check=False)
    assert said.status != 0
    assert reason in said.text, said.text
    if said.remote:
        assert reason in said.remote[-1], said.text
    return said


def broken(harbour: Harbour, name: str, files: Mapping[str, str], reason: str) -> None:
    """Push `files` over a version that serves: refused for `reason`, nothing changed."""
    app = harbour.app(web("good"), name)
    url = app.push(name).url
    before = app.git("ls-remote", harbour.remote(name)).text
    containers = set((harbour.root / "containers").iterdir())
    for path in app.path.iterdir():
        if path.name != ".git":
            path.unlink()
    app.commit(files)
    refused(app, name, reason)
    assert harbour.get(url).text == "good"
    assert app.git("ls-remote", harbour.remote(name)).text == before
    assert set((harbour.root / "containers").iterdir()) == containers


def test_an_unknown_key(harbour: Harbour) -> None:
    """A key that is not in authorized_keys gets nowhere."""
    other = harbour.home / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    said = subprocess.run(
        [
            *(str(other) if word == str(harbour.key) else word for word in harbour.ssh),
            "git@localhost",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 255
    assert "Permission denied (publickey)" in said.stderr


@pytest.mark.parametrize(
    "name",
    [
        "-x",
        "--help",
        "..",
        ".git",
        "a/../b",
        "a.",
        "a/",
        "UPPER",
        "a--b",
        "a b",
        "$(id)",
        "a" * 64,
        "hеllo",
    ],
)
def test_a_bad_name(harbour: Harbour, name: str) -> None:
    """git-shell CVE-2017-8386, piku R6: a name outside the grammar is refused, no file is made."""
    app = harbour.home / "names"
    app = harbour.app(web(), "names").path if not app.exists() else app
    before = set((harbour.root / "repositories").iterdir())
    said = App(harbour, app).git(
        "push",
        f"ssh://git@localhost/{name}" if " " not in name else harbour.remote(name),
        "master",
        check=False,
    )
    assert said.status != 0
    assert (
        "is not allowed" in said.text
        or "not for this account" in said.text
        or "at most" in said.text
    ), said.text
    assert set((harbour.root / "repositories").iterdir()) == before


def test_a_tag(harbour: Harbour) -> None:
    """A tag is refused, with what to push instead."""
    app = harbour.app(web(), "tag")
    app.git("tag", "v1")
    refused(app, "tag", "v1 is a tag", "v1")


def test_a_delete(harbour: Harbour) -> None:
    """A branch is not deleted by a push; the service is still there, until it is taken down as the
    refusal says, and the same commit can be pushed again."""
    app = harbour.app(web("stays"), "delete")
    url = app.push("delete").url
    refused(app, "delete", "`take-down delete` (ssh git@…) ends it now", ":master")
    assert harbour.get(url).text == "stays"
    assert "a push brings it back" in harbour.starphleet("take-down", "delete").text
    assert harbour.get(url).status == 404
    assert app.git("ls-remote", harbour.remote("delete")).text == ""
    assert app.push("delete").url == url


def test_two_branches_at_once(harbour: Harbour) -> None:
    """One push builds one branch; two are refused together and neither exists after."""
    app = harbour.app(web(), "two")
    refused(app, "two", "2 refs at once", "master:a", "master:b")
    assert app.git("ls-remote", harbour.remote("two")).text == ""


def test_an_unknown_push_option(harbour: Harbour) -> None:
    """A mistyped option is refused before anything is built."""
    app = harbour.app(web(), "option")
    said = app.push("option", "master", "-o", "atach", check=False)
    assert said.status != 0
    assert "'atach' is not known" in said.text


def test_an_empty_commit(harbour: Harbour) -> None:
    """A commit without files says that there is nothing to build."""
    refused(harbour.app({}, "empty"), "empty", "has no files")


def test_a_procfile_that_is_a_link(harbour: Harbour) -> None:
    """Gogs CVE-2025-8110: a link in the tree reads nothing of the ship's."""
    app = harbour.app(web(), "link")
    (app.path / "Procfile").unlink()
    (app.path / "Procfile").symlink_to("/etc/passwd")
    app.commit({})
    refused(app, "link", "Procfile is a symbolic link")


@pytest.mark.parametrize(
    ("name", "files", "reason"),
    [
        ("nopack", {"README": "nothing"}, "no buildpack matches"),
        ("procfile", {"Procfile": "web python\n"}, "Procfile:1"),
        ("noweb", {"Procfile": "worker: true\n"}, "has no 'web:' line"),
        ("dotenv", {**web(), ".env": "A=1\nwhat is this\n"}, ".env:2: this is not NAME=value"),
        ("file-url", {**web(), ".env": "BUILDPACK_URL=/etc\n"}, "BUILDPACK_URL"),
        ("ext-url", {**web(), ".env": "BUILDPACK_URL='ext::sh -c id'\n"}, "BUILDPACK_URL"),
        ("option-url", {**web(), ".env": "BUILDPACK_URL='--upload-pack=x'\n"}, "BUILDPACK_URL"),
        (
            "install",
            {"requirements.txt": "no-such-package-0 @ file:///nowhere\n", "Procfile": "web: x\n"},
            "could not install",
        ),
        ("exits", {"Procfile": "web: echo going down; exit 3\n"}, "exit status 3"),
        ("missing", {"Procfile": "web: no-such-program\n"}, "exit status 127"),
        (
            "deaf",
            {"Procfile": "web: sleep 60\n", ".env": "HEALTHCHECK_INIT_DELAY=1\n"},
            "listens on no port",
        ),
        (
            "elsewhere",
            {
                **web(),
                "Procfile": "web: PORT=28007 python3 server.py\n",
                ".env": "HEALTHCHECK_INIT_DELAY=5\n",
            },
            "the service listens on 28007",
        ),
        ("ill", web("ill", ANSWER="500", HEALTHCHECK_INIT_DELAY="5"), "GET / answered 500"),
        (
            "checked",
            {**web("ill", ANSWER="404", HEALTHCHECK_INIT_DELAY="5"), "healthcheck": "/up\n"},
            "GET /up answered 404",
        ),
    ],
)
def test_a_broken_app(harbour: Harbour, name: str, files: dict[str, str], reason: str) -> None:
    """Whatever fails, the reason is last, the old version serves, and the branch did not move."""
    broken(harbour, name, files, reason)


def test_a_service_that_ends_shows_its_last_words(harbour: Harbour) -> None:
    """A failing start prints the end of the service's own log."""
    app = harbour.app({"Procfile": "web: echo cannot find the sea; exit 3\n"}, "words")
    said = refused(app, "words", "ended by itself (exit status 3)")
    assert any("cannot find the sea" in line for line in said.remote)


def test_the_same_commit_can_be_pushed_again(harbour: Harbour) -> None:
    """A commit that failed is built anew at the next push of it: its branch did not move."""
    app = harbour.app(web("late", ANSWER="500", HEALTHCHECK_INIT_DELAY="5"), "again")
    for _ in range(2):
        said = refused(app, "again", "answered 500")
        assert any("Starting web" in line for line in said.remote)
    assert app.git("ls-remote", harbour.remote("again")).text == ""


def test_no_room_on_the_disk(tmp_path: Path) -> None:
    """A ship whose disk is too full says so before anything is uploaded."""
    with Harbour(tmp_path / "harbour", {"STARPHLEET_FREE_DISK": "900000G"}) as harbour:
        harbour.up()
        app = harbour.app(web())
        said = app.push("full", check=False)
        assert said.status != 0
        assert "no room on the ship's disk" in said.text
        assert not (harbour.root / "repositories" / "full.git").exists()
