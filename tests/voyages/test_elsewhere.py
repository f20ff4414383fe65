"""Commits that keep something elsewhere: submodules, and files of Git LFS."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.buildpacks.gitserver import HERE, GitServer, HttpsServer, Place
from tests.ports import WORKER
from tests.voyages.base import PUBLIC, Base, says, wait_for
from tests.voyages.harbour import App, Harbour, until

LARGE = b"a large file\n"
OID = hashlib.sha256(LARGE).hexdigest()
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{OID}\nsize {len(LARGE)}\n"


@pytest.fixture(scope="module")
def place(runtime: str) -> Iterator[Place]:
    """A network beyond this host, for from a container no way leads to the host's loopback."""
    if os.geteuid() != 0:
        yield HERE
        return
    own, its = (f"203.0.113.{4 * WORKER + number}" for number in (1, 2))
    wire = f"far{os.getpid()}"
    with subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        inside = ["nsenter", f"--target={holder.pid}", "--net", "ip"]
        network = Path(f"/proc/{holder.pid}/ns/net")
        until(lambda: network.readlink() != Path("/proc/self/ns/net").readlink(), "it is there")
        for words in (
            ["ip", "link", "add", wire, "type", "veth", "peer", "eth0", "netns", str(holder.pid)],
            ["ip", "address", "add", f"{own}/30", "dev", wire],
            ["ip", "link", "set", wire, "up"],
            [*inside, "address", "add", f"{its}/30", "dev", "eth0"],
            [*inside, "link", "set", "eth0", "up"],
        ):
            subprocess.run(words, check=True)
        yield Place(its, holder.pid)
        holder.stdin.close()


@pytest.fixture(scope="module")
def server(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    server = GitServer(tmp_path_factory.mktemp("served"), place)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def harbour(
    runtime: str, tmp_path_factory: pytest.TempPathFactory, server: GitServer
) -> Iterator[Harbour]:
    settings = {"STARPHLEET_PULSE": "1", "SSL_CERT_FILE": str(server.pem)}
    with Harbour(tmp_path_factory.mktemp("harbour"), settings) as harbour:
        harbour.up()
        yield harbour


def publish(server: GitServer, name: str, app: App) -> Path:
    """Let `server` have what `app` has committed."""
    bare = Path(server.pem).parent / f"{name}.git"
    if not bare.exists():
        subprocess.run(["git", "init", "-q", "--bare", "-b", "master", str(bare)], check=True)
    app.git("push", "-q", str(bare), "HEAD:refs/heads/master")
    return bare


def submodule(app: App, at: str, url: str, commit: str) -> None:
    """Record a submodule without fetching it."""
    app.git("config", "-f", ".gitmodules", f"submodule.{at}.path", at)
    app.git("config", "-f", ".gitmodules", f"submodule.{at}.url", url)
    app.git("add", ".gitmodules")
    app.git("update-index", "--add", "--cacheinfo", f"160000,{commit},{at}")
    app.git("commit", "-q", "-m", "a submodule")


def test_submodules_come_at_their_commit(harbour: Harbour, server: GitServer) -> None:
    """Of a pushed app: a submodule is there at the commit that is recorded, not at its newest, and
    so is what it has for a submodule itself; nothing of git's is left in the app."""
    inner = harbour.app({"text": "inner\n"}, "inner")
    publish(server, "inner", inner)
    outer = harbour.app({"text": "outer\n"}, "outer")
    submodule(outer, "deep", "../inner.git", inner.git("rev-parse", "HEAD").text.strip())
    recorded = outer.git("rev-parse", "HEAD").text.strip()
    publish(server, "outer", outer)
    outer.git("rm", "-q", "--cached", "deep")
    outer.commit({"text": "newer\n"})
    publish(server, "outer", outer)
    app = harbour.app({"index.html": "site\n"}, "site")
    submodule(app, "lib", f"{server.url}/outer.git", recorded)
    url = app.push("site").url
    assert harbour.get(f"{url}lib/text").text == "outer\n"
    assert harbour.get(f"{url}lib/deep/text").text == "inner\n"
    containers = [*(harbour.root / "containers").glob("site-*")]
    assert not [found for one in containers for found in one.rglob(".git")]


def test_submodules_that_cannot_be_had(harbour: Harbour, server: GitServer) -> None:
    """A commit that is not there, a way that is not https, and a command for a URL are refused in
    words; nothing of it runs on the ship and nothing serves."""
    lost = "0123456789012345678901234567890123456789"
    for name, url, told in [
        ("lost", f"{server.url}/inner.git", "submodules could not be fetched"),
        ("shell", "git@localhost:inner.git", "only https is fetched"),
        ("local", str(harbour.root), "submodules could not be fetched"),
        ("ext", f"ext::touch {harbour.home}/escaped", "only https is fetched"),
        ("option", f"--upload-pack=touch {harbour.home}/escaped", "disallowed submodule url"),
        ("relative", "../inner.git", "submodules could not be fetched"),
    ]:
        app = harbour.app({"index.html": "site\n"}, name)
        submodule(app, "lib", url, lost)
        refused = app.push(name, check=False)
        assert refused.status == 1, name
        assert any(told in line for line in refused.remote), (name, refused.text)
    assert not (harbour.home / "escaped").exists()


def test_relative_submodules_of_orders(harbour: Harbour, server: GitServer) -> None:
    """Of an ordered service a relative URL means one beside its source."""
    publish(server, "part", part := harbour.app({"text": "part\n"}, "part"))
    app = harbour.app({"index.html": "whole\n"}, "whole")
    submodule(app, "part", "../part.git", part.git("rev-parse", "HEAD").text.strip())
    publish(server, "whole", app)
    base = Base.new(harbour)
    base.order({"whole/orders": f"{PUBLIC}autodeploy {server.url}/whole.git\n"})
    base.follow()
    wait_for(harbour, "whole/", "whole\n")
    assert says(harbour, "whole/part/text", "part\n")


class LargeFiles(HttpsServer):
    """A server of Git LFS that has one object."""

    def __init__(self, directory: Path, place: Place) -> None:
        self.has = {OID: LARGE}
        self.sent = 0
        super().__init__(directory / "server.pem", self.handler(), place)

    def handler(self) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.answer(json.dumps({"objects": [*map(self.one, asked["objects"])]}).encode())

            def one(self, asked: dict[str, object]) -> dict[str, object]:
                if asked["oid"] not in owner.has:
                    return {**asked, "error": {"code": 404, "message": "it is not here"}}
                return {**asked, "actions": {"download": {"href": f"{owner.url}/{asked['oid']}"}}}

            def do_GET(self) -> None:
                owner.sent += 1
                self.answer(owner.has[self.path[1:]])

            def answer(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "application/vnd.git-lfs+json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        return Handler


@pytest.fixture
def large(server: GitServer, place: Place) -> Iterator[LargeFiles]:
    large = LargeFiles(Path(server.pem).parent, place)
    yield large
    large.stop()


def files(large: LargeFiles, **more: str) -> dict[str, str]:
    return {
        "index.html": "site\n",
        "big": POINTER,
        ".gitattributes": "big* filter=lfs diff=lfs merge=lfs -text\n",
        ".lfsconfig": f"[lfs]\n\turl = {large.url}\n",
        **more,
    }


def test_large_files_replace_their_pointers(harbour: Harbour, large: LargeFiles) -> None:
    """A file of Git LFS is served with its content, and fetched once for all builds of the app; a
    missing one fails the push in words while the old version serves."""
    app = harbour.app(files(large), "photos")
    url = app.push("photos").url
    assert harbour.get(f"{url}big").text.encode() == LARGE
    app.commit({"index.html": "newer\n"})
    app.push("photos")
    assert harbour.get(f"{url}big").text.encode() == LARGE
    assert large.sent == 1
    app.commit({"big2": POINTER.replace(OID, OID[::-1])})
    refused = app.push("photos", check=False)
    assert refused.status == 1
    assert any("files of Git LFS could not be fetched" in line for line in refused.remote)
    assert harbour.get(url).text == "newer\n"


def test_large_files_of_a_submodule(harbour: Harbour, server: GitServer, large: LargeFiles) -> None:
    """A submodule's large files are fetched from where the submodule says they are, the app's from
    where the app says."""
    album = harbour.app(files(large), "album")
    publish(server, "album", album)
    app = harbour.app(files(large), "shelf")
    submodule(app, "album", f"{server.url}/album.git", album.git("rev-parse", "HEAD").text.strip())
    url = app.push("shelf").url
    for at in ("big", "album/big"):
        assert harbour.get(f"{url}{at}").text.encode() == LARGE


def test_large_files_from_nowhere(harbour: Harbour, large: LargeFiles) -> None:
    """A push whose large files are nobody knows where is refused with what to do."""
    pushed = files(large)
    del pushed[".lfsconfig"]
    refused = harbour.app(pushed, "nowhere").push("nowhere", check=False)
    assert refused.status == 1
    assert any(".lfsconfig" in line for line in refused.remote)


def test_a_ship_without_git_lfs_says_so(harbour: Harbour, large: LargeFiles) -> None:
    """Where git-lfs is not installed the pointers stay, and the push says so."""
    bare = harbour.home / "bin"
    bare.mkdir()
    for directory in ("/usr/sbin", "/bin", "/usr/bin"):
        for program in Path(directory).iterdir():
            if program.name != "git-lfs" and not (bare / program.name).exists():
                (bare / program.name).symlink_to(program)
    with Harbour(harbour.home / "other", {"PATH": str(bare)}) as other:
        other.up()
        app = other.app(files(large), "bare")
        pushed = app.push("bare")
        assert any("there is no git-lfs on this ship" in line for line in pushed.remote)
        assert other.get(f"{pushed.url}big").text == POINTER
