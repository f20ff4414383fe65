"""Real apps of every kind, pushed, answering with their own content, and pushed again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.buildpacks.gitserver import GitServer
from tests.voyages.apps import web
from tests.voyages.harbour import REAL, App, Harbour, Said

BUILT = Path(__file__).parent.parent / "buildpacks"
ROOTS = Path("/etc/ssl/certs/ca-certificates.crt")


@pytest.fixture(scope="module")
def harbour(runtime: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harbour]:
    """One ship for all apps."""
    with Harbour(tmp_path_factory.mktemp("harbour")) as harbour:
        harbour.up()
        yield harbour


@pytest.fixture
def packs(tmp_path: Path) -> Iterator[GitServer]:
    """A git server over https for the repositories in its directory, to be filled."""
    (tmp_path / "served").mkdir()
    with GitServer(tmp_path / "served") as server:
        yield server


def live(harbour: Harbour, app: App, name: str, content: str, *, path: str = "") -> Said:
    """Push, and see that the printed URL answers with exactly this content."""
    said = app.push(name)
    answer = harbour.get(said.url + path)
    assert (answer.status, answer.text.strip()) == (200, content)
    return said


def again(harbour: Harbour, app: App, name: str, file: str, old: str, new: str) -> None:
    """Change what the app says and nothing of its requirements: they come from the cache."""
    before = (app.path / file).read_text()
    content = harbour.get(f"http://{name}.localhost:{harbour.http_port}/").text.strip()
    app.commit({file: before.replace(old, new)})
    said = live(harbour, app, name, content.replace(old, new))
    assert any("Using cached dependencies" in line for line in said.remote), said.text


def test_django(harbour: Harbour) -> None:
    """Django with its static files collected and served by whitenoise, under gunicorn."""
    app = harbour.app(BUILT / "python" / "django", "django")
    said = live(harbour, app, "django", "django at sea")
    assert "1 static file copied" in said.text
    css = harbour.get(f"{said.url}static/site.css")
    assert (css.text.strip(), css.headers["Content-Type"]) == (
        "body { color: navy }",
        'text/css; charset="utf-8"',
    )
    again(harbour, app, "django", "harbour/urls.py", "at sea", "ashore")


def test_flask(harbour: Harbour) -> None:
    """Flask from requirements.txt."""
    app = harbour.app(BUILT / "python" / "flask", "flask")
    live(harbour, app, "flask", "flask at sea")
    again(harbour, app, "flask", "app.py", "at sea", "ashore")


def test_fastapi(harbour: Harbour) -> None:
    """FastAPI under uvicorn from a pyproject.toml without a lock."""
    app = harbour.app(BUILT / "python" / "fastapi", "fastapi")
    live(harbour, app, "fastapi", '"fastapi at sea"')
    again(harbour, app, "fastapi", "main.py", "at sea", "ashore")


def test_express(harbour: Harbour) -> None:
    """Express from npm, by a package-lock.json that names no registry."""
    app = harbour.app(BUILT / "node" / "npm", "express")
    live(harbour, app, "express", "express at sea, production")
    again(harbour, app, "express", "server.js", "at sea", "ashore")


def test_rack(harbour: Harbour) -> None:
    """A Rack app under WEBrick with Debian's gems; nothing is fetched, the first time or later."""
    app = harbour.app(BUILT / "ruby" / "rack", "rack")
    assert "Using the ship's own gems" in live(harbour, app, "rack", "rack at sea").text
    text = (app.path / "config.ru").read_text()
    app.commit({"config.ru": text.replace("at sea", "ashore")})
    assert "Using the ship's own gems" in live(harbour, app, "rack", "rack ashore").text


def test_static_site(harbour: Harbour) -> None:
    """Plain files with the settings of a static.json: pages, clean URLs, headers, its own 404."""
    app = harbour.app(BUILT / "static" / "site", "site")
    url = live(harbour, app, "site", "<h1>static at sea</h1>").url
    about = harbour.get(f"{url}about")
    assert (about.text.strip(), about.headers["X-Wind"]) == ("<h1>about</h1>", "north; 7")
    assert harbour.get(f"{url}app/any/where").text.strip() == "<h1>static at sea</h1>"
    lost = harbour.get(f"{url}nowhere")
    assert (lost.status, lost.text.strip()) == (404, "<h1>lost at sea</h1>")
    assert "immutable" in harbour.get(f"{url}assets/site.3f9a1c2e.css").headers["Cache-Control"]
    app.commit({"index.html": "<h1>static ashore</h1>"})
    live(harbour, app, "site", "<h1>static ashore</h1>")


def test_plain_shell(harbour: Harbour) -> None:
    """A Procfile and nothing to install; the command is a shell's, with variables and pipes."""
    app = harbour.app(
        {
            "Procfile": '# what runs\nweb: cd hold && echo "$CARGO" | tr a-z A-Z > index.html; '
            "exec python3 -m http.server $PORT --bind 127.0.0.1\n",
            "hold/.gitkeep": "",
            ".env": "CARGO='rum & sugar'\n",
        },
        "shell",
    )
    live(harbour, app, "shell", "RUM & SUGAR")
    app.commit({".env": "CARGO='tea; coffee'\n"})
    live(harbour, app, "shell", "TEA; COFFEE")


def test_a_buildpack_from_elsewhere(tmp_path: Path, packs: GitServer) -> None:
    """BUILDPACK_URL: a buildpack in git, fetched over https, with its cache, ENV_DIR, .profile.d,
    config_vars and default process; fetched again when its branch has moved."""
    roots, bare = tmp_path / "roots.pem", tmp_path / "served" / "make-buildpack.git"
    roots.write_text(ROOTS.read_text() + packs.pem.read_text().partition("-----BEGIN PRIV")[0])
    with Harbour(tmp_path / "harbour", {"SSL_CERT_FILE": str(roots)}) as harbour:
        harbour.up()
        pack = harbour.app(REAL / "make-buildpack", "make-buildpack")
        pack.git("clone", "-q", "--bare", str(pack.path), str(bare))
        app = harbour.app(REAL / "tide", "tide")
        url = f"BUILDPACK_URL={packs.url}/make-buildpack.git#master\n"
        app.commit({".env": f"{url}SAYS=ahoy\n"})
        said = live(harbour, app, "tide", "<h1>ahoy at high tide</h1>")
        assert "Make app detected" in said.text
        assert harbour.get(f"{said.url}language").text == "make\n"
        app.commit({".env": f"{url}SAYS=aye\n"})
        fetches = fetched(packs)
        said = live(harbour, app, "tide", "<h1>aye at high tide</h1>")
        assert "Using cached dependencies (Makefile unchanged)" in said.text
        assert fetched(packs) == fetches
        pack.commit({"bin/detect": "#!/bin/sh\necho Newer make\n"})
        pack.git("push", "-q", str(bare), "master")
        app.commit({})
        said = live(harbour, app, "tide", "<h1>aye at high tide</h1>")
        assert "Newer make app detected" in said.text


def test_roots_of_the_ship_reach_builds(tmp_path: Path) -> None:
    """A ship whose certificates are in a file of its own (SSL_CERT_FILE) installs from the
    registry as before: what a build is told to read, it can read."""
    roots = tmp_path / "roots.pem"
    roots.write_text(ROOTS.read_text())
    with Harbour(tmp_path / "harbour", {"SSL_CERT_FILE": str(roots)}) as harbour:
        harbour.up()
        app = harbour.app(BUILT / "python" / "flask", "flask")
        live(harbour, app, "flask", "flask at sea")


def fetched(server: GitServer) -> int:
    """How many requests there were for the pack's objects, beyond the listing of its refs."""
    posts = server.requests.count("/make-buildpack.git/git-upload-pack")
    return posts - server.requests.count("/make-buildpack.git/info/refs?service=git-upload-pack")


def test_two_apps_of_one_name_and_branch_do_not_mix(harbour: Harbour) -> None:
    """A name that was a Flask app and becomes plain files is plain files, and back."""
    app = harbour.app(web("python"), "changing")
    live(harbour, app, "changing", "python")
    app.git("rm", "-q", "-r", ".")
    app.commit({"index.html": "files"})
    live(harbour, app, "changing", "files")
    app.git("revert", "--no-edit", "HEAD")
    live(harbour, app, "changing", "python")
