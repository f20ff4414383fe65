"""Archives that somebody else made, unpacked by root: nothing leaves the directory."""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import os
import stat
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from containers.files import remove
from containers.interface import ContainerError
from containers.lxc.idmap import outside
from containers.lxc.pack import pack
from containers.lxc.tree import furnish, shift
from containers.lxc.unpack import unpack

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")

BUDGET = 1 << 24


def member(name: str, data: bytes = b"", **what: Any) -> tuple[tarfile.TarInfo, bytes]:
    """A member of an archive: a file with `data`, or `what` says what else."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in what.items():
        setattr(info, key, value)
    return info, data


def directory(name: str, **what: Any) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, b"", **{"type": tarfile.DIRTYPE, "mode": 0o755, **what})


def symlink(name: str, to: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.SYMTYPE, linkname=to)


def hardlink(name: str, to: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.LNKTYPE, linkname=to)


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """A plain archive of these members."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


class UnpackTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.around = Path(tempfile.mkdtemp(prefix="unpack-"))
        self.addCleanup(remove, self.around)
        self.top = self.around / "top"
        self.top.mkdir()
        self.secret = self.around / "secret"
        self.secret.write_text("untouched")

    def unpack(self, *members: tuple[tarfile.TarInfo, bytes], budget: int = BUDGET) -> None:
        unpack(io.BytesIO(tar(*members)), self.top, budget)

    def refuses(self, why: str, *members: tuple[tarfile.TarInfo, bytes]) -> None:
        """It is refused in one line, and nothing outside has changed."""
        with self.assertRaisesRegex(ContainerError, why) as caught:
            self.unpack(*members)
        self.assertNotIn("\n", str(caught.exception))
        self.assertEqual(self.secret.read_text(), "untouched")
        self.assertEqual(names(self.around), ["secret", "top"])

    def test_whole(self) -> None:
        """Files, directories, links, modes and times come out; owners are those outside."""
        self.unpack(
            directory("./usr/bin", mode=0o755),
            member("./usr/bin/su", b"su", mode=0o4755, mtime=1_000_000),
            hardlink("./usr/bin/again", "./usr/bin/su"),
            symlink("./bin", "usr/bin"),
            symlink("./abroad", "/etc/passwd"),
            hardlink("./abroad2", "abroad"),
            member("./home/file", b"mine", uid=1000, gid=1000, mode=0o640),
        )
        status = (self.top / "usr/bin/su").stat()
        self.assertEqual(status.st_mode, stat.S_IFREG | 0o4755)
        self.assertEqual((status.st_uid, status.st_gid), (outside(0), outside(0)))
        self.assertEqual((status.st_nlink, status.st_mtime), (2, 1_000_000))
        mine = (self.top / "home/file").stat()
        self.assertEqual((mine.st_uid, mine.st_gid), (outside(1000), outside(1000)))
        self.assertEqual((self.top / "home").stat().st_uid, outside(0))
        self.assertEqual((self.top / "abroad2").readlink(), Path("/etc/passwd"))
        self.assertEqual((self.top / "abroad").lstat().st_uid, outside(0))

    def test_umask(self) -> None:
        """What is made on the way is open to all, whatever the ship's umask is."""
        self.addCleanup(os.umask, os.umask(0o077))
        self.unpack(member("etc/os", mode=0o644))
        furnish(self.top)
        for place, mode in (
            ("etc", 0o755),
            ("etc/os", 0o644),
            ("app", 0o755),
            ("roots.pem", 0o644),
        ):
            self.assertEqual((self.top / place).stat().st_mode & 0o7777, mode)

    def test_compressions(self) -> None:
        """gzip (in several parts too), xz and bzip2 are known by how they begin."""
        data = tar(member("file", b"x" * 5000))
        half = len(data) // 2
        parts = gzip.compress(data[:half]) + gzip.compress(data[half:])
        for packed in (data, parts, lzma.compress(data)):
            unpack(io.BytesIO(packed), self.top, BUDGET)
            self.assertEqual((self.top / "file").read_bytes(), b"x" * 5000)

    def test_dot_dot(self) -> None:
        """A name with `..` in it is refused."""
        self.refuses("'../secret' leads out", member("../secret", b"x"))
        self.refuses("'a/../../secret' leads out", directory("a"), member("a/../../secret"))

    def test_absolute(self) -> None:
        """A name from the root on is refused, not shortened."""
        self.refuses("leads out", member(f"{self.secret}", b"x"))

    def test_through_a_symlink(self) -> None:
        """Nothing is written through a symlink that came before."""
        for to in ("..", str(self.around)):
            self.refuses(
                "'way/secret' leads through the symlink 'way'",
                symlink("way", to),
                member("way/secret", b"x"),
            )
            (self.top / "way").unlink()

    def test_through_a_deeper_symlink(self) -> None:
        """Nor through one that is further up, nor by a directory's member."""
        out = symlink("a/way", "../..")
        self.refuses("through the symlink 'a/way'", out, directory("a/way/in/there"))
        self.refuses("through the symlink 'a/way'", out, directory("a/way"))

    def test_onto_a_symlink(self) -> None:
        """A file that takes a symlink's place replaces it and is not written to its target."""
        self.unpack(symlink("file", "../secret"), member("file", b"new", mode=0o4777))
        self.assertEqual((self.top / "file").read_bytes(), b"new")
        self.assertEqual(self.secret.read_text(), "untouched")
        self.assertNotEqual(self.secret.stat().st_uid, outside(0))

    def test_top_is_no_symlink(self) -> None:
        """The top itself cannot be replaced."""
        self.refuses("is its top and no directory", symlink(".", ".."))

    def test_hardlink_out(self) -> None:
        """A hard link's target is a place in the archive, reached through no symlink."""
        self.refuses("'../secret', leads out", hardlink("file", "../secret"))
        self.refuses("leads out", hardlink("file", str(self.secret)))
        way = symlink("way", "..")
        self.refuses("through the symlink 'way'", way, hardlink("file", "way/secret"))
        self.assertFalse((self.top / "file").exists())

    def test_hardlink_to_a_symlink(self) -> None:
        """A file written to a link to a symlink replaces the link."""
        out = symlink("out", "../secret")
        self.unpack(out, hardlink("file", "out"), member("file", b"new"))
        self.assertEqual(self.secret.read_text(), "untouched")

    def test_hardlink_to_nothing(self) -> None:
        """A hard link to what is not there, or to a directory, is refused by name."""
        self.refuses("'file', a link to 'gone', has no such file", hardlink("file", "gone"))
        self.refuses("'file', a link to 'a', has no such", directory("a"), hardlink("file", "a"))

    def test_device_nodes(self) -> None:
        """Device nodes and fifos are refused by name."""
        for kind, what in (
            (tarfile.CHRTYPE, "a device node"),
            (tarfile.BLKTYPE, "a device node"),
            (tarfile.FIFOTYPE, "a fifo"),
        ):
            bad = member("dev/thing", type=kind, devmajor=1, devminor=3)
            self.refuses(f"'dev/thing' is {what}", bad)
            self.assertFalse((self.top / "dev/thing").exists())

    def test_whiteout(self) -> None:
        """A character device 0/0 would hide a file of another layer: it is one like any other."""
        self.refuses("device node", member("etc", type=tarfile.CHRTYPE))

    def test_owners(self) -> None:
        """An owner that is nobody inside is refused."""
        for bad in ({"uid": 65536}, {"gid": 70000}, {"uid": 2**31}):
            said = "the owner of 'file': .* is not a user inside"
            self.refuses(said, member("file", b"", **bad))

    def test_attributes_are_not_taken(self) -> None:
        """Extended attributes, which an overlay may heed, are left behind."""
        headers = {"SCHILY.xattr.user.overlay.redirect": "/elsewhere"}
        self.unpack(directory("a", pax_headers=headers))
        self.assertEqual(os.listxattr(self.top / "a"), [])

    def test_budget(self) -> None:
        """Bytes are counted before they are written, the empty file and the hole like others."""
        with self.assertRaisesRegex(ContainerError, "more than 100000 bytes, at 'big'"):
            self.unpack(member("big", b"\0" * 100_001), budget=100_000)
        self.assertFalse((self.top / "big").exists())
        with self.assertRaisesRegex(ContainerError, "more than 100000 bytes"):
            self.unpack(*(member(f"{i}") for i in range(100)), budget=100_000)

    def test_budget_of_a_sparse_file(self) -> None:
        """A file with a hole counts with the hole."""
        headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": "holey",
            "GNU.sparse.realsize": str(1 << 40),
        }
        self.refuses(
            f"more than {BUDGET} bytes, at 'holey'",
            member("holey", b"1\n0\n1\n".ljust(512, b"\0") + b"x", pax_headers=headers),
        )

    def test_bomb(self) -> None:
        """What a few bytes decompress to is bounded, also where no file is named in it."""
        bomb = gzip.compress(tar(member("a")) + b"\0" * (BUDGET * 2))
        with self.assertRaisesRegex(ContainerError, f"more than {BUDGET} bytes"):
            unpack(io.BytesIO(bomb), self.top, BUDGET)

    def test_long_headers(self) -> None:
        """A header that is read into memory whole is short."""
        info = member("a", pax_headers={"comment": "x" * (1 << 20)})
        self.refuses("a header of it says that it has", info)

    def test_negative_size(self) -> None:
        """A size below nothing does not make it go backwards."""
        self.refuses("'a' is cut off", member("a", pax_headers={"size": "-1"}))
        data = bytearray(tar(member("a"), member("b")))
        data[124:136] = b"\xff" * 10 + b"\xf8\0"  # minus 2048, in base 256
        data[148:156] = b"%06o\0 " % (sum(data[:148]) + 8 * 32 + sum(data[156:512]))
        with self.assertRaisesRegex(ContainerError, "cut off"):
            unpack(io.BytesIO(bytes(data)), self.top, BUDGET)

    def test_damaged(self) -> None:
        """An archive that breaks off or is changed on the way is refused, wherever that is."""
        data = tar(*(member(f"file{i}", b"y" * 3000) for i in range(9)))
        changed = bytearray(data)
        changed[3 * 3584] ^= 1  # in a header
        packed = bytearray(gzip.compress(data, mtime=0))
        packed[-6] ^= 1  # the checksum
        for bad in (b"", b"no archive", data[:5000], bytes(changed), packed, packed[:-20]):
            with self.assertRaisesRegex(ContainerError, "it is damaged, or no tar archive: "):
                unpack(io.BytesIO(bytes(bad)), self.top, BUDGET)

    def test_directory_is_not_replaced(self) -> None:
        """What was a directory stays one, so that ways once looked at stay good."""
        self.refuses("'a' is a directory", directory("a"), symlink("a", ".."))


NAMES = st.sampled_from(["a", "b", "a/b", "b/a", "a/b/c", "../x", "a/../../x", "/x", "./a", "."])
MEMBERS = st.one_of(
    st.builds(lambda name: member(name, b"data"), NAMES),
    st.builds(directory, NAMES),
    st.builds(symlink, NAMES, st.sampled_from(["..", "../..", "/", "a", "b", "."])),
    st.builds(hardlink, NAMES, NAMES),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(MEMBERS, max_size=6))
def test_never_outside(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    """Whatever the members are, in whatever order, nothing outside the directory changes."""
    around = Path(tempfile.mkdtemp(prefix="unpack-"))
    try:
        top = around / "in" / "top"
        top.mkdir(parents=True)
        before = seen(around)
        with contextlib.suppress(ContainerError):
            unpack(io.BytesIO(tar(*members)), top, BUDGET)
        assert seen(around) == before
    finally:
        remove(around)


def seen(around: Path) -> list[tuple[str, int, int]]:
    """All that is outside `top`, with owners and modes."""
    found = [around, *around.glob("*"), *around.glob("in/*")]
    return sorted((str(path), path.lstat().st_mode, path.lstat().st_nlink) for path in found[:-1])


SHOWS_WHAT_IT_SEES = """
import os, sys
from containers.lxc import worker
worker.unpack = lambda *_: print(os.listdir("/"), os.listdir("."))
worker.furnish = worker.size_of = lambda top: None
worker.main(sys.argv[1:])
"""


class WorkerTests(SynchronousTestCase):
    def test_sees_nothing(self) -> None:
        """What unpacks sees the directory that it unpacks into, and nothing else of the host."""
        around = Path(tempfile.mkdtemp(prefix="worker-"))
        self.addCleanup(remove, around)
        (around / "file").touch()
        (around / "top").mkdir()
        argv = [sys.executable, "-c", SHOWS_WHAT_IT_SEES, "unpack"]
        done = subprocess.run(
            [*argv, around / "file", around / "top", "1"],
            capture_output=True,
            check=True,
            text=True,
        )
        self.assertEqual(done.stdout.splitlines()[0], "[] []")


class TreeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.top = Path(tempfile.mkdtemp(prefix="tree-"))
        self.addCleanup(remove, self.top)

    def test_shift(self) -> None:
        """Owners are mapped once, setuid stays, attributes go but for capabilities."""
        file = self.top / "su"
        file.write_text("x")
        os.chown(file, 1000, 0)
        file.chmod(0o6755)
        (self.top / "again").hardlink_to(file)
        (self.top / "abroad").symlink_to("/etc/passwd")
        os.setxattr(file, "trusted.overlay.opaque", b"y")
        ping = self.top / "ping"
        ping.write_text("x")
        os.setxattr(ping, "security.capability", bytes.fromhex("0100000200200000" + "00" * 12))
        before = Path("/etc/passwd").stat()
        self.assertGreater(shift(self.top), 0)
        self.assertEqual(file.stat().st_mode & 0o7777, 0o6755)
        self.assertEqual((file.stat().st_uid, file.stat().st_gid), (outside(1000), outside(0)))
        self.assertEqual(os.listxattr(file), [])
        self.assertEqual(Path("/etc/passwd").stat(), before)
        self.assertEqual((self.top / "abroad").lstat().st_uid, outside(0))
        kept = os.getxattr(ping, "security.capability")
        self.assertEqual(kept[:8], bytes.fromhex("0100000300200000"))
        self.assertEqual(int.from_bytes(kept[20:24], "little"), outside(0))

    def test_shift_refuses(self) -> None:
        """A device node, fifo or socket, and an owner that is nobody inside, are named."""
        os.mkfifo(self.top / "pipe")
        self.assertRaisesRegex(ContainerError, "'pipe' is a device node, fifo", shift, self.top)
        (self.top / "a").mkdir()
        (self.top / "a/file").touch()
        os.chown(self.top / "a/file", 70_000, 0)
        self.assertRaisesRegex(ContainerError, "the owner of 'file'", shift, self.top / "a")

    def test_furnish(self) -> None:
        """What the runtime mounts at is there, and the user; what was there stays."""
        (self.top / "etc").mkdir()
        (self.top / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh")
        (self.top / "etc/resolv.conf").symlink_to("../run/nowhere")
        self.top.chmod(0o700)
        furnish(self.top)
        furnish(self.top)
        self.assertEqual((self.top / "tmp").stat().st_mode & 0o7777, 0o1777)
        self.assertEqual((self.top / "app").stat().st_uid, outside(1000))
        self.assertEqual((self.top / "etc/resolv.conf").read_bytes(), b"")
        self.assertFalse((self.top / "etc/resolv.conf").is_symlink())
        self.assertEqual(
            (self.top / "etc/passwd").read_text(),
            "root:x:0:0::/root:/bin/sh\nubuntu:x:1000:1000::/home/ubuntu:/bin/sh\n",
        )
        self.assertEqual(self.top.stat().st_mode & 0o7777, 0o755)

    def test_furnish_follows_nothing(self) -> None:
        """A symlink where a directory is to be is refused; one where a file is to be goes."""
        outer = Path(tempfile.mkdtemp(prefix="outer-"))
        self.addCleanup(remove, outer)
        for place in ("tmp", "var", "etc", "home"):
            top = self.top / f"with-{place}"
            top.mkdir()
            (top / place).symlink_to(outer)
            with self.assertRaisesRegex(ContainerError, f"/{place} in it is no directory"):
                furnish(top)
        self.assertEqual((names(outer), outer.stat().st_mode & 0o7777), ([], 0o700))
        (self.top / "etc").mkdir()
        (self.top / "etc/passwd").symlink_to(outer / "made")
        (self.top / "roots.pem").symlink_to(outer / "made")
        furnish(self.top)
        self.assertEqual(names(outer), [])


def packed(*layers: Path) -> dict[str, tarfile.TarInfo]:
    file = io.BytesIO()
    pack(layers, file)
    file.seek(0)
    with tarfile.open(fileobj=file) as archive:
        return {info.name: info for info in archive.getmembers()}


class PackTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.around = Path(tempfile.mkdtemp(prefix="pack-"))
        self.addCleanup(remove, self.around)

    def layer(self, name: str, *files: str) -> Path:
        top = self.around / name
        top.mkdir()
        for file in files:
            (top / file).parent.mkdir(parents=True, exist_ok=True)
            (top / file).write_text(name)
        shift(top)
        return top

    def test_owners_inside(self) -> None:
        """Owners in the archive are those seen inside, by number alone."""
        top = self.layer("top", "file")
        os.chown(top / "file", outside(1000), outside(0))
        info = packed(top)["./file"]
        self.assertEqual((info.uid, info.gid, info.uname), (1000, 0, ""))

    def test_stranger(self) -> None:
        """A file of somebody who is nobody inside is an error that names it."""
        top = self.layer("top", "file")
        os.chown(top / "file", 5, 5)
        self.assertRaisesRegex(ContainerError, "top/file is owned by 5", packed, top)

    def test_as_an_overlay(self) -> None:
        """Upper files hide lower ones; whiteouts and opaque directories hide and are not there."""
        low = self.layer("low", "both", "gone", "dir/old", "dir/both", "shut/old", "file/in")
        top = self.layer("top", "both", "dir/new", "dir/both", "shut/new", "file")
        os.mknod(top / "gone", stat.S_IFCHR, os.makedev(0, 0))
        os.setxattr(top / "shut", "trusted.overlay.opaque", b"y")
        middle = self.layer("middle")
        os.mknod(middle / "dir", stat.S_IFCHR, os.makedev(0, 0))
        files = {name for name, info in packed(top, middle, low).items() if info.isreg()}
        self.assertNotIn("./dir/old", files)
        found = packed(top, low)
        files = {name for name, info in found.items() if info.isreg()}
        places = ("both", "dir/old", "dir/new", "dir/both", "shut/new", "file")
        self.assertEqual(files, {f"./{place}" for place in places})
