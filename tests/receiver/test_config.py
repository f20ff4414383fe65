"""Settings, keys and rooms."""

from __future__ import annotations

import os
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from hooks.errors import Refused
from hooks.layout import Layout
from hooks.repository import Repository
from hooks.settings import Settings, git_address, own_url, reached, route, url
from hooks.standing import UNPUBLISHED, Front, Place
from proxy.instance import Instance
from proxy.routes import Route
from receiver import cli, keyring
from receiver.config import load
from receiver.rooms import GitRoom, rooms
from receiver.ssh.interface import Command, Key, Login, Rank, Request, Words
from tests.hooks.scene import git_at_once, scratch

ED25519 = (
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ann@host"
)
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC9RSNTAzkFkaxg80rkfc4jc+pmg7pQqzxKp1IjZzfPX bob"


class Config(SynchronousTestCase):
    def load(self, **variables: str) -> Settings:
        root = str(scratch(self))
        return load({"STARPHLEET_ROOT": root, **variables}).settings

    def test_the_environment_wins_over_the_file(self) -> None:
        """A line in `settings` counts until a variable says otherwise."""
        root = scratch(self)
        (root / "settings").write_text("STARPHLEET_HTTP_PORT=80\nSTARPHLEET_SSH_PORT=22\n")
        config = load({"STARPHLEET_ROOT": str(root), "STARPHLEET_SSH_PORT": "2200"})
        self.assertEqual((config.settings.http_port, config.settings.ssh_port), (80, 2200))

    def test_where_working_directories_are(self) -> None:
        """In the root, or at a path that is whole; `~` is who starts the ship."""
        root = scratch(self)
        place = load({"STARPHLEET_ROOT": str(root)}).layout.working
        self.assertEqual(place, root / "dev")
        for text, meant in (("/d/e", Path("/d/e")), ("~/dev", Path("~/dev").expanduser())):
            given = {"STARPHLEET_ROOT": str(root), "STARPHLEET_DEV": text}
            self.assertEqual(load(given).layout.working, meant)

    def test_who_asks(self) -> None:
        """A session of the ship's SSH server says whose key it was; on the host it is the account,
        and no ship that is started there has that for its own."""
        root = {"STARPHLEET_ROOT": str(scratch(self))}
        key = {"STARPHLEET_OWNER": "ann", "STARPHLEET_KEY": "SHA256:x"}
        config = load({**root, **key, "SUDO_USER": "bob"})
        self.assertEqual(config.asker, ("ann", "SHA256:x"))
        self.assertEqual(set(config.given), {"STARPHLEET_ROOT"})
        self.assertEqual(load({**root, "SUDO_USER": "bob"}).asker, ("bob", ""))
        name, fingerprint = load({**root, "STARPHLEET_OWNER": "ann"}).asker
        self.assertEqual((name == "ann", fingerprint), (False, ""))

    def test_what_an_installer_goes_by(self) -> None:
        """Registries, certificates, and proxies in capitals too, as git has them; nothing else."""
        root = {"STARPHLEET_ROOT": str(scratch(self))}
        names = ("UV_OFFLINE", "PIP_INDEX_URL", "SSL_CERT_DIR", "https_proxy", "HTTPS_PROXY")
        given = dict.fromkeys((*names, "no_proxy", "NO_PROXY", "ALL_PROXY"), "x")
        self.assertEqual(load({**root, **given, "MY_HTTP_PROXY": "x"}).installing, given)

    def test_what_is_not_right_is_refused_by_name(self) -> None:
        """A value that cannot be meant stops the ship with the variable's name."""
        for name, value in [
            ("STARPHLEET_SSH_PORT", "ssh"),
            ("STARPHLEET_DEV", "dev"),
            ("STARPHLEET_DEV", "/a/../b"),
            ("STARPHLEET_HTTP_PORT", "70000"),
            ("STARPHLEET_TEST_TTL", "forever"),
            ("STARPHLEET_MEMORY", "1"),
            ("STARPHLEET_HOST", "a b"),
            ("STARPHLEET_HOST", "-x"),
            ("STARPHLEET_SERVICE_PORTS", "1-2"),
            ("STARPHLEET_BIND", "eth0"),
            ("STARPHLEET_DRAINSTOP_WAIT", "-1"),
            ("STARPHLEET_DRAINSTOP_WAIT", "1" * 5000),
            ("STARPHLEET_SSH_PORT", "0" * 5000 + "22"),
            ("STARPHLEET_LOGS", "much"),
            ("STARPHLEET_SYSLOG", "log.example.com"),
            ("STARPHLEET_PROXIES", "balancer.example.com"),
            ("STARPHLEET_PROXIES", "10.0.0.1, 10.0.0.0/33"),
            ("STARPHLEET_PROXIES", "0.0.0.0/0"),
        ]:
            with self.subTest(name=name), self.assertRaisesRegex(Refused, name):
                self.load(**{name: value})

    def test_a_ship_on_localhost_is_for_this_machine(self) -> None:
        """Only a ship that was given a name listens on all addresses."""
        root = str(scratch(self))
        alone = load({"STARPHLEET_ROOT": root})
        named = load({"STARPHLEET_ROOT": root, "STARPHLEET_HOST": "ship.example.com"})
        self.assertEqual((alone.bind, named.bind), ("127.0.0.1", "0.0.0.0"))

    def test_the_ships_own_pages(self) -> None:
        """At a host of their own where there surely is one; by https where that is trusted, or the
        only way; and how who has a key asks for them."""
        for variables, trusted, page, asked in (
            ({}, False, "http://starphleet.localhost:8080/x", "ssh -p 2222 git@localhost"),
            ({}, True, "https://starphleet.localhost:8443/x", "ssh -p 2222 git@localhost"),
            ({"HTTPS_PORT": "0"}, True, "http://starphleet.localhost:8080/x", None),
            ({"HTTPS_REDIRECT": "true"}, False, "https://starphleet.localhost:8443/x", None),
            (
                {"HTTPS_REDIRECT": "true", "HTTPS_PORT": "0", "PROXIES": "10.0.0.0/8"},
                False,
                "https://starphleet.localhost/x",
                None,
            ),
            ({"TEST_DOMAIN": "t.example"}, False, "http://starphleet.t.example:8080/x", None),
            ({"HOST": "ship.example", "HTTP_PORT": "80"}, False, "http://ship.example/x", None),
            ({"HOST": "10.0.0.1", "SSH_PORT": "22"}, False, None, "ssh git@10.0.0.1"),
            ({"HOST": "fe80::1"}, False, "http://[fe80::1]:8080/x", "ssh -p 2222 git@fe80::1"),
        ):
            settings = self.load(**{f"STARPHLEET_{name}": said for name, said in variables.items()})
            if page is not None:
                self.assertEqual(own_url(settings, "/x", secure=trusted), page)
            if asked is not None:
                self.assertEqual(reached(settings), asked)
                Instance(Path("/p"), 80, reached=asked)

    def test_the_url_is_one_that_works(self) -> None:
        """A name in front where the host can carry one, else the path."""
        for variables, expected in [
            ({}, "http://app.localhost:8080/"),
            ({"STARPHLEET_HTTP_PORT": "80"}, "http://app.localhost/"),
            ({"STARPHLEET_HOST": "ship.example.com"}, "http://ship.example.com:8080/~app/"),
            ({"STARPHLEET_HOST": "10.0.0.1"}, "http://10.0.0.1:8080/~app/"),
            (
                {"STARPHLEET_HOST": "10.0.0.1", "STARPHLEET_TEST_DOMAIN": "test.example.com"},
                "http://app.test.example.com:8080/",
            ),
        ]:
            self.assertEqual(url(self.load(**variables), "app"), expected)

    def test_an_ordered_service_is_where_its_orders_say(self) -> None:
        """At its path on every host, or at its own hosts alone; an unpublished one is nowhere."""
        ship = self.load()
        at_path, named = Place("/a/b/", ()), Place("", ("www.example.com",))
        self.assertEqual(route(ship, "/a/b", at_path, Front()), Route("/a/b", (), "/a/b/"))
        self.assertEqual(url(ship, "/a/b", at_path), "http://localhost:8080/a/b/")
        self.assertEqual(url(ship, "/w", named), "http://www.example.com:8080/")
        self.assertIsNone(route(ship, "/w", UNPUBLISHED, Front()))
        self.assertEqual(url(ship, "/w", UNPUBLISHED), "")

    def test_both_routes_exist_where_they_can(self) -> None:
        """An address cannot carry a name in front, everything else does."""
        by_name = Route("app", ("app.localhost",), "/~app/")
        self.assertEqual(route(Settings(), "app", None, Front()), by_name)
        by_path = Route("app", (), "/~app/")
        self.assertEqual(route(Settings(host="10.0.0.1"), "app", None, Front()), by_path)
        self.assertEqual(git_address(Settings(ssh_port=22)), "ssh://git@localhost")


class Keyring(SynchronousTestCase):
    def test_a_key_comes_and_goes(self) -> None:
        """What was added is listed under its owner's name until it is removed."""
        directory = scratch(self) / "keys"
        (line,) = keyring.add(directory, "ann", ED25519 + "\n")
        self.assertIn("ann may push with SHA256:", line)
        self.assertEqual([one.split()[0] for one in keyring.listing(directory)], ["ann"])
        keyring.remove(directory, "ann")
        self.assertEqual(keyring.listing(directory), [])

    def test_a_key_has_one_owner(self) -> None:
        """A key of somebody else is refused, for it would let in neither of the two."""
        directory = scratch(self) / "keys"
        keyring.add(directory, "ann", ED25519)
        with self.assertRaisesRegex(Refused, "is a key of ann, .*: starphleet key remove ann"):
            keyring.add(directory, "zed", ED25519)
        keyring.add(directory, "ann", ED25519, Rank.CAPTAIN)
        self.assertEqual(
            [one.split()[::2] for one in keyring.listing(directory)], [["ann", "captain"]]
        )

    def test_whom_the_headquarters_lets_in(self) -> None:
        """Those are listed too, each key once; they are not the ship's to remove."""
        layout = Layout(scratch(self))
        for directory in (layout.authorized_keys, layout.admirals):
            keyring.add(directory, "ann", ED25519)
        laid = layout.admirals / "pushers" / "bob.pub"
        laid.parent.mkdir()
        laid.write_text(OTHER)
        self.patch(os, "environ", {"STARPHLEET_ROOT": str(layout.root)})
        with redirect_stdout(StringIO()) as out:
            cli.main(["key"])
        told = [(line.split()[0], line.split()[2]) for line in out.getvalue().splitlines()]
        self.assertEqual(told, [("ann", "admiral"), ("bob", "pusher")])
        with self.assertRaisesRegex(Refused, f"no keys of 'bob' in {layout.authorized_keys}"):
            keyring.remove(layout.authorized_keys, "bob")

    def test_a_rank_is_changed(self) -> None:
        """Somebody has the rank that was given last, and is removed whatever it is."""
        directory = scratch(self) / "keys"
        for rank in (Rank.PUSHER, Rank.ADMIRAL, Rank.CAPTAIN):
            keyring.add(directory, "ann", ED25519, rank)
            (listed,) = keyring.listing(directory)
            self.assertEqual(listed.split()[2], rank.name.lower())
        keyring.remove(directory, "ann")
        self.assertEqual(keyring.listing(directory), [])

    def test_a_file_that_somebody_laid_there(self) -> None:
        """Keys in a file that ends in `.pub` are their owner's too: they go when the owner does,
        and when the owner gets others."""
        directory = scratch(self) / "keys"
        for below in ("", "captains"):
            laid = directory / below / "ann.pub"
            laid.parent.mkdir(parents=True, exist_ok=True)
            laid.write_text(ED25519 + "\n")
            keyring.add(directory, "ann", ED25519, Rank.PUSHER)
            (listed,) = keyring.listing(directory)
            self.assertEqual(listed.split()[2], "pusher")
            laid.write_text(ED25519 + "\n")
            keyring.remove(directory, "ann")
            self.assertEqual(keyring.listing(directory), [])

    def test_what_is_no_key_is_refused_and_nothing_is_kept(self) -> None:
        """A private key, options, nonsense, a path as a name: one line each, no file."""
        directory = scratch(self) / "keys"
        for name, text in [
            ("ann", "-----BEGIN OPENSSH PRIVATE KEY-----"),
            ("ann", "nonsense"),
            ("ann", ""),
            ("ann", 'command="x" ' + ED25519),
            ("../ann", ED25519),
            (".ann", ED25519),
        ]:
            with self.subTest(text=text[:20], name=name), self.assertRaises(Refused):
                keyring.add(directory, name, text)
        self.assertFalse(directory.exists() and list(directory.iterdir()))


class Rooms(SynchronousTestCase):
    def setUp(self) -> None:
        self.layout = Layout(scratch(self))
        self.layout.prepare()
        self.git = GitRoom(
            layout=self.layout,
            repository=lambda name: Repository(self.layout.repository(name), git_at_once),
            hooks=Path("/hooks"),
            address="ssh://git@localhost:2222",
            free_disk=0,
            max_pack=1,
        )
        self.login = Login("git", Key("ann", "SHA256:x"), "127.0.0.1")

    def test_git_gets_an_environment_built_from_nothing(self) -> None:
        """soft-serve CVE-2024-41956: only what the ship put there, and a well-formed protocol."""
        asked = Request("git-receive-pack '/app.git'", env={"GIT_PROTOCOL": "version=2"})
        got = self.git(self.login, asked)
        assert isinstance(got, Command)
        self.assertEqual(got.argv[:2], ("git", "receive-pack"))
        self.assertEqual(got.env["GIT_PROTOCOL"], "version=2")
        self.assertEqual(got.env["STARPHLEET_OWNER"], "ann")
        self.assertNotIn("USER", got.env)

    def test_nothing_but_gits_two_verbs(self) -> None:
        """gitolite CVE-2018-20683: no other command, no option, no second argument."""
        for command in [
            "ls", "git-receive-pack", "git-receive-pack 'a' 'b'", "git-receive-pack --x 'a'",
            "git-upload-archive 'a'", "scp -t x", "git-receive-pack 'a'; id", "git-receive-pack a",
            "git-receive-pack '--help'", "git-receive-pack '../a'", "git-upload-pack 'nobody'",
        ]:  # fmt: skip
            with self.subTest(command=command):
                got = self.git(self.login, Request(command))
                assert isinstance(got, Words)
                self.assertEqual(got.status, 1)

    def test_the_account_for_updates_takes_no_command(self) -> None:
        """update@ updates, with what installers go by, and does nothing else."""
        room = rooms(self.git, {"UV_OFFLINE": "1"})["update"].room
        got = room(self.login, Request("id"))
        assert isinstance(got, Words)
        self.assertEqual(got.status, 1)
        began = room(self.login, Request(None))
        assert isinstance(began, Command)
        self.assertEqual(began.argv[-1], "update")
        self.assertEqual(began.env["UV_OFFLINE"], "1")
        self.assertTrue(began.spared)
