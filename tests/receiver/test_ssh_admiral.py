"""`ssh admiral@ship`: shells, commands, files, terminals, by OpenSSH's clients and others."""

# Trial's assertions have no annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import pwd
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import asyncssh
import psutil
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from receiver.ssh.sftp import __file__ as conchs_sftp
from tests.receiver.ssh_case import ShipCase
from tests.receiver.ssh_ship import CLIENT_ENV, Ship, until

ME = "admiral@127.0.0.1"
MB = 1024 * 1024
FULL_SCREEN = """
import curses
def main(screen):
    while True:
        rows, columns = screen.getmaxyx()
        screen.erase()
        screen.addstr(rows - 1, 0, f"last line of {rows}x{columns}")
        screen.refresh()
        if screen.getch() == ord("q"):
            return
curses.wrapper(main)
"""
LETS_GO = """
import fcntl, signal, termios
signal.signal(signal.SIGHUP, signal.SIG_IGN)
fcntl.ioctl(0, termios.TIOCNOTTY)
print("on", flush=True)
signal.pause()
"""


class Screen:
    """A client at a terminal of its own, of so many rows and columns."""

    def __init__(self, ship: Ship, command: str, *options: str, size: tuple[int, int]) -> None:
        self._ours, theirs = pty.openpty()
        self.resize(*size)
        argv = (*ship.ssh("-t", *options), ME, *((command,) * bool(command)))
        env = {**CLIENT_ENV, "TERM": "xterm"}
        self.client = subprocess.Popen(
            argv, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True
        )
        os.close(theirs)
        os.set_blocking(self._ours, False)
        self.said = ""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def shows(self, text: str) -> bool:
        """Whether `text` has come since the last time that something was seen."""
        with contextlib.suppress(OSError):  # nothing new, or the end
            self.said += os.read(self._ours, 65536).decode("utf-8", "replace")
        if text not in self.said:
            return False
        self.said = self.said.partition(text)[2]
        return True

    def see(self, text: str) -> None:
        until(lambda: self.shows(text), f"{text!r} is seen, but {self.said!r}")

    def close(self) -> int:
        """The client's exit status."""
        try:
            return self.client.wait(15)
        finally:
            self.client.kill()
            self.client.wait()
            os.close(self._ours)


class Admirals(ShipCase):
    settings: ClassVar = {"grace": 0.5}

    def run_(self, command: str, *options: str, stdin: bytes = b"") -> Any:
        return self.ship.run(command, *options, stdin=stdin, account="admiral")

    def screen(self, command: str, *options: str, size: tuple[int, int] = (24, 80)) -> Screen:
        return Screen(self.ship, command, *options, size=size)

    def audit(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.ship.root / "audit.log").open()]

    def asked(
        self,
        talk: Callable[[asyncssh.SSHClientConnection], Awaitable[None]],
        ship: Ship | None = None,
    ) -> None:
        """Let an asyncssh client talk to the ship, this one if not another."""
        there = ship or self.ship

        async def main() -> None:
            async with asyncssh.connect(
                "127.0.0.1",
                there.port,
                username="admiral",
                client_keys=[str(there.alice)],
                known_hosts=None,
                config=None,
                agent_path=None,
            ) as connection:
                await talk(connection)

        asyncio.run(asyncio.wait_for(main(), 60))


class Commands(Admirals):
    def test_status_streams_and_half_close(self) -> None:
        """A command has the client's stdin to its end, stdout and stderr apart, and its own exit
        status."""
        ran = self.run_("cat; echo done; echo err >&2; exit 7", stdin=b"in\n")
        self.assertEqual((ran.returncode, ran.stdout), (7, b"in\ndone\n"))
        self.assertTrue(ran.stderr.endswith(b"err\n"))

    def test_a_pipe_that_breaks(self) -> None:
        """SIGPIPE is not ignored in what an admiral runs: `yes | head` ends."""
        ran = self.run_("yes | head -n 2; grep SigIgn /proc/self/status")
        self.assertEqual(ran.stdout.split()[:2], [b"y", b"y"])
        self.assertEqual(int(ran.stdout.split()[-1], 16) & (1 << (signal.SIGPIPE - 1)), 0)

    def test_the_environment_is_built_from_nothing(self) -> None:
        """What a command has: the account's own, the locale, the ship's; none of the client's nor
        of the ship's process."""
        hostile = (
            "-o",
            "SetEnv=LD_PRELOAD=/x.so BASH_ENV=/x LC_TIME=../../x PATH=/x LC_PAPER=C.UTF-8",
        )
        ran = self.run_("cat /proc/$$/environ; :", *hostile)
        env = dict(each.split("=", 1) for each in ran.stdout.decode().split("\0") if each)
        account = pwd.getpwuid(os.geteuid())
        self.assertEqual(env.pop("HOME"), str(self.ship.root))
        self.assertEqual({env.pop(name) for name in ("USER", "LOGNAME")}, {account.pw_name})
        self.assertEqual(env.pop("SHELL"), account.pw_shell)
        self.assertEqual(env.pop("STARPHLEET_ROOT"), str(self.ship.root))
        self.assertEqual(env.pop("STARPHLEET_SSH_PORT"), "2022")
        self.assertEqual(env.pop("STARPHLEET_OWNER"), "alice")
        self.assertRegex(env.pop("STARPHLEET_KEY"), r"SHA256:[A-Za-z0-9+/]{43}")
        self.assertRegex(env.pop("SSH_CONNECTION"), rf"127.0.0.1 \d+ 127.0.0.1 {self.ship.port}")
        self.assertRegex(env.pop("SSH_CLIENT"), rf"127.0.0.1 \d+ {self.ship.port}")
        self.assertTrue(env.pop("PATH").endswith(f":{Path(sys.executable).parent}"))
        self.assertEqual(env, {"LANG": "C.UTF-8", "LC_PAPER": "C.UTF-8"})

    def test_starphleet_is_there(self) -> None:
        """`starphleet` of the ship's own interpreter is found by commands and login shells."""
        found = str(Path(sys.executable).parent / "starphleet")
        self.assertEqual(self.run_("command -v starphleet").stdout.decode().strip(), found)
        ran = self.run_("", stdin=b"command -v starphleet; exit 3\n")
        self.assertEqual((ran.returncode, ran.stdout.decode().strip()), (3, found))

    def test_much_of_it(self) -> None:
        """200 MB each way leave the ship's memory as it was."""
        self.ship.idle_descriptors()
        before = self.ship.watched.memory_info().rss
        argv = (*self.ship.ssh(), ME)
        for command in (f"head -c {200 * MB} /dev/zero", f"head -c {200 * MB} | wc -c"):
            with Path("/dev/zero").open("rb") as zero:
                client = subprocess.Popen(
                    (*argv, command), stdin=zero, stdout=subprocess.PIPE, env=CLIENT_ENV
                )
                assert client.stdout is not None
                peak, size, end = before, 0, b""
                while end := client.stdout.read(8 * MB):
                    size, last = size + len(end), end
                    peak = max(peak, self.ship.watched.memory_info().rss)
                self.assertEqual(client.wait(), 0)
                client.stdout.close()
            self.assertLess(peak - before, 64 * MB)
            self.assertIn(str(200 * MB), (str(size), last.decode("latin-1").strip()))

    def test_signals(self) -> None:
        """A client's signal ends the command, and how it ended comes back by name."""

        async def talk(connection: asyncssh.SSHClientConnection) -> None:
            process = await connection.create_process("echo on; exec sleep 600")
            self.assertEqual(await process.stdout.readline(), "on\n")
            process.send_signal("USR1")
            done = await process.wait()
            self.assertEqual(done.exit_signal and done.exit_signal[0], "USR1")
            process = await connection.create_process(
                "trap 'echo caught; exit 4' TERM; echo on; while :; do sleep 0.05; done"
            )
            self.assertEqual(await process.stdout.readline(), "on\n")
            process.send_signal("TERM")
            done = await process.wait()
            self.assertEqual((done.exit_status, done.stdout), (4, "caught\n"))

        self.asked(talk)


class Terminals(Admirals):
    def test_a_login_shell(self) -> None:
        """A shell at a terminal has the client's kind and size of it, and ends as it says."""
        screen = self.screen("", size=(33, 101))
        screen.type("stty -echo; echo =$TERM=$(stty size)=$(tty | cut -c1-8)=\n")
        screen.see("=xterm=33 101=/dev/pts=")
        screen.type("[ -t 0 ] && [ -t 2 ] && [ $SSH_TTY = $(tty) ] && exit 9\n")
        self.assertEqual(screen.close(), 9)

    def test_jobs_and_ctrl_c(self) -> None:
        """Ctrl-C at the client ends the command in the foreground, not the shell; jobs stop and
        go on."""
        screen = self.screen("")
        screen.type("stty -echo; PS1=; echo rea''dy\n")
        screen.see("ready")
        screen.type("sleep 600\n")
        until(lambda: self.foreground() == "sleep", "sleep is in the foreground")
        screen.type("\x1a")
        screen.see("Stopped")
        screen.type("fg\n")
        until(lambda: self.foreground() == "sleep", "it is again")
        screen.type("\x03")
        screen.type("echo after=$?; exit 5\n")
        screen.see("after=130")
        self.assertEqual(screen.close(), 5)

    def test_a_signal_where_nobody_is_in_the_foreground(self) -> None:
        """A signal for a terminal that has nobody in the foreground is for the command, and never
        for the ship."""
        ship = Ship(prefix=("/usr/bin/setsid",))  # of a group of its own, not that of the tests
        self.addCleanup(ship.close)
        program = ship.root / "lets_go.py"
        program.write_text(LETS_GO)

        async def talk(connection: asyncssh.SSHClientConnection) -> None:
            command = f"exec {sys.executable} {program}"
            process = await connection.create_process(command, term_type="xterm")
            self.assertEqual((await process.stdout.readline()).strip(), "on")
            process.send_signal("USR1")
            done = await process.wait()
            self.assertEqual(done.exit_signal and done.exit_signal[0], "USR1")

        self.asked(talk, ship)
        self.assertIsNone(ship.process.poll())

    def foreground(self) -> str:
        """The name of what has the one terminal of the ship's children."""
        for each in self.ship.watched.children(recursive=True):
            fields = Path(f"/proc/{each.pid}/stat").read_text().rpartition(")")[2].split()
            if fields[2] == fields[5]:
                return each.name()
        return ""

    def test_a_full_screen_program(self) -> None:
        """A program that draws on the whole screen draws anew when the window changes."""
        program = self.ship.root / "full_screen.py"
        program.write_text(FULL_SCREEN)
        screen = self.screen(f"{sys.executable} {program}", size=(24, 80))
        screen.see("last line of 24x80")
        screen.resize(40, 120)
        screen.client.send_signal(signal.SIGWINCH)
        screen.see("last line of 40x120")
        screen.type("q")
        self.assertEqual(screen.close(), 0)

    def test_modes(self) -> None:
        """What the client's terminal does to characters, the ship's does."""

        async def talk(connection: asyncssh.SSHClientConnection) -> None:
            modes = {
                asyncssh.PTY_VINTR: 7,
                asyncssh.PTY_ECHO: 0,
                asyncssh.PTY_ONLCR: 0,
                asyncssh.PTY_VQUIT: 255,
                asyncssh.PTY_IUTF8: 1,
                asyncssh.PTY_OP_OSPEED: 9600,
            }
            done = await connection.run(
                "stty -a", term_type="vt100", term_size=(90, 30), term_modes=modes
            )
            said = str(done.stdout)
            self.assertIn("rows 30; columns 90", said)
            self.assertIn("intr = ^G", said)
            self.assertIn("quit = <undef>", said)
            for flag in ("-echo", "-onlcr", "icanon", "iutf8"):
                self.assertIn(f" {flag} ", said.replace("\n", " "))

        self.asked(talk)

    def test_kinds_of_terminals(self) -> None:
        """A TERM that is a path, or no name, is none of ours."""

        async def talk(connection: asyncssh.SSHClientConnection) -> None:
            for given, taken in (("xterm-256color", None), ("../../x", "dumb"), ("a;id", "dumb")):
                done = await connection.run("echo $TERM", term_type=given)
                self.assertEqual(str(done.stdout).strip(), taken or given)

        self.asked(talk)

    def test_what_is_left_behind_does_not_hold_the_session(self) -> None:
        """A job in the background that holds the terminal keeps neither the session nor its output
        from ending."""
        ran = self.run_("(trap '' HUP; exec sleep 600) & seq 5000; echo $! ; exit 3", "-tt")
        self.assertEqual(ran.returncode, 3)
        lines = ran.stdout.decode().split()
        left = psutil.Process(int(lines[-1]))
        self.assertEqual(lines[-5001:-1], [str(number) for number in range(1, 5001)])
        left.kill()

    def test_an_end_of_input(self) -> None:
        """When the client's input ends the program at the terminal is told so."""
        ran = self.run_("cat", "-tt", stdin=b"typed\n")
        self.assertEqual((ran.returncode, ran.stdout), (0, b"typed\r\ntyped\r\n"))


class Endings(Admirals):
    def test_a_client_that_is_killed(self) -> None:
        """`kill -9` of a client ends its command, at a terminal or not, within a moment; what was
        begun with nohup goes on."""
        for options in ((), ("-tt",)):
            self.killed(*options)

    def killed(self, *options: str) -> None:
        pids = self.ship.root / f"pids{len(options)}"
        told = f"echo $$ $! > {pids}.new; mv {pids}.new {pids}; sleep 600; :"
        argv = (*self.ship.ssh(*options), ME, f"nohup sleep 600 >/dev/null 2>&1 & {told}")
        client = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=CLIENT_ENV
        )
        until(pids.exists, "the command runs")
        shell, spared = (psutil.Process(int(pid)) for pid in pids.read_text().split())
        until(lambda: "sleep" in [each.name() for each in shell.children()[1:]], "it sleeps")
        ending = [shell, *(each for each in shell.children() if each.pid != spared.pid)]
        client.kill()
        client.communicate()
        until(lambda: all(map(gone, ending)), "its processes have ended", 3)
        self.run_("sleep 1")  # longer than the grace of others
        self.assertFalse(gone(spared))
        spared.kill()

    def test_nothing_is_left_after_fifty(self) -> None:
        """After 50 sessions, some of them killed, the ship has the descriptors, processes and
        terminals that it had."""
        before = self.ship.idle_descriptors()
        terminals = set(Path("/dev/pts").iterdir())
        clients = []
        for number in range(50):
            options = ("-tt",) if number % 2 else ()
            argv = (*self.ship.ssh(*options), ME, "echo on; cat")
            clients.append(
                subprocess.Popen(
                    argv,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=CLIENT_ENV,
                )
            )
        for number, client in enumerate(clients):
            assert client.stdout is not None
            self.assertEqual(client.stdout.readline().strip(), b"on")
            if number % 3 == 0:
                client.kill()
            client.communicate(timeout=60)
        until(lambda: not self.ship.watched.children(recursive=True), "children are reaped")
        until(lambda: self.ship.watched.num_fds() <= before, "descriptors are back")
        self.assertLessEqual(set(Path("/dev/pts").iterdir()), terminals)

    def test_the_audit_log(self) -> None:
        """Every session is a line: who, from where, what, how it ended, how long."""
        self.run_("exit 3")
        self.run_("kill -HUP $$")
        self.ship.run("words 3")
        self.run_("API_TOKEN=hunter2 true")
        client = subprocess.Popen((*self.ship.ssh(), ME, "sleep 600"), env=CLIENT_ENV)
        until(self.ship.watched.children, "it sleeps")
        client.kill()
        client.wait()
        wanted = [
            ("admiral", "exit 3", "exit 3"),
            ("admiral", "kill -HUP $$", "signal 1"),
            ("git", "words 3", "exit 7"),
            ("admiral", "API_TOKEN=\N{HORIZONTAL ELLIPSIS} true", "exit 0"),
            ("admiral", "sleep 600", "the client left"),
        ]

        def lines() -> list[dict[str, Any]]:
            said = {each[1] for each in wanted}
            return [each for each in self.audit() if each["did"] in said]

        until(lambda: len(lines()) >= 5, "all are there")
        self.assertEqual([(x["account"], x["did"], x["ended"]) for x in lines()], wanted)
        for line in lines():
            self.assertEqual((line["owner"], line["address"]), ("alice", "127.0.0.1"))
            self.assertTrue(line["key"].startswith("SHA256:"))
            self.assertLess(line["seconds"], 60)
        self.assertEqual((self.ship.root / "audit.log").stat().st_mode & 0o777, 0o600)


class Files(Admirals):
    def setUp(self) -> None:
        self.here = Path(self.mktemp()).absolute()
        self.tree = self.here / "tree"
        (self.tree / "deep").mkdir(parents=True)
        (self.tree / "deep" / "large").write_bytes(os.urandom(3 * MB))
        (self.tree / "run.sh").write_text("#!/bin/sh\n")
        (self.tree / "run.sh").chmod(0o755)
        self.there = self.here / "there"
        self.there.mkdir()

    def copied(self, *argv: str) -> None:
        """That a command copied `tree` to `there`."""
        ran = subprocess.run(argv, capture_output=True, env=CLIENT_ENV, timeout=60, check=False)
        self.assertEqual((ran.returncode, ran.stderr), (0, b""))
        self.assertEqual(
            (self.there / "tree" / "deep" / "large").read_bytes(),
            (self.tree / "deep" / "large").read_bytes(),
        )
        self.assertEqual((self.there / "tree" / "run.sh").stat().st_mode & 0o777, 0o755)

    def options(self, ship: Ship) -> list[str]:
        """For scp and sftp, which spell the port otherwise."""
        return ["-P" if each == "-p" else each for each in ship.ssh()[1:]]

    def test_scp(self) -> None:
        """scp copies a tree to the ship and back."""
        scp = ("scp", "-q", "-r", "-p", *self.options(self.ship))
        self.copied(*scp, str(self.tree), f"{ME}:{self.there}/")
        back = self.here / "back"
        subprocess.run((*scp, f"{ME}:{self.there}/tree", str(back)), check=True, env=CLIENT_ENV)
        self.assertEqual((back / "run.sh").read_text(), "#!/bin/sh\n")

    def test_scp_of_old(self) -> None:
        """So does scp by its own protocol, without SFTP."""
        scp = ("scp", "-O", "-q", "-r", "-p", *self.options(self.ship))
        self.copied(*scp, str(self.tree), f"{ME}:{self.there}/")

    def test_rsync(self) -> None:
        """rsync copies a tree, and then only what is missing."""
        shell = " ".join(self.ship.ssh())
        argv = ("rsync", "-a", "-e", shell, str(self.tree), f"{ME}:{self.there}/")
        self.copied(*argv)
        (self.there / "tree" / "run.sh").unlink()
        self.copied(*argv)

    def test_sftp(self) -> None:
        """sftp puts, lists, gets and removes."""
        self.sftp(self.ship)

    def sftp(self, ship: Ship) -> None:
        batch = self.here / "batch"
        batch.write_text(
            f"put {self.tree}/deep/large {self.there}/large\nls -l {self.there}\n"
            f"mkdir {self.there}/new\nrename {self.there}/large {self.there}/new/l\n"
            f"get {self.there}/new/l {self.here}/got\nrm {self.there}/new/l\n"
        )
        argv = ("sftp", "-q", "-b", str(batch), *self.options(ship), ME)
        ran = subprocess.run(argv, capture_output=True, env=CLIENT_ENV, timeout=60, check=False)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertIn(b"large", ran.stdout)
        large = (self.tree / "deep" / "large").read_bytes()
        self.assertEqual((self.here / "got").read_bytes(), large)
        self.assertEqual(list((self.there / "new").iterdir()), [])

    def test_sftp_where_openssh_is_not(self) -> None:
        """Without OpenSSH's server, Conch's does the same."""
        self.assertTrue(Path(conchs_sftp).exists())
        ship = Ship(sftp_servers=[])
        self.addCleanup(ship.close)
        self.sftp(ship)

    def test_sftp_by_others(self) -> None:
        """paramiko and asyncssh copy by SFTP too."""
        with self.ship.paramiko("admiral") as transport:
            client = transport.open_sftp_client()
            client.put(str(self.tree / "run.sh"), str(self.there / "one"))
            self.assertEqual(client.listdir(str(self.there)), ["one"])

        async def talk(connection: asyncssh.SSHClientConnection) -> None:
            async with connection.start_sftp_client() as sftp:
                await sftp.put(str(self.tree), str(self.there), recurse=True)

        self.asked(talk)
        self.assertEqual((self.there / "tree" / "run.sh").read_text(), "#!/bin/sh\n")

    def test_no_other_subsystem(self) -> None:
        """A subsystem that is not there is said not to be, and nothing is run."""
        ran = self.run_("sh", "-s")
        self.assertEqual((ran.returncode, ran.stdout), (1, b""))
        self.assertIn(b"no subsystem 'sh'", ran.stderr)


class OnARealShip(SynchronousTestCase):
    def test_the_system_account(self) -> None:
        """Where the ship is root and there is an account `admiral`, the shell is that account's:
        its user, groups, home, login shell, terminal and agent."""
        if os.geteuid() != 0:
            raise SkipTest("only root can become somebody else")
        here = Path(self.mktemp()).absolute()
        home = here / "home"
        home.mkdir(parents=True)
        os.chown(home, 4242, 4243)
        for parent in (here, *here.parents):
            if not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)
        account = f"admiral:x:4242:4243:Admiral:{home}:/bin/dash\n"
        (here / "passwd").write_text(Path("/etc/passwd").read_text() + account)
        groups = "admiral:x:4243:\nfleet:x:4244:admiral\n"
        (here / "group").write_text(Path("/etc/group").read_text() + groups)
        mounts = "".join(
            f"mount --bind {here}/{name} /etc/{name} && " for name in ("passwd", "group")
        )
        ship = Ship(prefix=("unshare", "--mount", "/bin/sh", "-c", f'{mounts}exec "$@"', "sh"))
        self.addCleanup(ship.close)
        run = partial(ship.run, account="admiral")
        asked = "id -u; id -g; id -G; pwd; echo $HOME $USER $SHELL; readlink /proc/$$/exe"
        said = run(asked).stdout.decode().split("\n")
        self.assertEqual(said[:3], ["4242", "4243", "4243 4244"])
        self.assertEqual(said[3:5], [str(home), f"{home} admiral /bin/dash"])
        self.assertEqual(Path(said[5]).name, "dash")
        self.assertEqual(run("grep CapEff /proc/self/status").stdout.split()[1].strip(b"0"), b"")
        self.assertEqual(run("stat -c %u $(tty)", "-tt").stdout.strip(), b"4242")
        self.assertEqual(run("cat /etc/shadow").returncode, 1)
        batch = here / "batch"
        batch.write_text("put /etc/hostname put\n")
        options = ["-P" if each == "-p" else each for each in ship.ssh()[1:]]
        subprocess.run(
            ("sftp", "-q", "-b", str(batch), *options, ME),
            check=True,
            stdout=subprocess.DEVNULL,
            env=CLIENT_ENV,
        )
        self.assertEqual((home / "put").stat().st_uid, 4242)
        home.rename(here / "away")
        self.assertEqual(run("pwd").stdout, b"/\n")


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
