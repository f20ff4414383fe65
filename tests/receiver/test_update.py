"""Finding and installing a version, and why it is not; no ship, and no network."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet import reactor as default_reactor
from twisted.trial.unittest import TestCase

from hooks.errors import Refused, ShipError, Unreachable
from receiver.config import load
from receiver.succession.systemd import notify
from receiver.updates import updating
from receiver.updates.update import Update
from receiver.updates.versions import Versions

reactor: Any = default_reactor


class Updating(TestCase):
    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        self.remote = self.home / "remote"
        self.remote.mkdir(parents=True)
        self.git("init", "-q", "-b", "main")
        self.commit = self.commit_file("README.md")
        self.config = evolve(
            load({"STARPHLEET_ROOT": str(self.home / "ship")}), remote=f"{self.remote}#main"
        )
        self.config.layout.prepare()
        self.versions = Versions(self.home / "versions")
        self.said: list[str] = []

    def git(self, *words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        argv = ["git", *who, *words]
        return subprocess.run(
            argv, cwd=self.remote, capture_output=True, text=True, check=True
        ).stdout.strip()

    def commit_file(self, name: str) -> str:
        (self.remote / name).write_text("a\n")
        self.git("add", "--all")
        self.git("commit", "-q", "-m", "a")
        return self.git("rev-parse", "HEAD")

    async def update(self, running: dict[str, str] | None, **settings: Any) -> None:
        config = evolve(self.config, **settings)
        await Update(
            reactor,
            config,
            self.versions,
            lambda _: running,
            lambda *_: self.fail("nothing is to be handed over"),
            self.said.append,
        )()

    async def refused(self, kind: type[Exception], reason: str, **settings: Any) -> None:
        """Nothing is left of it but what was fetched."""
        with self.assertRaisesRegex(kind, reason):
            await self.update({"commit": "0" * 40, "remote": ""}, **settings)
        left = {path.name for path in self.versions.directory.iterdir()}
        self.assertLessEqual(left, {".lock", ".fetched"})

    async def test_where_it_comes_from_has_to_be_set(self) -> None:
        """Else the reason says how."""
        await self.refused(Refused, "STARPHLEET_REMOTE=URL#REF", remote="")
        await self.refused(Refused, "is not followed", remote="http://example.org/x")

    async def test_out_of_reach_is_not_the_newest(self) -> None:
        """What cannot be asked is an error."""
        await self.refused(Unreachable, "cannot read", remote=f"{self.home}/nowhere")
        await self.refused(
            Refused, "no branch, tag or one commit 1234", remote=f"{self.remote}#1234"
        )

    async def test_what_is_not_starphleet_is_refused(self) -> None:
        """A repository of something else is told from ours before anything of it is run."""
        await self.refused(Refused, f"{self.commit[:12]} is no Starphleet")

    async def test_too_little_room_is_told_before(self) -> None:
        """Nothing is fetched onto a full disk."""
        settings = evolve(self.config.settings, free_disk=1 << 60)
        await self.refused(ShipError, "MB needed", settings=settings)

    async def test_every_way_to_name_the_newest(self) -> None:
        """A branch, a tag, a commit, the beginning of one, and the default branch: what runs
        already is not installed."""
        self.git("tag", "-a", "v1", "-m", "one")
        for ref in ("#main", "#v1", f"#{self.commit}", f"#{self.commit[:9]}", ""):
            self.said.clear()
            await self.update({"commit": self.commit, "remote": f"{self.remote}{ref}"}, remote="")
            self.assertIn("is the newest, and is here", self.said[-1])

    async def test_wheels_go_with_their_version(self) -> None:
        """What was fetched for a version goes with it; from the cache of an operator nothing."""
        now = self.versions.named("a" * 40)
        (now.venv / "lib/python3.11/site-packages/some_thing-2.0.dist-info").mkdir(parents=True)
        wheels = self.versions.directory / ".cache/wheels-v7/pypi/some-thing"
        wheels.mkdir(parents=True)
        for number in ("1.0", "2.0"):
            (wheels / f"{number}-py3-none-any.http").touch()
        for installing, left in (({"UV_CACHE_DIR": str(self.home / "theirs")}, 2), ({}, 1)):
            config = evolve(self.config, installing=installing)
            given = (config, self.versions, lambda _: None, lambda *_: None, self.said.append)
            await Update(reactor, *given)._tidy([now])
            self.assertEqual(len(list(wheels.glob("*.http"))), left)
        self.assertIn("Packages that no version has are removed: 1", self.said[-1])

    async def test_only_one_at_a_time(self) -> None:
        """Another one is refused while the first is under way."""
        with self.versions.alone(), self.assertRaisesRegex(Refused, "under way already"):
            await self.update(None)

    def test_without_a_ship_none_answers(self) -> None:
        """Nobody is asked where there is no ship."""
        self.assertIsNone(updating.version(self.config))


class Systemd(TestCase):
    def test_it_is_told_by_its_socket(self) -> None:
        """By a path or an abstract name; nothing happens where there is none, or nobody listens."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.bind(f"\0starphleet-{id(self)}")
            told.settimeout(5)
            notify(f"@starphleet-{id(self)}", "MAINPID=7")
            self.assertEqual(told.recv(100), b"MAINPID=7")
        notify("", "READY=1")
        notify("/nowhere/at/all", "READY=1")
