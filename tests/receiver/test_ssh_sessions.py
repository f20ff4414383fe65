"""What a logged-in client gets: commands, texts, exit statuses, git."""

# Trial's assertions have no annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import os
import pty
import subprocess
from functools import partial
from typing import ClassVar

import psutil

from tests.receiver.ssh_case import ShipCase
from tests.receiver.ssh_ship import CLIENT_ENV, until


class Sessions(ShipCase):
    settings: ClassVar = {"grace": 0.5}

    def test_push_and_fetch(self) -> None:
        """A repository pushed by git comes back whole by git."""
        work, back = self.ship.root / "work", self.ship.root / "back"
        bare = self.ship.root / "app.git"
        git = self.ship.git
        for where in (work, bare):
            git(
                "init",
                "-q",
                "-b",
                "master",
                *("--bare",) * (where == bare),
                str(where),
                cwd=self.ship.root,
            )
        for number in range(10):
            (work / f"file{number}").write_text("some text\n" * 100 * number)
        (work / "large").write_bytes(os.urandom(3_000_000))
        git("add", "-A", cwd=work)
        git("commit", "-qm", "first", cwd=work)
        url = f"ssh://git@127.0.0.1:{self.ship.port}/app.git"
        pushed = git("push", "-q", url, "master", cwd=work)
        self.assertEqual((pushed.returncode, pushed.stderr), (0, ""))
        cloned = git("clone", "-q", url, str(back), cwd=work)
        self.assertEqual((cloned.returncode, cloned.stderr), (0, ""))
        heads = [git("rev-parse", "HEAD^{tree}", cwd=where).stdout for where in (work, back)]
        self.assertEqual(heads[0], heads[1])

    def test_protocol_version_2_reaches_git(self) -> None:
        """The client's GIT_PROTOCOL is in the environment of git."""
        ran = self.ship.run("env", "-o", "SetEnv=GIT_PROTOCOL=version=2")
        self.assertIn(b"GIT_PROTOCOL=version=2\n", ran.stdout)

    def test_statuses_and_streams(self) -> None:
        """The exit status is the child's, and stdout and stderr come apart."""
        for status in (0, 1, 2, 127, 255):
            ran = self.ship.run(f"sh echo out; echo err >&2; exit {status}")
            self.assertEqual((ran.returncode, ran.stdout, ran.stderr), (status, b"out\n", b"err\n"))

    def test_hundred_statuses_over_one_connection(self) -> None:
        """With a ControlMaster, not one of 100 commands reports another's or no status."""
        control = f"ControlPath={self.ship.root / 'control'}"
        argv = (*self.ship.ssh("-N", "-M", "-o", control), "git@127.0.0.1")
        master = subprocess.Popen(argv, env=CLIENT_ENV)
        self.addCleanup(master.wait)
        self.addCleanup(master.terminate)
        until((self.ship.root / "control").exists, "the master's socket")
        endings = [("exit 0", 0), ("exit 1", 1), ("exit 255", 255), ("kill -TERM $$", 255)]
        for run in range(100):
            how, status = endings[run % 4]
            ran = self.ship.run(f"sh echo {run}; {how}", "-o", control)
            self.assertEqual((ran.returncode, ran.stdout), (status, b"%d\n" % run))

    def test_child_that_closes_its_output_early(self) -> None:
        """A child that closes stdout and stderr long before it exits still reports its status."""
        self.assertEqual(self.ship.run("sh exec >&- 2>&-; sleep 0.1; exit 4").returncode, 4)

    def test_child_that_does_not_read(self) -> None:
        """A child that exits, or closes its stdin, while data comes in ends as it says itself."""
        data = bytes(8_000_000)
        self.assertEqual(self.ship.run("sh exit 3", stdin=data).returncode, 3)
        closed = self.ship.run("sh exec <&-; sleep 0.2; echo alive", stdin=data)
        self.assertEqual((closed.returncode, closed.stdout), (0, b"alive\n"))

    def test_child_gone_before_its_output_is_read(self) -> None:
        """Everything that a child wrote before it exited arrives."""
        ran = self.ship.run("sh head -c 60000 /dev/zero; head -c 60000 /dev/zero >&2")
        self.assertEqual((len(ran.stdout), len(ran.stderr)), (60000, 60000))

    def test_greeting_at_a_terminal(self) -> None:
        """`ssh git@ship` from a terminal gets no pty and no shell, but a greeting by name."""
        theirs, ours = pty.openpty()
        argv = (*self.ship.ssh(), "git@127.0.0.1")
        client = subprocess.Popen(argv, stdin=ours, stdout=ours, stderr=ours, env=CLIENT_ENV)
        os.close(ours)
        said = b""
        try:
            while chunk := os.read(theirs, 4096):
                said += chunk
        except OSError:  # a terminal's end of file
            pass
        os.close(theirs)
        self.assertEqual(client.wait(), 0)
        expected = "PTY allocation request failed on channel 0|Hello alice.|Push with git."
        self.assertEqual(
            [line.rstrip() for line in said.decode().splitlines()], expected.split("|")
        )

    def test_long_words(self) -> None:
        """A text larger than one packet and than the window arrives whole, then its status."""
        ran = self.ship.run("words 5000000")
        self.assertEqual((ran.returncode, len(ran.stderr)), (7, 5_000_000))

    def test_a_room_that_breaks(self) -> None:
        """An exception in a room is one line and status 1, with a traceback in the log."""
        ran = self.ship.run("boom")
        self.assertEqual((ran.returncode, ran.stdout, ran.stderr), (1, b"", b"internal error\n"))
        self.assertIn("RuntimeError: a room that breaks: boom", self.ship.log.read_text())
        self.assertEqual(self.ship.run("who").returncode, 0)

    def test_login_names_account_owner_and_peer(self) -> None:
        """A room learns the account, the key's owner and the client's address."""
        self.assertEqual(self.ship.run("who").stderr, b"git alice 127.0.0.1\n")
        self.assertEqual(self.ship.run("", account="captain").stderr, b"a captain\n")

    def test_commands_that_are_no_text(self) -> None:
        """A command that is not UTF-8, or is too long, is refused with one line."""
        argv = (*self.ship.ssh(), "git@127.0.0.1")
        ran = subprocess.run((*argv, b"sh \xff"), capture_output=True, env=CLIENT_ENV, check=False)
        self.assertEqual((ran.returncode, ran.stderr), (1, b"a command must be UTF-8\n"))
        ran = self.ship.run("sh " + "x" * 20000)
        self.assertEqual(ran.stderr, b"a command is at most 16384 bytes long\n")

    def test_a_client_that_leaves_takes_its_command_along(self) -> None:
        """The whole process group gets SIGHUP when the client goes, SIGKILL if that is ignored."""
        for trap in ("", "trap '' HUP; "):
            pids = self.ship.root / f"pids{len(trap)}"
            command = f"sh {trap}sleep 600 & echo $$ $! > {pids}.new; mv {pids}.new {pids}; wait"
            argv = (*self.ship.ssh(), "git@127.0.0.1", command)
            client = subprocess.Popen(argv, stdin=subprocess.DEVNULL, env=CLIENT_ENV)
            until(pids.exists, "the command runs")
            children = [psutil.Process(int(pid)) for pid in pids.read_text().split()]
            client.kill()
            client.wait()
            for child in children:
                until(partial(gone, child), "its processes have ended")


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
