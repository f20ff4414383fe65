"""What a pushed tree holds besides files: links, submodules, attributes.

The links lead to nothing that would matter if a guard were gone: tests may run as root.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.voyages.advisories.scene import canary, numbered, refused, services, touch
from tests.voyages.apps import SERVER, web
from tests.voyages.harbour import Harbour


def test_symlinks_that_the_platform_reads(harbour: Harbour) -> None:
    """Gogs CVE-2025-8110, Argo CVE-2022-24904: a link in place of a file that the ship itself
    reads is refused by name, wherever it leads."""
    for file in (".env", "Procfile", "healthcheck"):
        for target in ("/proc/version", "../../../ledger.sqlite", "server.py", str(harbour.key)):
            app = harbour.app(web(), f"link-{file.strip('.')}-{len(target)}")
            (app.path / file).unlink(missing_ok=True)
            (app.path / file).symlink_to(target)
            app.commit({})
            refused(app, "links", f"{file} is a symbolic link, it must be a regular file")
    assert "links" not in services(harbour)


def test_symlinks_in_pushed_trees(harbour: Harbour) -> None:
    """Dokku #8591: links in a tree lead a build, a service and the ship's own chown to nothing
    of the host's: nothing is read, written or given away through them."""
    victim = harbour.home / "victim"
    victim.write_text("the ship's own")
    victim.chmod(0o600)
    secrets = {
        "ledger": harbour.root / "ledger.sqlite",
        "victim": victim,
        "key": harbour.root / "ssh_host_ed25519_key",
    }
    app = harbour.app(
        {"Procfile": "web: echo x > canary/escaped; python3 -m http.server $PORT\n"}, "trees"
    )
    links = {"canary": canary(harbour), "up": Path("../../.."), "root": harbour.root, **secrets}
    for name, target in links.items():
        (app.path / name).symlink_to(target)
    app.commit({})
    before = {
        path: path.stat() for path in (*secrets.values(), harbour.root, harbour.root / "containers")
    }
    url = app.push("trees").url
    for name in (*secrets, "up/ledger.sqlite", "root/ledger.sqlite", "root/"):
        assert harbour.get(url + name).status == 404, name
    for path, was in before.items():
        now = path.stat()
        assert (now.st_uid, now.st_gid, now.st_mode) == (was.st_uid, was.st_gid, was.st_mode), path


@pytest.mark.parametrize(
    ("files", "links", "reason"),
    [
        ({"static.json": '{"root": "/etc"}'}, {}, "root '/etc' is not a directory inside the app"),
        (
            {"static.json": '{"root": "../.."}'},
            {},
            "root '../..' is not a directory inside the app",
        ),
        ({"Staticfile": "root: ../../.."}, {}, "is not a directory inside the app"),
        ({"static.json": '{"root": "www"}'}, {"www": "/proc"}, "root 'www' leads out of the app"),
        ({"Staticfile": "root: www"}, {"www": "../.."}, "root 'www' leads out of the app"),
        ({"index.html": ""}, {"static.json": "/proc/version"}, "static.json is not JSON"),
    ],
)
def test_static_sites_that_lead_out(
    harbour: Harbour, files: Mapping[str, str], links: Mapping[str, str], reason: str
) -> None:
    """The directory that a static site names, by its path or by a link, is one of the app's own."""
    app = harbour.app(files, f"static-{numbered(str(files) + str(links))}")
    for name, target in links.items():
        (app.path / name).symlink_to(target)
    app.commit({})
    said = refused(app, "leads", reason)
    assert "Linux" not in said.text


def test_static_sites_with_links_inside(harbour: Harbour) -> None:
    """A page that is a link to a file of the host is not served."""
    app = harbour.app({"index.html": "home"}, "pages")
    for name, target in {
        "a": harbour.root / "ledger.sqlite",
        "b": harbour.home,
        "c": harbour.key,
    }.items():
        (app.path / name).symlink_to(target)
    app.commit({})
    url = app.push("pages").url
    assert harbour.get(url).text == "home"
    for name in (
        "a",
        "b/",
        "c",
        "../../../etc/passwd",
        "..%2f..%2f..%2fetc/passwd",
        ".git/config",
        ".env",
    ):
        assert harbour.get(url + name).status in (400, 403, 404), name


@pytest.mark.parametrize(
    "url",
    ["ext::sh -c touch% CANARY", "--upload-pack=touch CANARY", "/etc", "-u./x", "file:///etc"],
)
def test_malicious_submodules(harbour: Harbour, url: str) -> None:
    """CVE-2017-1000117, CVE-2018-17456, CVE-2024-32002, CVE-2025-48384: a ship clones no
    submodule. Its configuration does nothing, whatever it says, and its directory is empty."""
    url = url.replace("CANARY", f"{canary(harbour)}/escaped")
    section = f'[submodule "x"]\n\tpath = x\n\turl = "{url}"\n\tupdate = !{touch(harbour)}\n'
    app = harbour.app({**web("with a submodule"), ".gitmodules": section}, f"sub-{numbered(url)}")
    commit = app.git("rev-parse", "HEAD").text.strip()
    app.git("update-index", "--add", "--cacheinfo", f"160000,{commit},x")
    app.git("commit", "-q", "-m", "a submodule")
    said = app.push("submodules", check=False)
    if said.status == 0:
        assert harbour.get(said.url).text == "with a submodule"
    else:
        assert "gitmodules" in said.text


def test_a_submodule_is_an_empty_directory(harbour: Harbour) -> None:
    """A submodule that no `.gitmodules` says where to find keeps no app from being served."""
    app = harbour.app({"index.html": "home"}, "submodule")
    commit = app.git("rev-parse", "HEAD").text.strip()
    app.git("update-index", "--add", "--cacheinfo", f"160000,{commit},x")
    app.git("commit", "-q", "-m", "a submodule")
    assert harbour.get(app.push("submodule").url).text == "home"
    assert list((harbour.built("submodule") / "x").iterdir()) == []


def test_cve_2022_41903_export_subst(harbour: Harbour) -> None:
    """The commit's bytes are what is served: nothing in them is a format, a filter or a program,
    whatever their attributes say."""
    formats = "$Format:%>(2147483647)%an$ $Format:%H$ $Id$\r\n"
    app = harbour.app(
        {
            ".gitattributes": "*.txt export-subst filter=evil diff=evil\ngone.txt export-ignore\n",
            "index.html": "",
            "a.txt": formats,
            "gone.txt": "here",
        },
        "attributes",
    )
    url = app.push("attributes").url
    assert harbour.get(f"{url}a.txt").text == formats
    assert harbour.get(f"{url}gone.txt").text == "here"


@pytest.mark.parametrize(
    "trick",
    [
        "mv /cache/build /cache/away; ln -s {target} /cache/build",
        "cd /cache/build; for d in *; do mv $d ../away; ln -s {target} $d; done",
        "rm -rf /cache/build; ln -s {target} /cache/build",
    ],
)
def test_a_build_does_not_lead_the_ship_elsewhere(harbour: Harbour, trick: str) -> None:
    """Gitea CVE-2026-60004, CVE-2025-58355: a build that puts a link where its own directory was
    makes the ship neither write nor serve what is behind it, now or at the next push."""
    name = f"tricky-{numbered(trick)}"
    target = harbour.home / f"behind-{name}"
    target.mkdir()
    target.chmod(0o755)
    (target / "server.py").write_text(SERVER.replace('os.environ.get("SAYS", "hello")', '"lost"'))
    script = trick.format(target=target)
    app = harbour.app(
        {
            **web("tricky"),
            "package.json": json.dumps(
                {"name": "x", "version": "1.0.0", "scripts": {"build": f"{script} || true"}}
            ),
        },
        name,
    )
    app.push(name, check=False)
    assert harbour.get(f"http://127.0.0.1/~{name}/").text != "lost"
    app.commit(web("honest") | {"package.json": '{"name": "x", "version": "1.0.1"}'})
    url = app.push(name).url
    assert harbour.get(url).text == "honest"
    assert [path.name for path in target.iterdir()] == ["server.py"]
