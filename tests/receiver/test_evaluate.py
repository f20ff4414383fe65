"""Orders are bash in a box: what good files come to, and that hostile ones come to nothing."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile
from pathlib import Path
from unittest.mock import patch

import psutil
from attrs import evolve
from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from containers.closed import Closed
from hooks.errors import Refused
from receiver.headquarters import evaluate
from receiver.headquarters.evaluate import Call, Evaluated, Evaluator

FOUND = {"PORT": "3000", "SHIP_NAME": "ada"}


def below() -> set[int]:
    """Every process that came of this one."""
    return {child.pid for child in psutil.Process().children(recursive=True)}


class BoxCase(TestCase):
    """`home` is a headquarters' tree, and what is in `beside` is somebody else's."""

    def setUp(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="hq-"))
        self.addCleanup(shutil.rmtree, self.home)
        self.home.chmod(0o755)
        self.tree = self.home / "tree"
        self.tree.mkdir()
        self.evaluator = Evaluator(reactor, Closed(reactor, self.home / "box"))

    async def evaluate(self, text: str, file: str = "a/orders", **given: str) -> Evaluated:
        path = self.tree / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return await self.evaluator(self.tree, file, given, FOUND)

    async def refused(self, text: str) -> str:
        """Why `text` is refused. Nothing of it is left running."""
        before = below()
        with self.assertRaises(Refused) as caught:
            await self.evaluate(text)
        self.assertEqual(below() - before, set())
        return str(caught.exception)


class Good(BoxCase):
    async def test_commands_and_exports(self) -> None:
        """Commands are told with their words and lines, exports with their values, whatever is in
        them; what is not exported is not told."""
        found = await self.evaluate(
            "export A=1 B='two words' C=$'lines\\nand\\ttabs' D='é ✓' E=\n"
            "hidden=1\n"
            "autodeploy https://example.com/x#y\n"
            "server_names default 'a b' \"$B\"\n"
        )
        self.assertEqual(
            found.environment,
            {"A": "1", "B": "two words", "C": "lines\nand\ttabs", "D": "é ✓", "E": ""},
        )
        self.assertEqual(
            found.calls,
            (
                Call("autodeploy", ("https://example.com/x#y",), 3),
                Call("server_names", ("default", "a b", "two words"), 4),
            ),
        )

    async def test_it_is_bash(self) -> None:
        """Conditions, loops, functions, substitutions and files beside it work as in any bash."""
        (self.tree / "a").mkdir()
        (self.tree / "a" / "common").write_text('common() { expose "$1"; }\n')
        found = await self.evaluate(
            "source ./common\n"
            'for port in 4{0,1}; do common "$port"; done\n'
            'if [ "$SHIP_NAME" = ada ]; then export HERE=$(basename "$(pwd)"); fi\n'
            '[ -n "$NOPE" ] && unpublished\n'
            "export SUM=$((40 + 2))\n"
        )
        self.assertEqual([call.words for call in found.calls], [("40",), ("41",)])
        self.assertEqual((found.environment["HERE"], found.environment["SUM"]), ("a", "42"))

    async def test_what_is_given_is_there_and_may_be_changed(self) -> None:
        """The environment that is given is what a file begins with; bash's own is not told."""
        found = await self.evaluate("export A=${A}2 PATH=$PATH\nunset B\n", A="1", B="x")
        self.assertEqual(found.environment, {"A": "12"})

    async def test_what_is_found_is_exported_only_by_the_file(self) -> None:
        """Defaults can be read, and are told when they are exported, with whatever value; names
        that the ship itself uses are theirs to use."""
        found = await self.evaluate("export WHERE=$SHIP_NAME-$PORT\n")
        self.assertEqual(found.environment, {"WHERE": "ada-3000"})
        found = await self.evaluate("export PORT=3000 name=shop status=open IFS=,\n")
        self.assertEqual(found.environment["PORT"], "3000")
        self.assertEqual((found.environment["name"], found.environment["status"]), ("shop", "open"))
        found = await self.evaluate("readonly name status; export A=1 B\n", B="given")
        self.assertEqual(found.environment, {"A": "1", "B": "given"})

    async def test_what_it_prints_is_told(self) -> None:
        """What a file prints is no data; it is passed on as what it says, without control codes."""
        found = await self.evaluate("echo call; printf '\\033]0;x\\007red\\n' >&2\n")
        self.assertEqual((found.calls, found.said), ((), ("call", "red")))


class Wrong(BoxCase):
    async def test_mistakes_have_their_line(self) -> None:
        """What is no command and what bash cannot read, there or in a file that is sourced, are
        refused with file and line; a word that may be of a password is not repeated."""
        (self.tree / "a").mkdir()
        (self.tree / "a" / "broken").write_text("A=1\n)\n")
        for text, told in [
            ("A=1\n\nautodeply x\n", "a/orders:3: autodeply is no command; autodeploy is"),
            ("export PASSWORD=a&hunter2\n", "a/orders:1: there is no such command"),
            ("cat <<END\nexport HTPASSWD=x\n", "a/orders:2: warning: here-document at line 1"),
            ("source ./broken\nexport HTPASSWD=x\n", "a/orders: ./broken:2: syntax error"),
            ("A=1\necho 'open\n", "a/orders:2: unexpected EOF"),
            ("if true; then\n", "a/orders:2: syntax error"),
            ("A=1\n)\n", "a/orders:2: syntax error"),
            ("set -e\nfalse\n", "a/orders: it exits with 1"),
            ('set -u\n: "$UNSET"\n', "a/orders:2: UNSET: unbound variable"),
        ]:
            self.assertTrue((await self.refused(text)).startswith(told), text)

    async def test_mistakes_in_any_language(self) -> None:
        """A language that is set does not hide what bash could not read."""
        with self.assertRaisesRegex(Refused, "^a/orders:2: syntax error"):
            await self.evaluate("A=1\n)\n", LANGUAGE="de", LC_ALL="de_DE.UTF-8")

    async def test_leaving_early(self) -> None:
        """`exit` with a status is refused; without one the file came to its end."""
        self.assertIn("exits with 3", await self.refused("exit 3\n"))
        found = await self.evaluate("expose 80\nexit 0\nexpose 81\n")
        self.assertEqual([call.words for call in found.calls], [("80",)])

    async def test_an_end_that_never_came(self) -> None:
        """A file that puts another program in its place, or is killed, is refused."""
        for text in ("exec true\n", "exec >&-\nexec sleep 0\n", "kill -9 $$\n", "exec 3>&-\n"):
            self.assertTrue((await self.refused(text)).startswith("a/orders: "), text)


class Hostile(BoxCase):
    async def test_an_endless_loop_is_ended(self) -> None:
        """After its time it is ended, with all that it began."""
        with patch.object(evaluate, "LIMITS", evolve(evaluate.LIMITS, seconds=1.0)):
            told = await self.refused("sleep 1000 &\nwhile :; do :; done\n")
        self.assertRegex(told, r"^a/orders: .*1 s")

    async def test_a_fork_bomb_is_contained(self) -> None:
        """It gets so many processes and no more, and none of them is left."""
        with patch.object(evaluate, "LIMITS", evolve(evaluate.LIMITS, seconds=2.0)):
            await self.refused("bomb() { bomb | bomb & }; bomb; sleep 1000\n")

    async def test_endless_output_is_cut(self) -> None:
        """A gigabyte of output is not kept."""
        for where in ("", ">&2", ">&3"):
            told = await self.refused(f"head -c 1000000000 /dev/zero {where}\n")
            self.assertRegex(told, "printed more than|did not come to its end", where)

    async def test_memory_has_a_bound(self) -> None:
        """A variable of a gigabyte is not made, and the memory disk is small."""
        text = "a=xxxxxxxxxxxxxxxx; for ((;;)); do a=$a$a; done\n"
        self.assertTrue((await self.refused(text)).startswith("a/orders"))
        found = await self.evaluate("export W=$(head -c 64M /dev/zero > /tmp/x && echo all)\n")
        self.assertEqual(found.environment["W"], "")

    async def test_nothing_of_the_ship_is_seen(self) -> None:
        """Neither files of the ship nor of the operator, no device, no other process; and the
        headquarters itself is for reading."""
        secret = self.home / "key"
        secret.write_text("secret")
        secret.chmod(0o644)
        found = await self.evaluate(
            f"export KEY=$(cat {secret} {self.home}/* 2>/dev/null) ROOT=$(ls -A /root /home)\n"
            f"export ALIVE=$(kill -0 {os.getpid()} && echo yes) PIDS=$(echo /proc/[0-9]*)\n"
            "export DISKS=$(find /dev -type b) WROTE=$(echo x > orders && echo yes)\n"
            "export ENVIRON=$(tr '\\0' '\\n' < /proc/1/environ | grep -c STARPHLEET) WHO=$(id -u)\n"
        )
        pids = found.environment.pop("PIDS")
        self.assertNotIn(str(os.getpid()), pids.split("/"))
        who = int(found.environment.pop("WHO"))
        self.assertNotEqual(who, 0)
        self.assertEqual(found.environment.pop("ENVIRON"), "0")
        self.assertEqual(set(found.environment.values()), {""}, found.environment)

    async def test_nothing_is_reached(self) -> None:
        """A server on this host hears nothing, by TCP or by a socket in the file system."""
        with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
            tcp.bind(("127.0.0.1", 0))
            tcp.listen()
            tcp.setblocking(False)
            path = self.home / "socket"
            unix.bind(str(path))
            path.chmod(stat.S_IMODE(0o777))
            found = await self.evaluate(
                f"export TCP=$(: < /dev/tcp/127.0.0.1/{tcp.getsockname()[1]} && echo yes)\n"
                f"export SOCKET=$(ls {path} && echo yes)\n"
            )
            with self.assertRaises(BlockingIOError):
                tcp.accept()
        self.assertEqual(set(found.environment.values()), {""})

    async def test_records_cannot_be_forged_into_more(self) -> None:
        """What a file writes where its commands are told is at most a command that it could have
        given; broken records are refused."""
        found = await self.evaluate("printf 'call\\0001\\0002\\000expose\\00080\\000' >&3\n")
        self.assertEqual(found.calls, (Call("expose", ("80",), 1),))
        for forged in ("call\\000x\\000", "call\\0001\\000999999999\\000a\\000", "unknown\\000"):
            self.assertTrue(
                (await self.refused(f"printf '{forged}' >&3\n")).startswith("a/orders"), forged
            )
