"""Git by ssh to a real sshd: keys, host keys, and errors as one line."""

from __future__ import annotations

import getpass
import shutil
import signal
import subprocess

from twisted.internet import reactor
from twisted.internet.task import deferLater

from hooks.errors import Unreachable
from receiver.headquarters.asking import Asking
from receiver.headquarters.connections import IDLE
from receiver.headquarters.git import reason
from receiver.headquarters.ssh import is_known
from tests.bench.scene import sshd
from tests.receiver.git_scene import GitCase


def keygen(*words: str) -> None:
    subprocess.run(["ssh-keygen", "-q", "-N", "", *words], check=True)


class BySsh(GitCase):
    def setUp(self) -> None:
        super().setUp()
        self.key = self.layout.private_keys / "deploy"
        keygen("-t", "ed25519", "-f", str(self.key))
        shutil.move(f"{self.key}.pub", self.home / "deploy.pub")
        self.key.chmod(0o644)
        context = sshd(self.home, self.home / "deploy.pub")
        port = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        self.host = f"[127.0.0.1]:{port}"
        self.url = f"ssh://{getpass.getuser()}@127.0.0.1:{port}{self.work.path}"
        self.asking = Asking(reactor, self.remote())
        self.addCleanup(lambda: self.started(self.asking.close()))

    async def test_login(self) -> None:
        """With the deploy key, which is closed first; the host's key is recorded."""
        self.assertEqual(await self.asking.ask(self.url, [""]), {"": self.work.tip()})
        self.assertEqual(self.key.stat().st_mode & 0o777, 0o600)
        self.assertTrue(is_known(self.host, (self.layout.known_hosts,)))

    def logins(self) -> int:
        """How often somebody has logged in so far."""
        return (self.home / "sshd.log").read_text().count("Accepted publickey")

    async def shared(self) -> None:
        """Wait until a connection is kept."""
        while not list(self.layout.connections.iterdir()):
            await deferLater(reactor, 0.01)

    async def test_questions_share_a_login(self) -> None:
        """After the first answer one more login serves all questions; when that connection is lost,
        questions are answered as before; at the end it is gone."""
        await self.asking.ask(self.url, [""])
        await self.shared()
        for _ in range(5):
            self.assertEqual(await self.asking.ask(self.url, [""]), {"": self.work.tip()})
        self.assertEqual(self.logins(), 2)
        (kept,) = self.asking._connections._kept.values()
        kept.child.signal_group(signal.SIGKILL)
        await kept.child.ended()
        self.assertEqual(await self.asking.ask(self.url, [""]), {"": self.work.tip()})
        self.assertEqual(self.logins(), 3)

    async def test_a_kept_connection_ends(self) -> None:
        """With the ship, after long without a question, and for a key that is not the ship's any
        more no question goes by it."""
        await self.asking.ask(self.url, [""])
        await self.shared()
        (kept,) = self.asking._connections._kept.values()
        self.key.rename(self.key.with_name("other"))
        self.assertEqual(self.asking._connections.options(self.url), [])
        self.key.with_name("other").rename(self.key)
        self.assertNotEqual(self.asking._connections.options(self.url), [])
        kept.asked -= IDLE + 1
        self.asking._connections.options("/elsewhere")
        await kept.child.ended()
        self.assertEqual(self.asking._connections.options(self.url), [])

    async def test_no_key(self) -> None:
        """Is said in our words."""
        self.key.unlink()
        keygen("-t", "ed25519", "-f", f"{self.key}2")
        with self.assertRaisesRegex(Unreachable, "none of the ship's keys"):
            await self.asking.ask(self.url, [""])

    async def test_changed_host_key(self) -> None:
        """Is an error that says so and where; one of another type is no way around it."""
        make = ("-f", str(self.home / "k"), "-t")
        for kind in ("ed25519", "rsa"):
            keygen(*make, kind)
            public = (self.home / "k.pub").read_text()
            self.layout.known_hosts.write_text(f"{self.host} {public}")
            with self.assertRaisesRegex(Unreachable, "has changed.*known_hosts:1"):
                await self.asking.ask(self.url, [""])
            (self.home / "k").unlink()


class Reasons(GitCase):
    def test_no_secret_and_no_escape(self) -> None:
        """A password in a URL and control characters are taken out of git's words."""
        said = reason("remote: x\nfatal: cannot \x1b[2Jread https://u:pw@h/x\n")
        self.assertEqual(said, "cannot read https://h/x")
