"""`ships/` of the headquarters: real git, pushed by path, by sshd, and to the ship itself."""

# Trial's assertions have no annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from containers.spawn import run
from hooks.errors import Refused
from hooks.layout import Layout
from hooks.repository import Repository
from hooks.settings import Settings
from hooks.standing import Source
from receiver.headquarters import ships
from receiver.headquarters.git import RemoteGit, upload_pack
from receiver.headquarters.ships import PushBack, addresses, reachable, ship_name
from tests.bench.scene import sshd
from tests.receiver.ssh_ship import make_key

PATH = "/usr/bin:/bin"
HERE = ("192.0.2.7", "2001:db8::7")


async def git(argv: Sequence[str], *, env: Mapping[str, str], stdin: bytes = b"") -> Any:
    done = await run(reactor, argv, env=env, stdin=stdin, merge=False)
    return done.exit.status, done.output


class Named(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)

    def test_from_the_host_key(self) -> None:
        """A ship without a name is called after its host key, by a name that a host and a file can
        have, and it is always the same."""
        key = self.root / "key"
        name = ship_name(Settings(), key)
        self.assertRegex(name, r"\Aship-[0-9a-f]{16}\Z")
        self.assertEqual(ship_name(Settings(), key), name)
        self.assertNotEqual(ship_name(Settings(), self.root / "other"), name)

    def test_the_name_that_is_set(self) -> None:
        """A name that is set counts, and is refused when it is no host name."""
        self.assertEqual(ship_name(Settings(ship_name="Pinta.example"), self.root), "Pinta.example")
        for name in ("../x", "a/b", "a b", "-a", ".", "a..b", "a\n", "ship-SHA256:x+/"):
            with self.assertRaises(Refused):
                ship_name(Settings(ship_name=name), self.root)


class Addresses(SynchronousTestCase):
    def test_which_count(self) -> None:
        """Addresses of the network's own interfaces count, sorted; those of containers, tunnels,
        links and the loopback do not."""
        given = {
            "lo": ["127.0.0.1", "::1"],
            "eth1": ["10.0.0.9", "fe80::1%eth1", "52:54:00:12:34:56"],
            "enp0s3": ["192.0.2.20", "2a01:4f8::7", "fd00::7", "192.0.2.3"],
            "wlan0": ["169.254.3.4", "0.0.0.0"],
            **{
                name: ["10.9.9.9"]
                for name in ("docker0", "lxcbr0", "veth1a", "virbr0", "br-0f", "sp0a1b2co")
            },
            **{name: ["10.9.9.9"] for name in ("tun0", "wg0", "lxdbr0", "tailscale0", "ship0")},
        }
        self.assertEqual(reachable(given), ("10.0.0.9", "192.0.2.3", "192.0.2.20", "2a01:4f8::7"))

    def test_of_this_host(self) -> None:
        """This host can be asked, and names no loopback."""
        self.assertNotIn("127.0.0.1", addresses())


class Pushed(TestCase):
    def setUp(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.root.chmod(0o755)
        self.addCleanup(shutil.rmtree, self.root)
        self.bare = self.root / "hq.git"
        self.sh("init", "-q", "--bare", "-b", "main", str(self.bare), at="")
        tree = self.sh("mktree", stdin="")
        self.first = self.sh("commit-tree", tree, "-m", "first")
        self.sh("update-ref", "refs/heads/main", self.first)
        self.url = str(self.bare)
        self.said: list[str] = []

    def sh(self, *words: str, at: str | None = None, stdin: str = "") -> str:
        place = ["--git-dir", str(self.bare)] if at is None else []
        who = {f"GIT_{r}_{k}": "x" for r in ("AUTHOR", "COMMITTER") for k in ("NAME", "EMAIL")}
        env = {"PATH": PATH, "GIT_CONFIG_GLOBAL": "/dev/null", **who}
        return subprocess.run(
            ["git", *place, *words],
            env=env,
            input=stdin,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    @property
    def tip(self) -> str:
        return self.sh("rev-parse", "refs/heads/main")

    def ship(self, name: str = "ship-1", own: bool = False) -> PushBack:
        """A ship of that name with a root of its own."""
        layout = Layout(self.root / name)
        layout.prepare()
        if (self.root / "key").exists():
            shutil.copy(self.root / "key", layout.private_keys / "key")
        remote = RemoteGit(reactor, layout, PATH)
        mirror = Repository(layout.sources / "hq.git", git)
        mirror.ensure()

        async def fetch(source: Source, commit: str) -> Repository:
            words = ["--git-dir", str(mirror.path), "fetch", "-q", *upload_pack(source.url)]
            await remote(source.url, [*words, source.url, "+refs/*:refs/*"], seconds=30)
            return mirror

        async def mine(source: Source, commit: str) -> Repository:
            return Repository(self.bare, git)

        if own:
            return PushBack(name, mine, remote, lambda url: Repository(self.bare, git))
        return PushBack(name, fetch, remote)

    def listen(self, ship: PushBack) -> None:
        class Log:
            info = staticmethod(lambda *_, **__: None)
            warn = staticmethod(lambda text, **values: self.said.append(text.format(**values)))

        ship._log = Log()  # type: ignore[assignment]

    def hook(self, text: str) -> Path:
        """Let each push to the headquarters meet a hook; the file that gets a line each time."""
        hook, asked = self.bare / "hooks" / "pre-receive", self.root / "asked"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\necho >>{asked}\n{text}\n")
        hook.chmod(0o755)
        self.patch(ships, "FIRST_PAUSE", 0.01)
        return asked

    async def write(self, ship: PushBack, ref: str = "main", here: Sequence[str] = HERE) -> None:
        await ship.write(Source(self.url, ref), self.tip, here)

    async def test_a_commit_of_the_ship(self) -> None:
        """The entry has an address a line, in one commit of the ship's on top of what was there,
        which says who wrote it; what else there is stays."""
        blob = self.sh("hash-object", "-w", "--stdin", stdin="x")
        tree = self.sh("mktree", stdin=f"100755 blob {blob}\torders\n")
        await self.write(self.ship())
        self.assertEqual(self.sh("show", "main:ships/ship-1"), "\n".join(HERE))
        said = self.sh("log", "-1", "--format=%P %an <%ae> %cn <%ce> %s", "main")
        who = "ship-1 autopilot <autopilot@ship-1>"
        self.assertEqual(said, f"{self.first} {who} {who} ship-1 config")
        more = self.sh("commit-tree", tree, "-p", self.tip, "-m", "orders, and no ships")
        self.sh("update-ref", "refs/heads/main", more)
        await self.write(self.ship())
        self.assertEqual(
            self.sh("ls-tree", "-r", "--name-only", "main").split(), ["orders", "ships/ship-1"]
        )
        self.assertTrue(self.sh("ls-tree", "main", "orders").startswith("100755"))

    async def test_nothing_when_unchanged(self) -> None:
        """The same addresses again make no commit; others make one."""
        ship = self.ship()
        await self.write(ship)
        tip = self.tip
        await self.write(ship)
        await self.write(self.ship())
        self.assertEqual(self.tip, tip)
        await self.write(ship, here=("192.0.2.8",))
        self.assertEqual(self.sh("show", "main:ships/ship-1"), "192.0.2.8")

    async def test_the_default_branch(self) -> None:
        """A headquarters that names no branch gets the entry on its default branch."""
        await self.write(self.ship(), ref="")
        self.assertEqual(self.sh("show", "main:ships/ship-1"), "\n".join(HERE))

    async def test_pinned(self) -> None:
        """A headquarters at a tag or a commit is never written to, whatever branches are named."""
        self.sh("tag", "v1", self.first)
        self.sh("update-ref", f"refs/heads/{self.first}", self.first)
        before = self.sh("for-each-ref")
        for ref in ("v1", self.first, self.first[:8]):
            await self.write(self.ship(), ref=ref)
        self.assertEqual(self.sh("for-each-ref"), before)

    async def test_where_nobody_asks(self) -> None:
        """https is never written to, ssh not without a key: nothing is even asked."""
        ship = self.ship()
        ship.fetch = None  # type: ignore[assignment]
        (ship.remote.layout.private_keys / "key").write_text("-----BEGIN PRIVATE KEY-----")
        await ship.write(Source("https://127.0.0.1:9/hq.git"), self.first, HERE)
        ship = self.ship("keyless")
        ship.fetch = None  # type: ignore[assignment]
        await ship.write(Source("git@127.0.0.1:hq.git"), self.first, HERE)
        self.assertEqual(self.tip, self.first)

    async def test_read_only(self) -> None:
        """A headquarters that takes no push is told of once, with its reason, and is left alone
        until its tip or the addresses change."""
        asked = self.hook("exit 1")
        ship = self.ship()
        self.listen(ship)
        for _ in range(3):
            await self.write(ship)
        self.assertEqual(self.said, ["ships/ship-1 was not pushed: pre-receive hook declined"])
        self.assertEqual(len(asked.read_text()), ships.STILL)
        await self.write(ship, here=("192.0.2.8",))
        self.assertEqual(len(asked.read_text()), 2 * ships.STILL)
        self.assertEqual(len(self.said), 1)
        self.patch(ships, "AGAIN", 0.0)
        await self.write(ship)
        (self.bare / "hooks" / "pre-receive").unlink()
        await self.write(ship)
        self.assertEqual(self.sh("show", "main:ships/ship-1"), "\n".join(HERE))

    async def test_anothers_repository(self) -> None:
        """A path that belongs to another user is not written to, and no hook of it runs."""
        if os.geteuid() != 0:
            raise SkipTest("only root can give a repository to somebody else")
        hook = self.hook("exit 0")
        nobody = pwd.getpwnam("nobody")
        for path in (self.bare, *self.bare.rglob("*")):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        ship = self.ship()
        self.listen(ship)
        await self.write(ship)
        self.assertEqual(self.tip, self.first)
        self.assertFalse(hook.exists())
        self.assertEqual(len(self.said), 1)
        self.assertIn("dubious ownership", self.said[0])

    async def test_the_ships_own(self) -> None:
        """In a repository of the ship's own the branch moves, unless it has moved meanwhile."""
        ship = self.ship(own=True)
        await self.write(ship)
        self.assertEqual(self.sh("show", "main:ships/ship-1"), "\n".join(HERE))
        self.sh("update-ref", "refs/heads/main", self.first)
        await self.together(own=True)

    async def together(self, count: int = 8, own: bool = False) -> None:
        """So many ships write at once; every entry is in, one after the other."""
        base = self.tip
        fleet = [self.ship(f"ship-{number}", own) for number in range(10, 10 + count)]
        for ship in fleet:
            self.listen(ship)
        going = [Deferred.fromCoroutine(ship.write(Source(self.url), base, HERE)) for ship in fleet]
        await gatherResults(going)
        self.assertEqual(self.said, [])
        named = sorted(ship.name for ship in fleet)
        self.assertEqual(self.sh("ls-tree", "--name-only", "main:ships").split(), named)
        parents = self.sh("log", "--format=%P", f"{base}..main").splitlines()
        self.assertEqual([len(one.split()) for one in parents], [1] * count)

    async def test_eight_at_once_by_path(self) -> None:
        """Eight ships that push to one path at once all stand in it, and nothing is lost."""
        await self.together()

    async def test_some_at_once_by_ssh(self) -> None:
        """Four ships that push to one sshd at once all stand in it, and nothing is lost."""
        make_key(self.root / "key")
        with sshd(self.root, self.root / "key.pub") as port:
            user = pwd.getpwuid(os.geteuid()).pw_name
            self.url = f"ssh://{user}@127.0.0.1:{port}{self.bare}"
            await self.together(4)
