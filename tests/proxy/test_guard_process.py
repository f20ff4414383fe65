"""The checker as a process: one at a time, for as long as it is wanted, whoever started it."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
from attrs import evolve
from twisted.internet.defer import DeferredList, ensureDeferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from proxy.guard import __main__ as program
from proxy.guard import keeper, store
from proxy.guard.keeper import Keeper
from proxy.guard.store import Guards
from proxy.routes import ProxyError
from tests.proxy.asking import BOB, CREW, basic
from tests.proxy.reactor import reactor, run, until

RIGHT = basic("ann", "ann's")


class Local(http.client.HTTPConnection):
    """HTTP on a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("guard", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(self._path))


def ask_now(path: Path, headers: dict[str, str]) -> int:
    connection = Local(path)
    sent = {"X-Service": "/a", "X-Method": "GET", "X-Scheme": "http", "X-Host": "ship"}
    sent |= {"X-Uri": "/a/", "X-Address": "127.0.0.1", **headers}
    try:
        connection.request("GET", "/check", headers=sent)
        return connection.getresponse().status
    finally:
        connection.close()


class ProcessCase(TestCase):
    timeout = 60.0

    def setUp(self) -> None:
        self.prefix = Path(tempfile.mkdtemp(prefix="guard-"))
        self.addCleanup(shutil.rmtree, self.prefix)
        for name in ("guard", "logs"):
            (self.prefix / name).mkdir()
        self.socket = self.prefix / "guard" / "socket"
        store.write(self.prefix, Guards({"/a": CREW}))

    def keeper(self) -> Keeper:
        made = Keeper(reactor, self.prefix, run, "")
        self.addCleanup(made.stop)
        return made

    async def started(self) -> Keeper:
        made = self.keeper()
        await made.start()
        return made

    async def orphaned(self) -> int:
        """One whose ship is gone; its pid."""
        argv = [sys.executable, "-P", "-m", "proxy.guard", str(self.prefix)]
        self.assertEqual(await run(argv, 30), (0, ""))
        self.addCleanup(self.keeper().stop)
        return self.pid()

    def pid(self) -> int:
        """Of the one that runs."""
        return int(((self.prefix / "guard" / "pid").read_text().split() or ["0"])[0])

    def held(self) -> list[str]:
        """What it has for a terminal."""
        return [str(Path(f"/proc/{self.pid()}/fd/{each}").readlink()) for each in range(3)]

    async def ask(self, headers: dict[str, str] | None = None) -> int:
        status: int = await deferToThread(ask_now, self.socket, headers or {})
        return status

    def log(self) -> str:
        return (self.prefix / "logs" / "guard.log").read_text()

    def mine(self) -> list[int]:
        """The checkers of this prefix."""
        wanted = ["-m", "proxy.guard", str(self.prefix)]
        found = psutil.process_iter(["cmdline", "status"])
        return [
            each.pid
            for each in found
            if (each.info["cmdline"] or [])[-3:] == wanted
            and each.info["status"] != psutil.STATUS_ZOMBIE
        ]


class LifeTests(ProcessCase):
    async def test_many_may_come_at_once(self) -> None:
        """While it is busy, hundreds who come have a place to wait in."""
        await self.started()
        pid = self.pid()
        os.kill(pid, signal.SIGSTOP)
        self.addCleanup(os.kill, pid, signal.SIGCONT)
        for _ in range(400):
            one = socket.socket(socket.AF_UNIX)
            self.addCleanup(one.close)
            one.setblocking(False)
            one.connect(str(self.socket))

    async def test_it_starts_and_answers(self) -> None:
        """Once it is started it answers, to its own user alone, and its key is nobody else's."""
        await self.started()
        self.assertEqual((await self.ask(RIGHT), await self.ask()), (200, 401))
        for name in ("socket", "guards.json", "key"):
            mode = stat.S_IMODE((self.prefix / "guard" / name).stat().st_mode)
            self.assertEqual((name, mode), (name, 0o600))
        self.assertEqual(stat.S_IMODE((self.prefix / "logs" / "guard.log").stat().st_mode), 0o600)
        self.assertEqual(len((self.prefix / "guard" / "key").read_bytes()), 32)

    async def test_it_is_nobodys_child(self) -> None:
        """It is a session of its own and holds nothing open of who started it."""
        await self.started()
        self.assertEqual(os.getsid(self.pid()), self.pid())
        for held in self.held():
            self.assertIn(held, ("/dev/null", str(self.prefix / "logs" / "guard.log")))
        os.kill(self.pid(), signal.SIGHUP)
        self.assertEqual(await self.ask(RIGHT), 200)

    async def test_adopted(self) -> None:
        """The next ship takes over the one that runs; its key, and so all cookies, are the same."""
        pid, key = await self.orphaned(), store.own_key(self.prefix)
        await self.started()
        self.assertEqual((self.pid(), self.mine()), (pid, [pid]))
        self.assertEqual(store.own_key(self.prefix), key)
        self.assertEqual(await self.ask(RIGHT), 200)

    async def test_replaced_when_it_is_of_another_version(self) -> None:
        """One of other sources is ended, and one of these is started."""
        old = await self.orphaned()
        file = self.prefix / "guard" / "pid"
        file.write_text(f"{old} anotherversion\n")
        await self.started()
        self.assertNotEqual(self.pid(), old)
        self.assertEqual(self.mine(), [self.pid()])
        self.assertEqual(file.read_text().split()[1], keeper.digest())
        self.assertEqual(await self.ask(RIGHT), 200)

    async def test_revived(self) -> None:
        """One that was killed is started again."""
        await self.started()
        for _ in range(2):
            old = self.pid()
            os.kill(old, signal.SIGKILL)

            def back(old: int = old) -> bool:
                found = self.mine()
                return bool(found) and old not in found and self.pid() == found[0]

            await until(back, "another one to run", 20)
            await until(self.socket.exists, "it to listen")
            self.assertEqual(await self.ask(RIGHT), 200)

    async def test_stopped(self) -> None:
        """After `stop` none runs, whoever started it, and none is started any more."""
        await self.orphaned()
        await self.keeper().stop()
        self.assertEqual(self.mine(), [])
        other = await self.started()
        await other.stop()
        self.assertEqual(self.mine(), [])
        with self.assertRaises(OSError):
            await self.ask(RIGHT)
        await other.stop()

    async def test_two_at_once(self) -> None:
        """Of two that are started at once one runs, and the other says why it does not."""
        argv = [sys.executable, "-P", "-m", "proxy.guard", str(self.prefix)]
        self.addCleanup(self.keeper().stop)
        both = await DeferredList([ensureDeferred(run(argv, 30)) for _ in range(2)])
        results = sorted(result for _, result in both)
        self.assertEqual([status for status, _ in results], [0, 1])
        self.assertIn("another one runs already", results[1][1])
        self.assertEqual(len(self.mine()), 1)
        self.assertEqual(await self.ask(RIGHT), 200)

    async def test_start_twice(self) -> None:
        """A keeper that is asked twice at once to start has one."""
        made = self.keeper()
        await DeferredList([ensureDeferred(made.start()) for _ in range(3)])
        self.assertEqual(len(self.mine()), 1)

    async def test_what_hinders_it(self) -> None:
        """Where it cannot start, what it said is in the error."""
        shutil.rmtree(self.prefix / "logs")
        with self.assertRaisesRegex(ProxyError, r"did not start \(status 1\): .*guard.log"):
            await self.keeper().start()
        self.assertEqual(self.mine(), [])

    async def test_a_file_left_by_the_dead(self) -> None:
        """A pid that a dead one left behind is nobody's: who has it now is left alone."""
        other = psutil.Process()
        (self.prefix / "guard" / "pid").write_text(f"{other.pid} anotherversion\n")
        await self.started()
        self.assertNotEqual(self.pid(), other.pid)
        self.assertTrue(other.is_running())
        self.assertEqual(await self.ask(RIGHT), 200)


class GuardsTests(ProcessCase):
    async def test_what_is_written_counts_at_once(self) -> None:
        """The next check after a `write` is by what was written, each time of many."""
        await self.started()
        for number in range(10):
            users = CREW.users if number % 2 else {"ann": BOB}
            store.write(self.prefix, Guards({"/a": evolve(CREW, users=users)}))
            right = basic("ann", "ann's" if number % 2 else "bob's")
            self.assertEqual(await self.ask(right), 200, number)
        store.write(self.prefix, Guards())
        self.assertEqual(await self.ask(RIGHT), 503)

    async def test_damaged_is_nobodys(self) -> None:
        """With a file that is missing, damaged or says nothing of a service nobody gets in, not
        even who did before; with a whole one again, who may."""
        await self.started()
        file = self.prefix / "guard" / "guards.json"
        whole = file.read_bytes()
        self.assertEqual(await self.ask(RIGHT), 200)
        for said in (
            None,
            b"",
            b"{}",
            whole[:-9],
            b"[]",
            b"null",
            b'{"services": {"/a": null}}',
            b'{"services": {"/a": {"mode": "odd"}}}',
            b'{"services": {"/a": {"mode": "jwt"}}}',
            b'{"services": {"/a": {"mode": "htpasswd", "users": 7}}}',
            b"\xff" * 100,
        ):
            if said is None:
                file.unlink()
            else:
                file.write_bytes(said)
            self.assertEqual(await self.ask(RIGHT), 503, said)
            self.assertEqual(await self.ask(), 401 if said and b"odd" in said else 503, said)
        file.write_bytes(whole)
        self.assertEqual(await self.ask(RIGHT), 200)

    async def test_what_is_asked_may_be_long(self) -> None:
        """As many and as long headers as nginx takes are answered, and more are no yes."""
        await self.started()
        cookies = "; ".join(f"c{number}={'x' * 1000}" for number in range(100))
        self.assertEqual(await self.ask({**RIGHT, "Cookie": cookies}), 200)
        self.assertEqual(await self.ask({"Cookie": cookies}), 401)
        with contextlib.suppress(OSError):
            self.assertEqual(await self.ask({**RIGHT, "Cookie": cookies * 4}), 400)

    async def test_its_log(self) -> None:
        """A failed login is in the log with name and address; neither passwords nor hashes are."""
        await self.started()
        self.assertEqual(await self.ask(basic("ann", "5ecret")), 401)
        self.assertEqual(await self.ask(RIGHT), 200)
        await until(lambda: "the login of 'ann' from 127.0.0.1 failed" in self.log(), "the log")
        for secret in ("5ecret", "ann's", RIGHT["authorization"], CREW.users["ann"]):
            self.assertNotIn(secret, self.log())

    async def test_its_log_is_bounded(self) -> None:
        """A log that is full is put aside, once, while it goes on."""
        log = self.prefix / "logs" / "guard.log"
        log.write_bytes(b"x" * program.LOG_LIMIT)
        log.with_name("guard.log.1").write_text("older")
        await self.started()
        self.assertEqual(await self.ask(basic("ann", "wrong")), 401)
        await until(lambda: log.stat().st_size < 100_000 and "failed" in self.log(), "a new log")
        self.assertEqual(sorted(p.name for p in log.parent.iterdir()), ["guard.log", "guard.log.1"])
        self.assertGreaterEqual(log.with_name("guard.log.1").stat().st_size, program.LOG_LIMIT)


class ReaderTests(TestCase):
    def test_no_yes_by_an_old_file(self) -> None:
        """What could not be read does not leave what was read before in force."""
        prefix = Path(self.mktemp())
        (prefix / "guard").mkdir(parents=True)
        store.write(prefix, Guards({"/a": CREW}))
        read: Any = store.Reader(prefix)
        self.assertEqual(dict(read().services), {"/a": CREW})
        (prefix / "guard" / "guards.json").write_text("{")
        for _ in range(2):
            with self.assertRaises(ValueError):
                read()
        (prefix / "guard" / "guards.json").unlink()
        with self.assertRaises(OSError):
            read()
