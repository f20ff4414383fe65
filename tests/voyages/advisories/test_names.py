"""Names that are something else as well: of repositories, of commands, of refs."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.voyages.advisories.scene import canary, refused, repository, services, touch
from tests.voyages.apps import web
from tests.voyages.harbour import Harbour
from tests.voyages.wire import ZERO, command, packed, receive_pack, verdict

BAD_NAMES = [
    r"--help",
    r"-x",
    r"-oProxyCommand=id",
    r".",
    r"..",
    r"/",
    r".git",
    r"../bystander",
    r"a/../bystander",
    r"/etc/passwd",
    r"//bystander",
    r"bystander/",
    r"bystander.",
    r"BYSTANDER",
    r"by*",
    r"~root",
    r"~/x",
    r"$HOME",
    r"$(id)",
    r"`id`",
    r"a;id",
    r"a|id",
    r"a&id",
    r"bystander.git.git",
    r"bystаnder",
    r"ｂystander",
]
BAD_COMMANDS = r"""
id
sh
bash -c id
scp -t /tmp
scp -f /etc/passwd
rsync --server . /tmp
sftp-server
internal-sftp
/usr/lib/openssh/sftp-server
git
git-shell
git-upload-archive 'bystander'
git upload-archive 'bystander'
git-lfs-authenticate 'bystander' upload
git-receive-pack
git-receive-pack --foo
git-receive-pack --help 'bystander'
git --exec-path=/tmp receive-pack 'bystander'
 git-upload-pack 'bystander'
git  upload-pack 'bystander'
git-upload-pack 'bystander' --x
GIT-UPLOAD-PACK 'bystander'
/usr/bin/git-upload-pack 'bystander'
""".strip("\n").splitlines()
BAD_REFS = [
    r"",
    r"HEAD",
    r"config",
    r"hooks/post-update",
    r"../../evil",
    r"refs/../hooks/post-update",
    r"refs/heads/../../hooks/post-update",
    r"refs/heads/../../HEAD",
    r"refs/tags/../heads/x",
    r"refs/heads/a..b",
    r"refs/heads/a b",
    r"refs/heads/x.lock",
    r"refs/heads/.x",
    r"refs/heads//x",
    r"refs/heads/x/",
    r"refs/heads/x.",
    r"refs/heads/@{0}",
    r"refs/heads/x~1",
    r"refs/heads/x^",
    r"refs/heads/x:y",
    r"refs/heads/x?",
    r"refs/heads/x*",
    r"refs/heads/x[",
    r"refs/heads/x\y",
    r"refs/heads/-x",
    r"refs/heads/",
    r"refs/heads",
    r"refs/replace/x",
    r"refs/notes/x",
    r"refs/for/master",
    r"refs/stash",
    r"",
][1:-1]


@pytest.mark.parametrize("verb", ["git-receive-pack", "git-upload-pack"])
def test_cve_2017_8386_repository_names(harbour: Harbour, verb: str) -> None:
    """git-shell's `--help` that opened a pager: a name that is an option, a path, a pattern or no
    name at all is refused by its grammar, quoted or not, and makes no file."""
    before = sorted(harbour.root.rglob("*.git"))
    option = f"--upload-pack={touch(harbour)}"
    names = (*BAD_NAMES, "", option, "a\nb", "a\tb", "a\rb", "a" * 64, "a" * 4096)
    for name in names:
        for quote in ("'", ""):
            said = command(harbour, f"{verb} {quote}{name}{quote}")
            assert said.status == 1, (name, said.text)
            assert said.text.startswith("starphleet: "), (name, said.text)
            assert said.text.count("\n") == 1, (name, said.text)
    assert sorted(harbour.root.rglob("*.git")) == before


@pytest.mark.parametrize("name", ["'a' 'b'", "'a'b", "'a'\\''b'", "a", "'a' --x", "--x 'a'", '"a"'])
def test_cve_2018_20683_options_beside_the_name(harbour: Harbour, name: str) -> None:
    """gitolite's rsync, gitolite's quoting: the command is one verb and one quoted name, or
    nothing."""
    said = command(harbour, f"git-upload-pack {name}")
    assert said.status == 1
    assert "is not for this account" in said.text


def test_only_git_verbs(harbour: Harbour) -> None:
    """The account for git runs git-receive-pack and git-upload-pack: no shell, no copy program, no
    archive, no option of git, nothing before or behind."""
    behind = f"git-upload-pack 'bystander'; {touch(harbour)}"
    for words in (*BAD_COMMANDS, behind, behind.replace(";", " &&"), behind.replace(";", "\n")):
        said = command(harbour, words)
        assert said.status == 1, (words, said.text)
        assert "is not for this account" in said.text, words
    assert subprocess.run(
        ["scp", *harbour.ssh[1:], "-P", str(harbour.ssh_port), "git@localhost:/etc/passwd", "."],
        cwd=harbour.home, capture_output=True, check=False,
    ).returncode != 0  # fmt: skip
    assert not (harbour.home / "passwd").exists()


def test_cve_2022_42968_branches_that_are_options(harbour: Harbour) -> None:
    """Gitea's `git fetch` with an option for a branch: what begins with a dash is refused."""
    app = harbour.app(web(), "dashes")
    for branch in ("--output=x", "-x", "--", f"--upload-pack={canary(harbour)}/escaped"):
        refused(app, "dashes", "begins with a dash", f"master:refs/heads/{branch}")
    assert "dashes" not in services(harbour)


@pytest.mark.parametrize(
    "branch",
    [
        "$(id)",
        "`id`",
        "a;id",
        "a|id&",
        "a'b",
        'a"b',
        "$IFS",
        "a#b",
        "%2e%2e",
        "<b>",
        "!id",
        "{{7}}",
    ],
)
def test_argument_injection_by_refs(harbour: Harbour, branch: str) -> None:
    """Gogs and Dokploy: whatever a shell, a template or a URL could make of a branch's name is the
    name of a branch, served at a host name of its own."""
    app = harbour.app(web(branch.replace("'", "")), f"refs-{branch.encode().hex()}")
    said = app.push("refs", f"master:refs/heads/{branch}")
    assert harbour.get(said.url).text == branch.replace("'", "")
    assert re.fullmatch(r"http://refs--[a-z0-9-]+\.localhost:\d+/", said.url)
    assert f"refs/heads/{branch}" in app.git("ls-remote", harbour.remote("refs")).text


def test_refs_that_git_would_not_send(harbour: Harbour) -> None:
    """Names of refs that are none, and refs that are no branches, sent by a client of our own:
    each is refused with a reason, nothing serves, no file appears beside git's own."""
    app = harbour.app(web("evil"), "evil")
    commit = app.git("rev-parse", "HEAD").text.strip()
    pack = packed(app, commit)
    for ref in (*BAD_REFS, "refs/heads/\x1b]0;pwned\x07", "refs/heads/\x7f"):
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
        said = receive_pack(
            harbour, "lacking", [(ZERO, new, "refs/heads/master")], packed(app, commit)
        )
        assert verdict(said, "refs/heads/master") not in ("", "ok") or said.status != 0, said.text
        assert "is live with" not in said.text
    assert "lacking" not in services(harbour)
    assert app.git("ls-remote", harbour.remote("lacking")).text == ""
