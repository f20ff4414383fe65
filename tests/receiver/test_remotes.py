"""Data of remotes beside what services write, on a real filesystem, from real repositories."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from threading import Event, Thread
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, gatherResults

from hooks.errors import Refused, ShipError
from hooks.repository import Repository
from receiver.headquarters import carrying, directories, remotes
from receiver.headquarters.remote import Remote
from receiver.headquarters.remotes import lay_remote
from tests.receiver.git_scene import GitCase, git, local_git

Files = dict[str, str | None]


def put(root: Path, files: Files) -> None:
    """Write these files below `root`; `None` removes one, "-> x" makes a link, "+x" a program."""
    for name, text in files.items():
        path = root / name
        path.unlink(missing_ok=True)
        if text is None:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            path.symlink_to(text[3:])
        else:
            path.write_text(text)
            path.chmod(0o755 if text == "+x" else 0o644)


def seen(root: Path) -> dict[str, str]:
    """All files below `root`, without following links."""
    found = {}
    for at, below, names in os.walk(root):
        for name in (*names, *(n for n in below if (Path(at) / n).is_symlink())):
            path = Path(at) / name
            link = path.is_symlink()
            text = f"-> {path.readlink()}" if link else path.read_text()
            found[str(path.relative_to(root))] = text
    return found


class RemoteCase(GitCase):
    def setUp(self) -> None:
        super().setUp()
        self.data = self.layout.data
        self.manifests = self.layout.standing / "remotes"
        self.repository = Repository(self.work.path / ".git", local_git)
        git(self.work.path, "rm", "-q", "file")

    def version(self, files: Files) -> str:
        """A commit with exactly these files."""
        if git(self.work.path, "ls-files"):
            git(self.work.path, "rm", "-rqf", ".")
        put(self.work.path, files)
        git(self.work.path, "add", "-A")
        git(self.work.path, "commit", "-q", "--allow-empty", "-m", "x")
        return self.work.tip()

    async def lay(self, path: str, commit: str, *nested: str) -> None:
        await lay_remote(reactor, self.layout, path, self.repository, commit, nested=nested)

    async def laid(self, path: str, files: Files, *nested: str) -> str:
        commit = self.version(files)
        await self.lay(path, commit, *nested)
        return commit

    def nothing_is_left(self) -> None:
        self.assertEqual(list((self.manifests / ".laying").iterdir()), [])
        self.assertEqual(list(self.layout.scratch.iterdir()), [])


class OneDirectory(RemoteCase):
    async def test_first(self) -> None:
        """All files are there, executable or links as in git, in directories for everybody."""
        await self.laid("t", {"a": "1", "run": "+x", "d/l": "-> ../a", "out": "-> /etc"})
        expected = {"a": "1", "run": "+x", "d/l": "-> ../a", "out": "-> /etc"}
        self.assertEqual(seen(self.data / "t"), expected)
        modes = {n: stat.S_IMODE((self.data / "t" / n).lstat().st_mode) for n in ("a", "run", "d")}
        self.assertEqual(modes, {"a": 0o644, "run": 0o755, "d": 0o777})
        self.assertEqual(stat.S_IMODE((self.data / "t").stat().st_mode), 0o777)
        self.nothing_is_left()

    async def test_next(self) -> None:
        """What is no longer in the repository goes, also its directory; what services wrote stays,
        with its owner and mode, files and directories the very ones that they were."""
        await self.laid("t", {"a": "1", "old/b": "1", "both/c": "1"})
        t = self.data / "t"
        put(t, {"own": "s", "logs/deep/log": "s", "both/own": "s", "old-own": "-> nowhere"})
        (t / "empty").mkdir()
        os.mkfifo(t / "pipe")
        for name in ("logs", "both", "own"):
            (t / name).chmod(0o750)
            if os.geteuid() == 0:
                os.chown(t / name, 20000, 20001)
        kept = ("own", "logs", "logs/deep/log", "both/own", "old-own", "empty", "pipe")
        before = {n: (t / n).lstat() for n in kept}
        both = (t / "both").stat()
        await self.laid("t", {"a": "2", "both/d": "2"})
        for name, status in before.items():
            now = (t / name).lstat()
            for what in ("st_ino", "st_uid", "st_gid", "st_mode", "st_nlink"):
                self.assertEqual(getattr(now, what), getattr(status, what), (name, what))
        self.assertEqual(owner_and_mode((t / "both").stat()), owner_and_mode(both))
        (t / "pipe").unlink()
        expected = {"a": "2", "both/d": "2", "own": "s", "logs/deep/log": "s", "both/own": "s"}
        self.assertEqual(seen(t), expected | {"old-own": "-> nowhere"})
        self.assertFalse((t / "old").exists())
        self.nothing_is_left()

    async def test_a_file_of_the_repository_that_a_service_changed(self) -> None:
        """The next version has it as the repository has it."""
        await self.laid("t", {"a": "1", "b": "1", "c": "1"})
        put(self.data / "t", {"a": "mine", "b": None, "c": "mine"})
        await self.laid("t", {"a": "1", "b": "1"})
        self.assertEqual(seen(self.data / "t"), {"a": "1", "b": "1"})

    async def test_the_same_commit(self) -> None:
        """Nothing is done, unless the directory is gone."""
        commit = await self.laid("t", {"a": "1"})
        put(self.data / "t", {"a": "mine"})
        before = (self.data / "t").stat().st_ino
        await self.lay("t", commit)
        self.assertEqual((self.data / "t").stat().st_ino, before)
        self.assertEqual(seen(self.data / "t"), {"a": "mine"})
        (self.data / "t").rename(self.data / "moved")
        await self.lay("t", commit)
        self.assertEqual(seen(self.data / "t"), {"a": "1"})

    async def test_links_of_services(self) -> None:
        """Are not followed: kept where the repository has nothing, else replaced."""
        outside = self.home / "outside"
        put(outside, {"x": "safe", "d/y": "safe"})
        await self.laid("t", {"d/y": "1", "e/y": "1", "gone/y": "1"})
        t = self.data / "t"
        for name in ("d", "e", "gone"):
            (t / name).rename(self.data / f"was-{name}")
            (t / name).symlink_to(outside / "d")
        own: Files = {"own": f"-> {outside}", "too": f"-> {outside}/x"}
        put(t, own | {"f": f"-> {outside}/x"})
        await self.laid("t", {"d/y": "2", "e": "2", "f": "2"})
        expected = own | {"d/y": "2", "e": "2", "f": "2", "gone": f"-> {outside}/d"}
        self.assertEqual(seen(t), expected)
        self.assertEqual(seen(outside), {"x": "safe", "d/y": "safe"})

    async def test_something_else_in_its_place(self) -> None:
        """A link at the remote's path is replaced; one above it is refused in one line."""
        outside = self.home / "outside"
        outside.mkdir()
        (self.data / "t").symlink_to(outside)
        await self.laid("t", {"a": "1"})
        self.assertEqual(seen(self.data), {"t/a": "1"})
        (self.data / "u").symlink_to(outside)
        with self.assertRaisesRegex(Refused, "^/var/data/u/v: 'u' is no directory there$"):
            await self.laid("u/v", {"a": "1"})
        self.assertEqual(seen(outside), {})

    async def test_a_directory_of_services_where_the_repository_has_a_file(self) -> None:
        """Is refused, and all stays; one with nothing but files of the repository is replaced."""
        await self.laid("t", {"d/e/y": "1", "a": "1"})
        put(self.data / "t", {"d/e/own": "s"})
        with self.assertRaisesRegex(Refused, "t/d/e/own"):
            await self.laid("t", {"d": "2"})
        self.assertEqual(seen(self.data / "t"), {"d/e/y": "1", "a": "1", "d/e/own": "s"})
        (self.data / "t/d/e/own").unlink()
        await self.laid("t", {"d": "2"})
        self.assertEqual(seen(self.data / "t"), {"d": "2"})
        self.nothing_is_left()

    async def test_too_deep(self) -> None:
        """Directories without end are refused; nothing changes."""
        await self.laid("t", {"a": "1"})
        (self.data / "t" / "/".join("x" * 150)).mkdir(parents=True)
        with self.assertRaisesRegex(Refused, "100 deep"):
            await self.laid("t", {"a": "2"})
        self.assertEqual(seen(self.data / "t"), {"a": "1"})
        self.nothing_is_left()

    async def test_a_commit_that_is_not_there(self) -> None:
        """Is an error, and the version before stays."""
        await self.laid("t", {"a": "1"})
        with self.assertRaises(ShipError):
            await self.lay("t", "ab" * 20)
        self.assertEqual(seen(self.data / "t"), {"a": "1"})
        self.nothing_is_left()

    async def test_odd_names(self) -> None:
        """Names that are not UTF-8, have a newline, or look like the ship's, are names."""
        files: Files = {"\udcff": "1", "a\nb": "1", "%2Ft": "1", ".laying/x": "1", "tree/y": "1"}
        await self.laid("t u/v", files)
        self.assertEqual(seen(self.data / "t u/v"), files)
        await self.laid("t u/v", {"\udcff": "2"})
        self.assertEqual(seen(self.data / "t u/v"), {"\udcff": "2"})

    async def test_no_exchange_in_one_step(self) -> None:
        """Where the filesystem cannot exchange, it is done in steps, to the same end."""
        for module in (directories, carrying):
            self.patch(module, "exchange", cannot)
        await self.laid("t", {"a": "1"})
        put(self.data / "t", {"own": "s", "d/own": "s"})
        await self.laid("t", {"b": "2"})
        self.assertEqual(seen(self.data / "t"), {"b": "2", "own": "s", "d/own": "s"})
        self.nothing_is_left()

    async def test_nobody_waits_any_more(self) -> None:
        """What was begun is done to its end, and only then the next."""
        begun = self.started(self.lay("t", self.version({"a": "1"})))
        begun.addErrback(lambda failure: failure.trap(CancelledError))
        begun.cancel()
        await self.laid("u", {"b": "2"})
        self.assertEqual(seen(self.data), {"t/a": "1", "u/b": "2"})

    async def test_in_turn(self) -> None:
        """Calls at the same time are done one after the other, the last one last."""
        commits = [self.version({"a": str(i)}) for i in range(5)]
        await gatherResults(
            [self.started(self.lay(p, c)) for c in commits for p in ("t", "", "t/u")]
        )
        self.assertEqual(seen(self.data), dict.fromkeys(("a", "t/a", "t/u/a"), "4"))


def owner_and_mode(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_uid, status.st_gid, status.st_mode


def cannot(*_: Any) -> None:
    raise OSError(errno.EINVAL, "no such thing here")


class Nested(RemoteCase):
    async def test_survives(self) -> None:
        """A remote inside of another is not touched by that one's next version."""
        await self.laid("t", {"a": "1"}, "t/in/n")
        await self.laid("t/in/n", {"b": "1"}, "t")
        put(self.data / "t/in/n", {"own": "s"})
        before = (self.data / "t/in/n").stat().st_ino
        await self.laid("t", {"a": "2"}, "t/in/n")
        self.assertEqual(seen(self.data / "t"), {"a": "2", "in/n/b": "1", "in/n/own": "s"})
        self.assertEqual((self.data / "t/in/n").stat().st_ino, before)
        await self.laid("t/in/n", {"c": "2"}, "t")
        self.assertEqual(seen(self.data / "t"), {"a": "2", "in/n/c": "2", "in/n/own": "s"})

    async def test_wins(self) -> None:
        """Files that the outer repository has there, or in the way, are not laid."""
        files: Files = {"a": "1", "n/b": "outer", "n/c/d": "outer", "m": "outer", "k": "outer"}
        await self.laid("t", files, "t/n", "t/m", "t/k/l", "nn", "tt/a")
        self.assertEqual(seen(self.data / "t"), {"a": "1"})
        await self.laid("t/n", {"b": "inner"}, "t")
        await self.laid("t", files | {"n/b": "outer 2"}, "t/n")
        expected = {"a": "1", "n/b": "inner", "m": "outer", "k": "outer"}
        self.assertEqual(seen(self.data / "t"), expected)

    async def test_comes_where_the_outer_one_was(self) -> None:
        """What the outer one laid there goes with the first version; what services wrote stays."""
        await self.laid("x/t", {"a": "1", "n/b": "outer", "n/c": "outer"})
        put(self.data / "x/t/n", {"own": "s"})
        await self.laid("x/t/n", {"c": "inner"}, "x/t")
        self.assertEqual(seen(self.data / "x/t/n"), {"c": "inner", "own": "s"})
        inode = (self.data / "x/t/n").stat().st_ino
        await self.laid("x/t", {"a": "2"}, "x/t/n")
        self.assertEqual((self.data / "x/t/n").stat().st_ino, inode)
        self.assertEqual(seen(self.data / "x/t"), {"a": "2", "n/c": "inner", "n/own": "s"})

    async def test_the_outer_one_leaves_data_of_one_that_is_gone(self) -> None:
        """Data of a remote that is no more stays, like that of services."""
        await self.laid("t/n", {"b": "1"})
        await self.laid("t", {"a": "1"})
        self.assertEqual(seen(self.data / "t"), {"a": "1", "n/b": "1"})


class Root(RemoteCase):
    async def test_in_place(self) -> None:
        """The directory itself stays, with other remotes and what services wrote; entries of the
        repository come and go."""
        inode = self.data.stat().st_ino
        put(self.data, {"own": "s", "theirs/x": "s", "d/own": "s", "file": "s"})
        await self.laid("t", {"b": "inner"}, "")
        theirs = (self.data / "theirs").stat().st_ino
        await self.laid("", {"a": "1", "d/x": "1", "e/y": "1", "t/b": "o", "file": "1"}, "t")
        services = {"own": "s", "theirs/x": "s", "d/own": "s", "t/b": "inner"}
        self.assertEqual(
            seen(self.data), services | {"a": "1", "d/x": "1", "e/y": "1", "file": "1"}
        )
        put(self.data, {"e/own": "s", "a": "-> own"})
        await self.laid("", {"a": "2", "f/z": "2"}, "t")
        self.assertEqual(seen(self.data), services | {"e/own": "s", "a": "2", "f/z": "2"})
        self.assertEqual(self.data.stat().st_ino, inode)
        self.assertEqual((self.data / "theirs").stat().st_ino, theirs)
        await self.laid("", {}, "t")
        self.assertEqual(seen(self.data), services | {"e/own": "s"})
        self.assertFalse((self.data / "f").exists())
        self.nothing_is_left()

    async def test_a_service_put_something_else_there(self) -> None:
        """Where an entry of the repository was and is no more, what a service put there stays."""
        await self.laid("", {"a": "1", "d/x": "1"})
        put(self.data, {"a": None, "a/own": "s", "d/x": None})
        (self.data / "d").rmdir()
        put(self.data, {"d": "s"})
        commit = await self.laid("", {"b": "2"})
        self.assertEqual(seen(self.data), {"a/own": "s", "d": "s", "b": "2"})
        (self.data / "b").unlink()
        await self.lay("", commit)
        self.assertFalse((self.data / "b").exists())


class Meanwhile(RemoteCase):
    """Services that go on while versions come."""

    def beside(self, work: Callable[[], None]) -> Callable[[], None]:
        """Do `work` over and over in a thread; what is given ends it, and raises what it raised."""
        end, failed = Event(), []

        def go() -> None:
            try:
                while not end.is_set():
                    work()
            except BaseException as error:
                failed.append(error)

        thread = Thread(target=go)
        thread.start()

        def stop() -> None:
            end.set()
            thread.join()
            if failed:
                raise failed[0]

        return stop

    async def test_readers(self) -> None:
        """Who reads two files in one directory never has them from two versions."""
        looked = []

        def look() -> None:
            directory = os.open(self.data / "t", os.O_RDONLY)
            try:
                texts = []
                for name in ("a", "z"):
                    fd = os.open(name, os.O_RDONLY, dir_fd=directory)
                    texts.append(os.read(fd, 9))
                    os.close(fd)
                looked.append(texts)
            except FileNotFoundError:
                pass  # the old version went away meanwhile
            finally:
                os.close(directory)

        await self.laid("t", {"a": "0", "z": "0"})
        stop = self.beside(look)
        for i in range(1, 20):
            await self.laid("t", {"a": str(i), "z": str(i)})
        stop()
        self.assertEqual([texts for texts in looked if texts[0] != texts[1]], [])
        self.assertGreater(len({texts[0] for texts in looked}), 5)

    async def test_open_files(self) -> None:
        """A log that is open goes on in the same file."""
        await self.laid("t", {"a": "0"})
        with (self.data / "t/log").open("w", buffering=1) as log:
            for i in range(3):
                log.write(f"{i}\n")
                await self.laid("t", {"a": str(i + 1)})
            log.write("end\n")
        self.assertEqual((self.data / "t/log").read_text(), "0\n1\n2\nend\n")

    async def test_writers(self) -> None:
        """Files made, replaced and removed while versions come are as the service left them."""
        await self.laid("t", {"a": "0", "d/a": "0"})
        t = self.data / "t"
        expected: dict[str, str] = {}
        (t / "spool").mkdir()
        count = 0

        def write(name: str, text: str) -> None:
            while True:  # what was made in the old directory is away for a moment
                with contextlib.suppress(FileNotFoundError):
                    (t / f"{name}.new").write_text(text)
                    (t / f"{name}.new").rename(t / name)
                    break
            expected[name] = text

        def work() -> None:
            nonlocal count
            count += 1
            for directory in ("", "d/", "spool/"):
                write(f"{directory}{count}", "new")
                write(f"{directory}counter", str(count))
                old = f"{directory}{count - 5}"
                with contextlib.suppress(FileNotFoundError):
                    (t / old).unlink()
                    del expected[old]

        stop = self.beside(work)
        for i in range(1, 20):
            await self.laid("t", {"a": str(i), "d/a": str(i)})
        stop()
        self.assertGreater(count, 20)
        now = {name: text for name, text in seen(t).items() if not name.endswith(".new")}
        self.assertEqual(now, expected | {"a": "19", "d/a": "19"})

    async def test_removed_in_the_last_moment(self) -> None:
        """What a service removes from the old version after that was looked through is gone."""
        await self.laid("t", {"a": "0"})
        t = self.data / "t"
        put(t, {"own": "s", "replaced": "s", "kept": "s"})
        (t / "empty").mkdir()
        look = directories.entries

        def entries(directory: int) -> list[tuple[str, os.stat_result]]:
            is_old = os.fstat(directory).st_ino != t.stat().st_ino
            if is_old and "replaced" in os.listdir(directory):
                os.unlink("replaced", dir_fd=directory)
                Path(f"/proc/self/fd/{directory}/replaced").write_text("anew")
            found = list(look(directory))
            if is_old and "own" in dict(found):
                for name in ("own", "replaced"):
                    os.unlink(name, dir_fd=directory)
                os.rmdir("empty", dir_fd=directory)
            return found

        self.patch(carrying, "entries", entries)
        await self.laid("t", {"a": "1"})
        self.assertEqual(sorted(path.name for path in t.iterdir()), ["a", "kept"])


ONE: Files = {"a": "1", "d/b": "1", "gone/c": "1", "e/f": "1"}
TWO: Files = {"a": "2", "d/b": "2", "taken": "2", "fresh/g": "2"}
OWN: Files = {"own": "s", "d/own": "s", "gone/own": "s", "logs/x/log": "s", "d/link": "-> own"}
TAKEN: Files = {"taken": "s"}
LAST: Files = {"y": "4"}


class Killed(RemoteCase):
    """The ship is killed at each step, and the next one goes on."""

    async def kill_at(self, path: str, step: int, *, exchange: bool) -> bool:
        """Lay `ONE` and then `TWO`, but be killed before a step; whether there were so many."""
        await self.lay(path, self.one, self.inner(path))
        put(self.data / path, OWN | TAKEN)
        await self.lay(self.inner(path), self.nested)
        unit = path.rpartition("/")[2]
        remote = Remote(self.data, path, self.manifests, frozenset({self.inner(unit)}))
        self.assertFalse(remotes._begin(remote, self.two))
        await self.repository.lay(self.two, remote.fresh, self.layout.scratch)
        ended = in_a_child(lambda: renewed(remote, self.two, step, exchange))
        self.assertIn(ended, (0, 9))
        return ended == 9

    def inner(self, path: str) -> str:
        return f"{path}/n".lstrip("/")

    async def steps(self, path: str, then: Files | None, *, exchange: bool = True) -> int:
        """Be killed at every step, and lay `then`, or what should have been laid."""
        self.one, self.nested = self.version(ONE), self.version({"nested": "1"})
        self.two = self.version(TWO)
        next = self.version(then) if then is not None else self.two
        last = self.version(LAST)
        below = self.data / path
        for step in range(1, 1000):
            going_on = await self.kill_at(path, step, exchange=exchange)
            own: Files = OWN | {"n/nested": "1"}
            now = seen(below)
            if exchange:
                self.assertLessEqual(own.items(), now.items(), f"step {step}")
            if then is not None and now.get("taken") != "2":
                own |= TAKEN
            for commit, files in ((next, TWO if then is None else then), (last, LAST)):
                await self.lay(path, commit, self.inner(path))
                self.assertEqual(seen(below), own | files, f"step {step}")
                self.assertFalse((below / "e").exists())
                self.nothing_is_left()
            if not going_on:
                return step
            self.empty(self.data)
            self.empty(self.manifests)
        raise AssertionError("it never ends")

    def empty(self, directory: Path) -> None:
        shutil.rmtree(directory)
        directory.mkdir()

    async def test_then_the_same(self) -> None:
        """The next call lays what the killed one was to lay."""
        self.assertGreater(await self.steps("x/t", None), 30)

    async def test_then_another(self) -> None:
        """A later version finds which files are the ship's and which are not."""
        await self.steps("x/t", {"z": "3"})

    async def test_the_root(self) -> None:
        """Some entries exchanged and others not are told from each other."""
        await self.steps("", {"z": "3"})

    async def test_in_several_steps(self) -> None:
        """Where the filesystem cannot exchange, nothing is lost either."""
        await self.steps("t", {"z": "3"}, exchange=False)


def in_a_child(work: Callable[[], None]) -> int:
    """The exit status of a process that does `work`."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            work()
            os._exit(0)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def renewed(remote: Remote, commit: str, step: int, exchange: bool) -> None:
    die_at(step, exchange)
    remotes._renew(remote, commit)


def die_at(step: int, exchange: bool) -> None:
    """End this process before its step of that number that changes something on the disk."""
    left = step

    def count(event: str, args: Any) -> None:
        nonlocal left
        if event in CHANGES or (event == "open" and args[1] == "w"):
            left -= 1
            if left == 0:
                os._exit(9)

    real = directories.exchange

    def exchanged(*args: Any) -> None:
        count("os.rename", ())
        (real if exchange else cannot)(*args)

    for module in (directories, carrying):
        setattr(module, "exchange", exchanged)  # noqa: B010
    sys.addaudithook(count)


CHANGES: Collection[str] = ("os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir")
