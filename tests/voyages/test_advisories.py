"""Holes that others fell into, each tried against the real ship with what made it one.

`tests/receiver/test_ssh_advisories.py` holds those of the SSH protocol itself.
"""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path

import psutil
import pytest

from tests.voyages.apps import slow_build, web
from tests.voyages.harbour import App, Harbour, Said, until
from tests.voyages.test_watching import read_until
from tests.voyages.wire import ZERO, command, packed, receive_pack, verdict

OF_THE_SHIP = "only-the-ship-knows-this"  # in the environment of the ship's process
MB = 2**20
SAFE = re.compile(r"(?:[^\x00-\x08\x0b-\x1f\x7f-\x9f]|\x1b\[[0-9;:]*m)*")


@pytest.fixture(scope="module")
def harbour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harbour]:
    """One ship for all of them, with a directory that everybody could write to, and nobody may."""
    settings = {"AWS_SECRET_ACCESS_KEY": OF_THE_SHIP}
    with Harbour(tmp_path_factory.mktemp("harbour"), settings) as harbour:
        canary(harbour).mkdir()
        canary(harbour).chmod(0o777)
        harbour.up()
        harbour.app(web("bystander"), "bystander").push("bystander")
        yield harbour


@pytest.fixture(autouse=True)
def nothing_escapes(harbour: Harbour) -> Iterator[None]:
    """After each of them nothing was written where only an escape could write, and who had
    nothing to do with it serves as before."""
    yield
    assert list(canary(harbour).iterdir()) == []
    assert harbour.get(f"http://bystander.localhost:{harbour.http_port}/").text == "bystander"


def canary(harbour: Harbour) -> Path:
    return harbour.home / "canary"


def touch(harbour: Harbour, name: str = "escaped") -> str:
    """A shell command that must never run where the canary is."""
    return f"touch {canary(harbour)}/{name}"


def services(harbour: Harbour) -> set[str]:
    status = json.loads(harbour.starphleet("status", "--json").text)
    return {service["service"] for service in status["services"]}


def repository(harbour: Harbour, name: str) -> Path:
    return harbour.root / "repositories" / f"{name}.git"


def refused(app: App, name: str, reason: str, refspec: str = "master") -> Said:
    """A push that fails for this reason."""
    said = app.push(name, refspec, check=False)
    assert said.status != 0, said.text
    assert reason in said.text, said.text
    return said


def numbered(text: str) -> str:
    """A short name for a case."""
    return sha256(text.encode()).hexdigest()[:8]


# Names and arguments


@pytest.mark.parametrize("verb", ["git-receive-pack", "git-upload-pack"])
def test_cve_2017_8386_repository_names(harbour: Harbour, verb: str) -> None:
    """git-shell's `--help` that opened a pager: a name that is an option, a path, a pattern or no
    name at all is refused by its grammar, quoted or not, and makes no file."""
    before = sorted(harbour.root.rglob("*.git"))
    names = [
        "--help", "-x", f"--upload-pack={touch(harbour)}", "-oProxyCommand=id", "", ".", "..", "/",
        ".git", "../bystander", "a/../bystander", "/etc/passwd", "//bystander", "bystander/", "bystander.", "BYSTANDER",
        "by*", "~root", "~/x", "$HOME", "$(id)", "`id`", "a;id", "a|id", "a&id", "a\nb", "a\tb",
        "a\rb", "bystander.git.git", "bystаnder", "ｂystander", "a" * 64, "a" * 4096, "headquarters",
    ]  # fmt: skip
    for name in names:
        for quote in ("'", ""):
            said = command(harbour, f"{verb} {quote}{name}{quote}")
            assert said.status == 1, (name, said.text)
            assert said.text.startswith("starphleet: "), (name, said.text)
            assert said.text.count("\n") == 1, (name, said.text)
    assert sorted(harbour.root.rglob("*.git")) == before


@pytest.mark.parametrize("name", ["'a' 'b'", "'a'b", "'a'\\''b'", "a", "'a' --x", "--x 'a'", "\"a\""])
def test_cve_2018_20683_options_beside_the_name(harbour: Harbour, name: str) -> None:
    """gitolite's rsync, gitolite's quoting: the command is one verb and one quoted name, or
    nothing."""
    said = command(harbour, f"git-upload-pack {name}")
    assert said.status == 1
    assert "is not for this account" in said.text


def test_only_git_verbs(harbour: Harbour) -> None:
    """The account for git runs git-receive-pack and git-upload-pack: no shell, no copy program, no
    archive, no option of git, nothing before or behind."""
    for words in (
        "id", "sh", "bash -c id", f"sh -c '{touch(harbour)}'", "scp -t /tmp", "scp -f /etc/passwd",
        "rsync --server . /tmp", "sftp-server", "internal-sftp", "/usr/lib/openssh/sftp-server",
        "git-upload-archive 'bystander'", "git upload-archive 'bystander'", "git-shell", "git",
        "git-lfs-authenticate 'bystander' upload", "git-receive-pack", "git-receive-pack --foo",
        "git-receive-pack --help 'bystander'", "git --exec-path=/tmp receive-pack 'bystander'",
        f"git-upload-pack 'bystander'; {touch(harbour)}", f"git-upload-pack 'bystander' && {touch(harbour)}",
        "git-upload-pack 'bystander'\nid", " git-upload-pack 'bystander'", "GIT-UPLOAD-PACK 'bystander'",
        "git-upload-pack 'bystander' ", "git  upload-pack 'bystander'", "/usr/bin/git-upload-pack 'bystander'",
    ):  # fmt: skip
        said = command(harbour, words)
        assert said.status == 1, (words, said.text)
        assert "is not for this account; it takes git push and git fetch" in said.text, words
    assert subprocess.run(
        ["scp", *harbour.ssh[1:], "-P", str(harbour.ssh_port), "git@localhost:/etc/passwd", "."],
        cwd=harbour.home, capture_output=True, check=False,
    ).returncode != 0  # fmt: skip
    assert not (harbour.home / "passwd").exists()


def test_cve_2022_42968_branches_that_are_options(harbour: Harbour) -> None:
    """Gitea's `git fetch` with a branch for an option: a branch that begins with a dash is refused."""
    app = harbour.app(web(), "dashes")
    for branch in ("--output=x", "-x", "--", f"--upload-pack={canary(harbour)}/escaped"):
        refused(app, "dashes", "begins with a dash", f"master:refs/heads/{branch}")
    assert "dashes" not in services(harbour)


@pytest.mark.parametrize(
    "branch", ["$(id)", "`id`", "a;id", "a|id&", "a'b", 'a"b', "$IFS", "a#b", "%2e%2e", "<b>", "!id", "{{7}}"]
)
def test_argument_injection_by_refs(harbour: Harbour, branch: str) -> None:
    """Gogs and Dokploy: whatever a shell, a template or a URL could make of a branch's name is the
    name of a branch, served at a host name of its own."""
    app = harbour.app(web(branch.replace("'", "")), f"refs-{branch.encode().hex()}")
    said = app.push("refs", f"master:refs/heads/{branch}")
    assert harbour.get(said.url).text == branch.replace("'", "")
    assert re.fullmatch(r"http://refs--[a-z0-9-]+\.localhost:\d+/", said.url)
    assert f"refs/heads/{branch}" in app.git("ls-remote", harbour.remote("refs")).text


BAD_REFS = [
    "HEAD", "config", "hooks/post-update", "../../evil", "refs/../hooks/post-update",
    "refs/heads/../../hooks/post-update", "refs/heads/../../HEAD", "refs/heads/a..b", "refs/heads/a b",
    "refs/heads/x.lock", "refs/heads/.x", "refs/heads//x", "refs/heads/x/", "refs/heads/x.", "refs/heads/@{0}",
    "refs/heads/x~1", "refs/heads/x^", "refs/heads/x:y", "refs/heads/x?", "refs/heads/x*", "refs/heads/x[",
    "refs/heads/x\\y", "refs/heads/\x1b]0;pwned\x07", "refs/heads/\x7f", "refs/heads/", "refs/heads",
    "refs/heads/-x", "refs/replace/x", "refs/notes/x", "refs/for/master", "refs/tags/../heads/x", "refs/stash",
]  # fmt: skip


def test_refs_that_git_would_not_send(harbour: Harbour) -> None:
    """Names of refs that are none, and refs that are no branches, sent by a client of our own:
    each is refused with a reason, nothing serves, no file appears beside git's own."""
    app = harbour.app(web("evil"), "evil")
    commit = app.git("rev-parse", "HEAD").text.strip()
    pack = packed(app, commit)
    for ref in BAD_REFS:
        said = receive_pack(harbour, "evil", [(ZERO, commit, ref)], pack)
        assert verdict(said, ref) not in ("", "ok") or said.status != 0, (ref, said.text)
        assert "is live with" not in said.text, ref
    assert not {name for name in services(harbour) if name.startswith("evil")}
    found = {path.name for path in repository(harbour, "evil").iterdir()}
    assert found <= {"HEAD", "config", "objects", "refs"}
    assert {path.name for path in (repository(harbour, "evil") / "refs").rglob("*")} == {"heads"}
    assert (repository(harbour, "evil") / "HEAD").read_text() == "ref: refs/heads/master\n"


def test_what_is_no_commit(harbour: Harbour) -> None:
    """A branch is not moved to what the ship does not have, nor to a tree or a file."""
    app = harbour.app(web("lacking"), "lacking")
    commit = app.git("rev-parse", "HEAD").text.strip()
    tree = app.git("rev-parse", "HEAD^{tree}").text.strip()
    blob = app.git("rev-parse", "HEAD:server.py").text.strip()
    for new in ("1" * 40, tree, blob):
        said = receive_pack(harbour, "lacking", [(ZERO, new, "refs/heads/master")], packed(app, commit))
        assert verdict(said, "refs/heads/master") not in ("", "ok") or said.status != 0, said.text
        assert "is live with" not in said.text
    assert "lacking" not in services(harbour)
    assert app.git("ls-remote", harbour.remote("lacking")).text == ""


# Hooks, configuration, environment


def test_hooks_are_outside_the_repositories(harbour: Harbour) -> None:
    """Gitea CVE-2026-60004: git's hooks are the ship's and not the repository's. What stands in a
    repository's `hooks`, or is named by its configuration, is never run."""
    app = harbour.app(web("hooks"), "hooks")
    app.push("hooks")
    inside = repository(harbour, "hooks")
    assert not (inside / "hooks").exists()
    (inside / "hooks").mkdir()
    for name in ("pre-receive", "update", "post-receive", "post-update", "proc-receive", "reference-transaction"):
        (inside / "hooks" / name).write_text(f"#!/bin/sh\n{touch(harbour, name)}\n")
        (inside / "hooks" / name).chmod(0o755)
    with (inside / "config").open("a") as config:
        config.write(f"\thooksPath = {inside / 'hooks'}\n[receive]\n\tprocReceiveRefs = none\n")
    app.commit(web("hooks again"))
    assert harbour.get(app.push("hooks").url).text == "hooks again"
    hooks = harbour.root / "run" / "hooks"
    assert (hooks.stat().st_uid, stat.S_IMODE(hooks.stat().st_mode)) == (os.getuid(), 0o700)


def test_cve_2024_41956_environment_of_git(harbour: Harbour) -> None:
    """soft-serve and Gogs: git and its hooks on the ship have an environment that is made for
    them; nothing of the client's is in it but GIT_PROTOCOL, nothing of the ship's."""
    app = harbour.app(slow_build("environment", "sleep 3"), "environment")
    hostile = {"LD_PRELOAD": "/x.so", "GIT_DIR": "/x", "BASH_ENV": "/x", "GIT_CONFIG_PARAMETERS": "'a.b=c'"}
    sent = " ".join(f"-o SendEnv={name}" for name in ("GIT_PROTOCOL", *hostile))
    argv = ["git", "-c", f"core.sshCommand={' '.join(harbour.ssh)} {sent}", "push", harbour.remote("environment"), "master"]
    env = {name: value for name, value in harbour.git_env.items() if name != "GIT_SSH_COMMAND"}
    preloaded = f"#!/bin/sh\nexport {' '.join(f'{k}={v!r}' for k, v in hostile.items())}\nexec ssh \"$@\"\n"
    wrapper = harbour.home / "ssh"
    wrapper.write_text(preloaded.replace("LD_PRELOAD='/x.so' ", "LD_PRELOAD= "))
    wrapper.chmod(0o755)
    argv[2] = argv[2].replace("core.sshCommand=ssh", f"core.sshCommand={wrapper}")
    push = subprocess.Popen(
        argv, cwd=app.path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    read_until(push, "building")
    found = {}
    for process in harbour.ship.children(recursive=True):
        line = " ".join(process.cmdline())
        if str(repository(harbour, "environment")) in line or "proc-receive" in line:
            found[line] = process.environ()
    push.communicate()
    assert any("receive-pack" in line for line in found), found
    assert any("proc-receive" in line for line in found), found
    for environ in found.values():
        assert OF_THE_SHIP not in environ.values()
        assert not {name for name in environ if name in hostile and name != "GIT_DIR"}
        assert {name for name in environ if not name.startswith(("GIT_", "STARPHLEET_"))} <= {"PATH", "HOME", "LC_ALL"}


def test_environment_of_services_and_builds(harbour: Harbour) -> None:
    """Neither a build nor a service sees a variable of the ship's own process."""
    app = harbour.app(
        {"Procfile": "web: env > seen; exec python3 -m http.server $PORT\n",
         "package.json": json.dumps({"name": "x", "version": "1.0.0", "scripts": {"build": "env > built"}})},
        "seen",
    )  # fmt: skip
    url = app.push("seen").url
    for file in ("seen", "built"):
        text = harbour.get(url + file).text
        assert "PATH=" in text
        assert OF_THE_SHIP not in text
        assert "STARPHLEET_SOCKET" not in text
        assert str(harbour.root) not in text


def test_env_values_do_not_reach_a_shell(harbour: Harbour) -> None:
    """Dokku #8588, #8590: values of `.env` are data, whatever a shell would make of them; the
    service gets them byte for byte."""
    values = {
        "A": f"$({touch(harbour)})", "B": f"`{touch(harbour)}`", "C": f"; {touch(harbour)} #",
        "D": f"' ; {touch(harbour)} ; '", "E": f'" ; {touch(harbour)} ; "', "F": f"a\n{touch(harbour)}\n",
        "G": "${HOME} $HOME ~ * ? \\ \\\\", "H": f"}}; {touch(harbour)}; {{", "I": "\x1b[2J", "J": " a  b ",
        "BASH_ENV": "/app/evil.sh", "ENV": "/app/evil.sh", "PS4": f"$({touch(harbour)})",
        "PROMPT_COMMAND": touch(harbour), "LD_PRELOAD": "/app/evil.so", "LD_LIBRARY_PATH": "/app",
        "PYTHONSTARTUP": "/app/evil.py", "GIT_SSH_COMMAND": touch(harbour),
    }  # fmt: skip
    quoted = {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in values.items()}
    app = harbour.app(
        {
            **web(),
            ".env": "".join(f'{name}="{value}"\n' for name, value in quoted.items()),
            "evil.sh": f"{touch(harbour)}\n",
            "server.py": "import json, os, http.server as h\n"
            "class A(h.BaseHTTPRequestHandler):\n"
            "    def do_GET(self):\n"
            "        self.send_response(200); self.end_headers()\n"
            "        self.wfile.write(json.dumps(dict(os.environ)).encode())\n"
            "h.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), A).serve_forever()\n",
        },
        "values",
    )
    got = json.loads(harbour.get(app.push("values").url).text)
    assert {name: got.get(name) for name in values} == values


# Trees
#
# The links lead to nothing that would matter if a guard were gone: tests may run as root.


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
    secrets = {"ledger": harbour.root / "ledger.sqlite", "victim": victim, "key": harbour.root / "ssh_host_ed25519_key"}
    app = harbour.app({"Procfile": "web: echo x > canary/escaped; python3 -m http.server $PORT\n"}, "trees")
    links = {"canary": canary(harbour), "up": Path("../../.."), "root": harbour.root, **secrets}
    for name, target in links.items():
        (app.path / name).symlink_to(target)
    app.commit({})
    before = {path: path.stat() for path in (*secrets.values(), harbour.root, harbour.root / "containers")}
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
        ({"static.json": '{"root": "../.."}'}, {}, "root '../..' is not a directory inside the app"),
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
    for name, target in {"a": harbour.root / "ledger.sqlite", "b": harbour.home, "c": harbour.key}.items():
        (app.path / name).symlink_to(target)
    app.commit({})
    url = app.push("pages").url
    assert harbour.get(url).text == "home"
    for name in ("a", "b/", "c", "../../../etc/passwd", "..%2f..%2f..%2fetc/passwd", ".git/config", ".env"):
        assert harbour.get(url + name).status in (400, 403, 404), name


@pytest.mark.parametrize(
    "url", ["ext::sh -c touch% CANARY", "--upload-pack=touch CANARY", "/etc", "-u./x", "file:///etc"]
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
    """An ordinary submodule keeps no app from being served."""
    section = '[submodule "x"]\n\tpath = x\n\turl = https://example.com/x.git\n'
    app = harbour.app({".gitmodules": section, "index.html": "home"}, "submodule")
    commit = app.git("rev-parse", "HEAD").text.strip()
    app.git("update-index", "--add", "--cacheinfo", f"160000,{commit},x")
    app.git("commit", "-q", "-m", "a submodule")
    assert harbour.get(app.push("submodule").url).text == "home"
    (container,) = (harbour.root / "containers").glob("submodule-*")
    assert list((container / "app" / "x").iterdir()) == []


def test_cve_2022_41903_export_subst(harbour: Harbour) -> None:
    """The commit's bytes are what is served: nothing in them is a format, a filter or a program,
    whatever their attributes say."""
    formats = "$Format:%>(2147483647)%an$ $Format:%H$ $Id$\r\n"
    app = harbour.app(
        {
            ".gitattributes": "*.txt export-subst filter=evil diff=evil merge=evil\ngone.txt export-ignore\n",
            "index.html": "", "a.txt": formats, "gone.txt": "here",
        },
        "attributes",
    )  # fmt: skip
    url = app.push("attributes").url
    assert harbour.get(f"{url}a.txt").text == formats
    assert harbour.get(f"{url}gone.txt").text == "here"


# Objects


def objects_of(harbour: Harbour, name: str) -> set[str]:
    return {path.name for path in (repository(harbour, name) / "objects").rglob("*") if path.is_file()}


def broken_tree(app: App, *entries: tuple[str, str, str]) -> str:
    """A commit of a tree that git would not write: (mode, name, object) each."""
    tree = b"".join(f"{mode} {name}\0".encode() + bytes.fromhex(oid) for mode, name, oid in entries)
    return broken_commit(app, written(app, "tree", tree))


def broken_commit(app: App, tree: str, author: str = "A <a@b> 1700000000 +0000") -> str:
    text = f"tree {tree}\nauthor {author}\ncommitter A <a@b> 1700000000 +0000\n\nx\n"
    return written(app, "commit", text.encode())


def written(app: App, kind: str, data: bytes) -> str:
    argv = ["git", "hash-object", "-t", kind, "-w", "--stdin", "--literally"]
    return subprocess.run(argv, cwd=app.path, input=data, capture_output=True, check=True).stdout.decode().strip()


def test_broken_objects_are_refused(harbour: Harbour) -> None:
    """CVE-2014-9390, CVE-2018-11235: objects that git's own checks find wrong (`.git` or `..` in a
    tree, a name twice, a link for .gitmodules, a commit that is none) are refused on arrival."""
    app = harbour.app(web("broken"), "broken")
    blob = written(app, "blob", b"/etc/passwd")
    tree = app.git("rev-parse", "HEAD^{tree}").text.strip()
    cases = {
        "hasDotgit": broken_tree(app, ("40000", ".git", tree)),
        "hasDotdot": broken_tree(app, ("40000", "..", tree)),
        "hasDot": broken_tree(app, ("40000", ".", tree)),
        "fullPathname": broken_tree(app, ("100644", "a/../../b", blob)),
        "duplicateEntries": broken_tree(app, ("120000", "a", blob), ("40000", "a", tree)),
        "gitmodulesSymlink": broken_tree(app, ("120000", ".gitmodules", blob)),
        "missingEmail": broken_commit(app, tree, "A 1700000000 +0000"),
        "badTree": broken_commit(app, "0" * 40),
        "missingNameBeforeEmail": broken_commit(app, tree, "<a@b> 1700000000 +0000"),
    }
    for what, commit in cases.items():
        said = receive_pack(
            harbour, "broken", [(ZERO, commit, "refs/heads/master")], packed_objects(app, commit)
        )
        assert verdict(said, "refs/heads/master") not in ("", "ok"), (what, said.text)
        assert "is live with" not in said.text, what
    assert "broken" not in services(harbour)
    assert objects_of(harbour, "broken") == set()
    assert harbour.get(app.push("broken").url).text == "broken"


def packed_objects(app: App, commit: str) -> bytes:
    """A pack of everything loose in the repository; git will not walk what is broken."""
    listed = app.git("cat-file", "--batch-all-objects", "--batch-check=%(objectname)").text
    argv = ["git", "pack-objects", "--stdout", "-q"]
    return subprocess.run(
        argv, cwd=app.path, env=app.harbour.git_env, input=listed.encode(), capture_output=True, check=True
    ).stdout


def test_a_pack_that_is_cut_or_changed(harbour: Harbour) -> None:
    """Half a pack, a pack with a byte changed and no pack at all are refused, and leave nothing."""
    app = harbour.app(web("cut"), "cut")
    commit = app.git("rev-parse", "HEAD").text.strip()
    pack = packed(app, commit)
    changed = bytearray(pack)
    changed[len(pack) // 2] ^= 0xFF
    for wrong in (pack[: len(pack) // 2], bytes(changed), b"", b"PACK" + b"\xff" * 100):
        said = receive_pack(harbour, "cut", [(ZERO, commit, "refs/heads/master")], wrong)
        assert verdict(said, "refs/heads/master") != "ok"
        assert "is live with" not in said.text
    assert objects_of(harbour, "cut") == set()
    assert "cut" not in services(harbour)


def test_pack_over_the_limit(tmp_path: Path) -> None:
    """STARPHLEET_MAX_PACK: a larger pack is refused while it arrives, and leaves nothing behind."""
    with Harbour(tmp_path / "harbour", {"STARPHLEET_MAX_PACK": "1M"}) as harbour:
        harbour.up()
        app = harbour.app(web("small"), "limit")
        url = app.push("limit").url
        (app.path / "cargo").write_bytes(os.urandom(3 * MB))
        app.commit({})
        before = objects_of(harbour, "limit")
        refused(app, "limit", "pack exceeds maximum allowed size")
        assert objects_of(harbour, "limit") == before
        assert harbour.get(url).text == "small"


def test_output_over_the_limit(tmp_path: Path) -> None:
    """STARPHLEET_BUILD_OUTPUT: a build that never stops talking is ended, and says so last."""
    with Harbour(tmp_path / "harbour", {"STARPHLEET_BUILD_OUTPUT": "1M"}) as harbour:
        harbour.up()
        app = harbour.app(slow_build("loud", "tr '\\\\0' x < /dev/zero"), "loud")
        said = refused(app, "loud", "printed more than 1048576 bytes")
        assert "printed more than 1048576 bytes" in said.remote[-1]
        assert len(said.text) < 2 * MB


def test_output_that_nobody_reads(harbour: Harbour) -> None:
    """A client that stands still while its build talks costs the ship no memory; when it goes on
    it is told what was left out, and how the push ended."""
    app = harbour.app(slow_build("still", "yes | head -c 3000000; echo said"), "still")
    push = app.pushing("still")
    seen = read_until(push, "building")
    os.killpg(push.pid, signal.SIGSTOP)
    before = harbour.ship.memory_info().rss
    until(lambda: "still" in services(harbour), "the build is over")
    grown = harbour.ship.memory_info().rss - before
    os.killpg(push.pid, signal.SIGCONT)
    assert push.stdout is not None
    said = seen + push.stdout.read().decode()
    assert push.wait() == 0
    assert grown < 16 * MB
    assert re.search(r"\(\d{6,} lines left out", said)
    assert "       said" in said
    assert f"http://still.localhost:{harbour.http_port}/" in said


# Buildpacks from elsewhere


@pytest.mark.parametrize(
    "url",
    [
        "/etc", "../..", "file:///etc", "FILE:///etc", "ext::sh -c touch% CANARY", "fd::7", "git://localhost/x",
        "http://localhost/x.git", "ftp://localhost/x", "--upload-pack=touch CANARY", "-oProxyCommand=touch CANARY",
        "ssh://-oProxyCommand=touch%20CANARY/x", "ssh://x@-oProxyCommand=y/z", "git@-oProxyCommand=x:y",
        "git@localhost:-x", "https://user:secret-word@localhost/x", "https://localhost/../x", "https://localhost/x#-x",
        "https://localhost/x#--upload-pack=y", "https://localhost/x#a..b", "https://localhost/x y", "https://localhost/$(id)",
        "https://localhost/x;id", "transport::https://localhost/x", "C:\\x", "https://", "https:///etc", "$HOME", "~/x",
    ],
)  # fmt: skip
def test_cve_2026_33353_buildpack_urls(harbour: Harbour, url: str) -> None:
    """soft-serve's local imports: a buildpack comes by https or ssh from a well-formed URL; a path
    of the ship's, a helper program or an option is refused before git sees it."""
    value = url.replace("CANARY", f"{canary(harbour)}/escaped")
    app = harbour.app({**web(), ".env": f"BUILDPACK_URL='{value}'\n"}, f"pack-{numbered(url)}")
    said = refused(app, "packs", "BUILDPACK_URL")
    assert "Fetching the buildpack" not in said.text
    assert "secret-word" not in said.text
    assert list((harbour.root / "buildpacks").iterdir()) == []


# What the world sees


def test_nginx_injection_by_names(harbour: Harbour) -> None:
    """ingress-nginx CVE-2021-25742, CVE-2025-1974: no name gets a character into nginx's
    configuration that means something there, and a name never keeps others from being served."""
    app = harbour.app(web("named"), "nginx")
    for branch in ("a;return", "a}b", "{{7}}", "{%x%}", "$host", "a#b", "x'y", 'x"y', "\u2028", "\u202e", "é"):
        said = app.push("nginx", f"master:refs/heads/{branch}")
        assert harbour.get(said.url).text == "named", branch
        app.commit(web("named"))
    text = (harbour.root / "nginx" / "current" / "nginx.conf").read_text()
    names = set(re.findall(r'set \$sp_service "([^"]+)"', text))
    assert all(re.fullmatch(r"[a-z0-9-]{1,63}", name) for name in names)
    assert not any(mark in text for mark in ("a;return", "\u2028", "\u202e", "é", "{{", "%x"))
    for name in ("a;b", "a}b", "a b", "a$b", "a\nb", "{{7}}", 'a"b'):
        assert command(harbour, f"git-receive-pack '{name}'").status == 1


def test_requests_that_speak_to_the_proxy(harbour: Harbour) -> None:
    """No request from outside reaches nginx's control, another service by a header, or comes back
    as a script in a page of the proxy's own; there is no page to set a ship up (Dokku #2211)."""
    port = harbour.http_port
    base = f"http://localhost:{port}/"
    for path in ("", "backends", "open/x", "workers", "control/socket", "setup", "install", "admin", "api", "../x", "%2e%2e/x"):
        assert harbour.get(base + path).status in (400, 404), path
    host = "<script>alert(1)</script>"
    page = harbour.get(base, {"Host": host, "Accept": "text/html"})
    assert "<script>" not in page.text
    page = harbour.get(f"{base}%3Cscript%3Ealert(1)%3C/script%3E", {"Accept": "text/html"})
    assert "<script>" not in page.text
    for name in ("X-Accel-Redirect", "X-Starphleet-Service", "X-Forwarded-Host", "X-Original-URL"):
        answer = harbour.get(base, {name: f"bystander.localhost:{port}"})
        assert answer.status == 404


# What people read


ESCAPES = "\x1b]0;pwned\x07\x1b[2J\x1b[1;1H\x9b31m\x1b]52;c;cm0gLXJm\x07\x1bP+q\x1b\\\x1b[?1049h\x08\x08\x00\x7f\u202e"


def test_terminal_escapes_in_output(harbour: Harbour) -> None:
    """soft-serve CVE-2025-64494, git CVE-2024-52005: what a build, a failing service, an author or
    a branch says commands no terminal, in the pusher's output and in the ship's log."""
    script = f"process.stdout.write({json.dumps(ESCAPES + 'from the build')} + '\\n')"
    app = harbour.app(
        {
            "package.json": json.dumps({"name": "x", "version": "1.0.0", "scripts": {"build": "node say.js"}}),
            "say.js": script, "Procfile": "web: node say.js; exit 3\n",
        },
        "escapes",
    )  # fmt: skip
    app.git("config", "user.name", "x")
    env = {"GIT_AUTHOR_NAME": f"A{ESCAPES}".replace("\0", ""), "GIT_COMMITTER_NAME": "A\x1b[2JB"}
    subprocess.run(
        ["git", "commit", "-q", "--allow-empty", "-m", ESCAPES.replace("\0", "")],
        cwd=app.path, env=harbour.git_env | env, check=True,
    )  # fmt: skip
    log = len(harbour.log)
    for branch in ("master", "\u009b31m", "\u202eevil"):
        said = app.push("escapes", f"master:refs/heads/{branch}", check=False)
        assert said.status != 0
        assert said.text.count("from the build") == 2, said.text
        ours = "\n".join(said.remote)
        assert SAFE.fullmatch(ours), ascii(ours)
        assert not set("\u202e\u009b") & set(ours), ascii(ours)
    assert SAFE.fullmatch(harbour.log[log:]), ascii(harbour.log[log:])
    said = app.push("escapes", "master", "-o", "\x1b[2Jpwned\u202e", check=False)
    assert SAFE.fullmatch("\n".join(said.remote))
    assert "is not known" in said.text


def test_secrets_not_shown(harbour: Harbour) -> None:
    """A value of `.env` is in the service's environment and nowhere else: not in any command line
    while it is built or serves, not in what the pusher reads, the ship's log, the configuration
    of nginx or a page; what the ship keeps of it is for the ship's user alone."""
    secret = "correct-horse-battery"
    files = slow_build("secretive", "sleep 2")
    app = harbour.app({**files, ".env": f"{files['.env']}SECRET={secret}\n"}, "secretive")
    push = app.pushing("secretive")
    seen = read_until(push, "building")
    building = command_lines()
    assert push.stdout is not None
    said = seen + push.stdout.read().decode()
    assert push.wait() == 0
    serving = command_lines()
    assert any("secretive" in line for line in building)
    assert not any(secret in line for line in building + serving)
    assert secret not in said
    assert secret not in harbour.log
    assert secret not in harbour.starphleet("status").text + harbour.starphleet("status", "--json").text
    for page in ("", "env", ".env", "~secretive/.env"):
        assert secret not in harbour.get(f"http://secretive.localhost:{harbour.http_port}/{page}").text
    for path in harbour.root.rglob("*"):
        if path.is_file() and not path.is_symlink() and secret.encode() in path.read_bytes():
            assert readable_by_nobody_else(harbour, path), path


def command_lines() -> list[str]:
    return [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]


def readable_by_nobody_else(harbour: Harbour, path: Path) -> bool:
    """Whether the file, or a directory on the way to it, is closed to other users."""
    way = [path, *(parent for parent in path.parents if parent.is_relative_to(harbour.root))]
    return any(each.stat().st_mode & (0o004 if each == path else 0o001) == 0 for each in way)


def test_services_cannot_reach_the_ship(harbour: Harbour) -> None:
    """CVE-2026-22253 and its like: code that runs on a ship cannot ask the ship for anything. Its
    sockets, its files, other services' files and processes are out of reach."""
    probe = (
        "import json, os, socket, sys\n"
        "def connects(path):\n"
        "    try: socket.socket(socket.AF_UNIX).connect(path); return True\n"
        "    except OSError: return False\n"
        "root = sys.argv[1]\n"
        "found = {p: connects(f'{root}/{p}') for p in ('run/ship', 'nginx/control/socket')}\n"
        "found['root'] = os.path.exists(root)\n"
        "found['processes'] = len([p for p in os.listdir('/proc') if p.isdigit()]) > 20\n"
        "found['uid'] = os.getuid() == 0\n"
        "for path in ('/root', '/etc/shadow', '/etc/ssh', '/var/lib', '/home'): found[path] = os.path.exists(path)\n"
        "try: os.mkdir('/usr/evil'); found['writes'] = True\n"
        "except OSError: found['writes'] = False\n"
        "open('index.html', 'w').write(json.dumps(found))\n"
    )
    app = harbour.app(
        {"Procfile": f"web: python3 probe.py {harbour.root} && exec python3 -m http.server $PORT\n", "probe.py": probe},
        "probe",
    )  # fmt: skip
    found = json.loads(harbour.get(app.push("probe").url).text)
    assert not {what for what, reached in found.items() if reached}
