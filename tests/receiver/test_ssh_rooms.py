"""What is decided about people on the ship: ranks, verbs, shells, terminals, the audit log."""

# Trial's assertions have no annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import json
import os
import pwd
import shutil
import struct
import tempfile
import termios
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hooks.errors import Refused
from hooks.layout import Layout
from hooks.repository import Repository
from receiver import admiral, audit
from receiver.admiral import AdmiralRoom, Person, shell_argv
from receiver.audit import Audit, discreet
from receiver.cli import build_parser
from receiver.rooms import CaptainRoom, GitRoom
from receiver.ssh.channel import locale
from receiver.ssh.interface import Command, Entry, Key, Login, Rank, Request, Words
from receiver.ssh.keys import KeyDirectory, parse_line
from receiver.ssh.terminal import Size, read_wanted, with_modes
from receiver.verbs import KEY, OWNER, VERBS, Starphleet, help_text, read, verbs_of
from tests.hooks.scene import git_at_once
from tests.receiver.ssh_ship import make_key

PARSER = build_parser()


def login(rank: Rank, account: str = "git") -> Login:
    return Login(account, Key("ann", "SHA256:x", rank), "127.0.0.1")


class Scratch(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)


class Ranks(Scratch):
    def lay(self, name: str, where: str) -> str:
        """A key of `name`'s in the file `where`; its line."""
        if not (self.root / f"{name}.key").exists():
            make_key(self.root / f"{name}.key")
        line = (self.root / f"{name}.key.pub").read_text()
        path = self.root / "keys" / where
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(line)
        return line

    def found(self, line: str) -> Key | None:
        return KeyDirectory(self.root / "keys", self.root / "more").find(parse_line(line))

    def test_a_rank_by_its_directory(self) -> None:
        """Keys beside the directories `captains` and `pushers` are admirals'."""
        for rank, where in (
            (Rank.ADMIRAL, "ann.pub"), (Rank.CAPTAIN, "captains/bea"), (Rank.PUSHER, "pushers/cid"),
        ):  # fmt: skip
            key = self.found(self.lay(where.rpartition("/")[2], where))
            assert key is not None
            self.assertEqual(key.rank, rank)

    def test_the_higher_of_two_ranks(self) -> None:
        """Who stands in two of them has the higher; under two names nobody has anything."""
        self.lay("ann", "pushers/ann")
        line = self.lay("ann", "captains/ann")
        key = self.found(line)
        assert key is not None
        self.assertEqual(key.rank, Rank.CAPTAIN)
        self.lay("ann", "pushers/else")
        self.assertIsNone(self.found(line))

    def test_no_ranks_below_ranks(self) -> None:
        """Nothing deeper counts, nor any other directory."""
        for where in ("pushers/captains/ann", "team/ann", "captains/deep/ann"):
            self.assertIsNone(self.found(self.lay("ann", where)))


class Verbs(Scratch):
    def test_what_is_read(self) -> None:
        """Verbs with their options, however they are called."""
        for text, words in (
            ("status", ["status"]), ("starphleet status --json", ["status", "--json"]),
            ("starphleet-status a", ["status", "a"]), ("logs -f shop", ["logs", "-f", "shop"]),
            ("logs /a/b -n 20", ["logs", "-n", "20", "/a/b"]), ("history ~x", ["history", "~x"]),
            ("logs a --since 2026-11-21T12:00", ["logs", "--since", "2026-11-21T12:00", "a"]),
        ):  # fmt: skip
            self.assertEqual(list(read(text, Rank.PUSHER)), words)

    def test_what_is_refused(self) -> None:
        """Other verbs and options, too many services or too few, and anything for a shell."""
        for text in (
            "", "up", "down", "attach shop", "key", "restart shop", "redeploy x", "logs",
            "logs a b", "status a b", "status -x", "logs --help a", "status --json=1", "logs a -n",
            "logs a -n x", "logs a -n -1", "logs a;id", "logs $(id)", "history `id`",
            "logs starphleet", "logs a --since", "logs a --since -1", "logs a --since $(id)",
            "logs -n 5", "git stash", "headquarters https://x", "lxc-backup a b", "starphleet",
        ):  # fmt: skip
            with self.subTest(text=text), self.assertRaises(Refused):
                read(text, Rank.PUSHER)

    @given(st.text(max_size=60))
    def test_any_text(self, text: str) -> None:
        """Whatever comes, no word that begins with a dash goes on but options that are known, and
        the words are understood by `starphleet` itself."""
        for verb in ("logs ", "status ", "restart ", ""):
            try:
                words = read(verb + text, Rank.CAPTAIN)
            except Refused:
                continue
            known = VERBS[words[0]].options
            self.assertTrue(all(word in known for word in words[1:] if word.startswith("-")))
            PARSER.parse_args(words)

    def test_captains_have_more(self) -> None:
        """Captains change services; both have what is read."""
        here = {"status", "logs", "history", "open", "cancel", "take-down"}
        self.assertEqual(set(verbs_of(Rank.PUSHER)), here)
        more = set(verbs_of(Rank.CAPTAIN)) - set(verbs_of(Rank.PUSHER))
        self.assertEqual(more, {"redeploy", "retry-deploy", "restart", "stop", "start"})
        self.assertEqual(list(read("restart /shop", Rank.CAPTAIN)), ["restart", "/shop"])

    def test_help_lists_all(self) -> None:
        """`help` has a line for each verb."""
        text = help_text("ssh -p 2222 captain@ship", Rank.CAPTAIN)
        self.assertEqual(len(text.splitlines()), len(VERBS) + 1)
        self.assertIn("ssh -p 2222 captain@ship logs SERVICE", text)


class Rooms(Scratch):
    def setUp(self) -> None:
        super().setUp()
        self.layout = Layout(self.root / "ship")
        self.layout.prepare()
        self.git = GitRoom(
            layout=self.layout,
            repository=lambda name: Repository(self.layout.repository(name), git_at_once),
            hooks=Path("/hooks"),
            address="ssh://git@[::1]:2222",
            free_disk=0,
            max_pack=1,
            given={"STARPHLEET_SSH_PORT": "2222"},
        )

    def test_git_answers(self) -> None:
        """`ssh git@ship status` is `starphleet status` of this ship, in a clean environment."""
        got = self.git(login(Rank.PUSHER), Request("status --json"))
        assert isinstance(got, Command)
        self.assertEqual(got.argv[1:], ("-I", "-m", "receiver.cli", "status", "--json"))
        who = {OWNER: "ann", KEY: "SHA256:x"}
        self.assertEqual({name: got.env[name] for name in who}, who)
        given = {"PATH", "LANG", "STARPHLEET_ROOT", "STARPHLEET_SSH_PORT"}
        self.assertEqual(set(got.env), {*given, *who})
        self.assertFalse(got.spared)

    def test_git_helps(self) -> None:
        """`help` and the greeting list what there is, as it is to be typed."""
        for request, status in ((Request("help"), 0), (Request(None), 1)):
            got = self.git(login(Rank.PUSHER), request)
            assert isinstance(got, Words)
            self.assertEqual(got.status, status)
            self.assertIn("ssh -p 2222 git@::1 logs SERVICE [-f]", got.text)

    def test_git_has_no_more_for_captains(self) -> None:
        """A captain's key has a captain's verbs as `captain` only."""
        got = self.git(login(Rank.ADMIRAL), Request("restart shop"))
        assert isinstance(got, Words)
        self.assertIn("'restart shop' is not for this account", got.text)

    def test_the_headquarters_is_for_admirals(self) -> None:
        """What ships run is neither pushed nor read by pushers and captains."""
        for verb in ("git-receive-pack", "git-upload-pack"):
            for rank in (Rank.PUSHER, Rank.CAPTAIN):
                for name in ("headquarters", "/headquarters", "headquarters.git"):
                    got = self.git(login(rank), Request(f"{verb} '{name}'"))
                    assert isinstance(got, Words)
                    self.assertIn("the headquarters is for admirals", got.text)
        got = self.git(login(Rank.ADMIRAL), Request("git-receive-pack 'headquarters'"))
        self.assertIsInstance(got, Command)

    def test_captain(self) -> None:
        """A captain has the verbs and no shell."""
        room = CaptainRoom(Starphleet(self.layout), "ssh://git@ship")
        who = login(Rank.CAPTAIN, "captain")
        got = room(who, Request("starphleet-restart shop"))
        assert isinstance(got, Command)
        self.assertEqual(got.argv[-2:], ("restart", "shop"))
        for command in (None, "id", "sh", "git-receive-pack 'a'", "up", "help; id"):
            self.assertIsInstance(room(who, Request(command)), Words)
        listed = room(who, Request("help"))
        assert isinstance(listed, Words)
        self.assertIn("ssh captain@ship restart SERVICE", listed.text)


class Shells(SynchronousTestCase):
    def test_argv(self) -> None:
        """A login shell, or a command by it; `starphleet` is on PATH after the profile's own."""
        self.assertEqual(shell_argv("/bin/bash", None, ""), ("/bin/bash", "-l"))
        self.assertEqual(shell_argv("/bin/x", "a; b", "/t"), ("/bin/x", "-c", "a; b"))
        self.assertEqual(shell_argv("/bin/fish", None, "/t"), ("/bin/fish", "-l"))
        self.assertEqual(shell_argv("/bin/zsh", None, "/t")[-2:], ("/bin/zsh", "/t"))

    def test_as_somebody(self) -> None:
        """The account's user, group and groups are taken on before anything of it runs."""
        someone = Person("admiral", Path("/h"), "/bin/sh", 42, 43)
        self.assertEqual(someone.prefix[1:4], ("--reuid=42", "--regid=43", "--init-groups"))
        self.assertEqual(Person("me", Path("/h"), "/bin/sh").prefix, ())

    def test_at_home(self) -> None:
        """On a host without an account for admirals they have the home and the shell of the ship's
        own user."""

        def unlisted(name: str) -> None:
            raise KeyError(name)

        self.patch(pwd, "getpwnam", unlisted)
        own = pwd.getpwuid(os.geteuid())
        person = Person(own.pw_name, Path(own.pw_dir), own.pw_shell)
        self.assertEqual(admiral.person(), person)

    def test_a_user_without_a_name(self) -> None:
        """A ship whose user the system does not list has a shell all the same."""

        def unlisted(who: object) -> None:
            raise KeyError(who)

        self.patch(pwd, "getpwuid", unlisted)
        self.patch(pwd, "getpwnam", unlisted)
        self.assertEqual(admiral.person().shell, "/bin/sh")
        self.assertEqual(admiral.person().prefix, ())

    def test_a_ship_of_the_system(self) -> None:
        """Where `starphleet` is on every PATH, PATH is left alone."""
        room = AdmiralRoom(Starphleet(Layout(Path("/r"))), "/usr/local/bin")
        got = room(login(Rank.ADMIRAL, "admiral"), Request(None, term="xterm"))
        assert isinstance(got, Command)
        self.assertEqual(got.argv[-1], "-l")
        self.assertEqual(got.env["TERM"], "xterm")
        self.assertNotIn("::", got.env["PATH"])

    @given(st.binary(max_size=80), st.binary(max_size=80))
    def test_locale(self, name: bytes, value: bytes) -> None:
        """Only variables of the locale pass, and no value that names a path."""
        for each in (name, b"LANG", b"LC_ALL", b"LC_" + name):
            taken = locale(each, value)
            if taken is not None:
                self.assertRegex(each.decode(), r"\A(LANG|LC_[A-Z]+)\Z")
                self.assertRegex(taken, r"\A[A-Za-z0-9][A-Za-z0-9_.@-]*\Z")


class Terminals(SynchronousTestCase):
    def test_sizes_that_cannot_be(self) -> None:
        """A window larger than a terminal knows is as large as it knows."""
        asked = struct.pack(">L", 2) + b"vt" + struct.pack(">4L", 2**32 - 1, 70000, 3, 4)
        wanted = read_wanted(asked + struct.pack(">L", 0))
        self.assertEqual(wanted.size, Size(0xFFFF, 0xFFFF, 3, 4))
        self.assertEqual((wanted.term, wanted.modes), ("vt", ()))

    @given(st.binary(max_size=60))
    def test_any_modes(self, modes: bytes) -> None:
        """Whatever a client says of modes can be set, or is passed over."""
        length = struct.pack(">L", len(modes))
        wanted = read_wanted(struct.pack(">L", 1) + b"x" + bytes(16) + length + modes)
        plain: list[Any] = [0, 0, 0, 0, 15, 15, [b"\0"] * 32]
        changed = with_modes(plain, wanted.modes)
        self.assertTrue(all(isinstance(each, int) for each in changed[:6]))
        self.assertTrue(all(len(each) == 1 for each in changed[6]))

    def test_modes(self) -> None:
        """Flags are set and cleared, characters taken, what ends the list ends it."""
        plain: list[Any] = [termios.ICRNL, 0, 0, termios.ECHO, 15, 15, [b"\0"] * 32]
        changed = with_modes(plain, [(1, 7), (36, 0), (53, 0), (51, 1), (70, 1), (2, 255)])
        self.assertEqual(changed[0], 0)
        self.assertEqual((changed[1], changed[3]), (termios.OPOST, termios.ICANON))
        self.assertEqual(changed[6][termios.VINTR], b"\x07")
        self.assertEqual(changed[6][termios.VQUIT], b"\0")


class AuditLog(Scratch):
    def entry(self, did: str) -> Entry:
        return Entry(login(Rank.ADMIRAL), did, "exit 0", 1e9, 0.5)

    def test_no_secret(self) -> None:
        """What looks like a secret in a command is left out."""
        for text, told in (
            ("API_KEY=abc run", "API_KEY=… run"),
            ("PGPASSWORD='a b' psql", "PGPASSWORD=… psql"),
            ("x --auth-token abc y", "x --auth-token … y"),
            ("curl https://u:p@host/x", "curl https://…@host/x"),
            ("SECRET='" + "a b " * 1000, "SECRET=…"),
            ("git-receive-pack 'app'", "git-receive-pack 'app'"),
        ):
            self.assertEqual(discreet(text), told)

    def test_one_line_each(self) -> None:
        """Whatever was typed is one line of JSON, of bounded length."""
        log = Audit(self.root / "audit.log")
        for did in ("a\nb\x1b[2J\u2028", "x-" * 8192, "https://" + "x" * 16000):
            log(self.entry(did))
        lines = (self.root / "audit.log").read_text().split("\n")
        self.assertEqual(len(lines), 4)
        self.assertEqual(json.loads(lines[0])["did"], "a\nb\x1b[2J\u2028")
        self.assertEqual(json.loads(lines[0])["time"], "2001-09-09T01:46:40Z")
        self.assertNotIn("\x1b", lines[0])
        self.assertLess(len(lines[1]), 1500)

    def test_bounded(self) -> None:
        """A full log makes room for a new one, and only the one before it is kept."""
        self.patch(audit, "MOST", 5000)
        log = Audit(self.root / "audit.log")
        for number in range(200):
            log(self.entry(f"{number}"))
        sizes = [path.stat().st_size for path in self.root.iterdir()]
        self.assertEqual(len(sizes), 2)
        self.assertLess(max(sizes), 5500)

    def test_a_log_that_cannot_be_written(self) -> None:
        """Nobody is kept out by it, and it does not follow a link."""
        (self.root / "audit.log").symlink_to(self.root / "elsewhere")
        Audit(self.root / "audit.log")(self.entry("x"))
        self.assertFalse((self.root / "elsewhere").exists())
