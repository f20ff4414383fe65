"""What is sent as a pack: objects that are broken, packs that are cut, and packs without end."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.voyages.advisories.scene import MB, objects_of, refused, services
from tests.voyages.apps import web
from tests.voyages.harbour import App, Harbour
from tests.voyages.wire import ZERO, packed, receive_pack, verdict


def broken_tree(app: App, *entries: tuple[str, str, str]) -> str:
    """A commit of a tree that git would not write: (mode, name, object) each."""
    tree = b"".join(f"{mode} {name}\0".encode() + bytes.fromhex(oid) for mode, name, oid in entries)
    return broken_commit(app, written(app, "tree", tree))


def broken_commit(app: App, tree: str, author: str = "A <a@b> 1700000000 +0000") -> str:
    text = f"tree {tree}\nauthor {author}\ncommitter A <a@b> 1700000000 +0000\n\nx\n"
    return written(app, "commit", text.encode())


def written(app: App, kind: str, data: bytes) -> str:
    argv = ["git", "hash-object", "-t", kind, "-w", "--stdin", "--literally"]
    return (
        subprocess.run(argv, cwd=app.path, input=data, capture_output=True, check=True)
        .stdout.decode()
        .strip()
    )


def test_broken_objects_are_refused(harbour: Harbour) -> None:
    """CVE-2014-9390, CVE-2018-11235: objects that git's own checks find wrong (`.git` or `..` in a
    tree, a name twice, a link for .gitmodules, a commit that is none) are refused on arrival."""
    app = harbour.app(web("broken"), "broken")
    blob = written(app, "blob", b"/proc/version")
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
        argv,
        cwd=app.path,
        env=app.harbour.git_env,
        input=listed.encode(),
        capture_output=True,
        check=True,
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
