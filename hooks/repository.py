"""The bare repositories that pushes arrive in, read and moved by git itself.

Files of a pushed tree are read as blobs, so a link in the tree reads nothing of the ship's.
"""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from attrs import field, frozen

from hooks.errors import Refused, ShipError
from hooks.naming import commit_id

Git = Callable[..., Awaitable[tuple[int, bytes]]]
"""`await git(argv, env=..., stdin=...)`: exit status and standard output of one git command."""

EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"

_REGULAR = ("100644", "100755")
_MOST = 256 * 1024  # bytes of a file that the platform reads

BARE_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/nonexistent",
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
}


def serving_environment(hooks: Path, most: int) -> dict[str, str]:
    """The environment of a `git-receive-pack` or `git-upload-pack` for a client.

    Its configuration is given here and not kept in the repository, where it could grow old.
    `hooks` is the directory of git's hooks, outside every repository; `most` bytes of a pack.
    """
    settings = {
        "core.hooksPath": str(hooks),
        "receive.fsckObjects": "true",
        "receive.maxInputSize": str(most),
        "receive.shallowUpdate": "true",
        "receive.advertisePushOptions": "true",
        "receive.procReceiveRefs": "refs",
        "receive.autogc": "false",
        "transfer.unpackLimit": "1000",
        "uploadpack.allowFilter": "true",
        "transfer.advertiseSID": "false",
        "gc.auto": "0",
    }
    return BARE_ENVIRONMENT | configured(settings)


def configured(settings: Mapping[str, str]) -> dict[str, str]:
    """git's settings as variables, so that every git below has them."""
    found = {"GIT_CONFIG_COUNT": str(len(settings))}
    for number, (name, value) in enumerate(settings.items()):
        found |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    return found


@frozen
class Blob:
    """A file in a tree: git's mode in octal ("100755"), the object's id, its size in bytes."""

    mode: str
    oid: str
    size: int

    @property
    def regular(self) -> bool:
        return self.mode in _REGULAR

    @property
    def executable(self) -> bool:
        return self.mode == "100755"


@frozen
class Repository:
    """One bare repository and the git that works on it."""

    path: Path
    git: Git
    quarantine: Mapping[str, str] = field(factory=dict)
    """git's environment while objects of a push are not the repository's own yet."""

    def exists(self) -> bool:
        return self.path.is_dir()

    def ensure(self) -> None:
        """Make it if it is not there (gitrepository-layout(5)), whole or not at all."""
        if self.exists():
            return
        growing = self.path.with_name(f".{self.path.name}")
        shutil.rmtree(growing, ignore_errors=True)
        for directory in ("objects", "refs/heads"):
            (growing / directory).mkdir(parents=True)
        (growing / "config").write_text("[core]\n\trepositoryformatversion = 0\n\tbare = true\n")
        (growing / "HEAD").write_text("ref: refs/heads/master\n")
        growing.rename(self.path)

    def tidy(self) -> None:
        """Remove what a git that was killed left half-made. Only while no git runs in it."""
        for lock in (*self.path.glob("*.lock"), *(self.path / "refs").rglob("*.lock")):
            lock.unlink(missing_ok=True)
        for incoming in (self.path / "objects").glob("*incoming-*"):
            shutil.rmtree(incoming, ignore_errors=True)
        for pack in (self.path / "objects" / "pack").glob("tmp_*"):
            pack.unlink(missing_ok=True)

    async def pack(self) -> None:
        """Let git pack what is loose, and forget what nothing has pointed to for two weeks."""
        await self._git("-c", "gc.autoDetach=false", "gc", "--auto", "--quiet")

    async def tip(self, ref: str) -> str | None:
        """The commit that `ref` (a full name) points to, if it exists."""
        status, out = await self._git("rev-parse", "--verify", "--quiet", "--end-of-options", ref)
        return commit_id(out.decode().strip()) if status == 0 else None

    async def head(self) -> str:
        """The full name of the branch that HEAD names, whether or not it exists yet."""
        _, out = await self._git("symbolic-ref", "HEAD")
        return out.decode("utf-8", "surrogateescape").strip()

    async def contains(self, commit: str, ancestor: str) -> bool:
        """Whether `ancestor` is part of the history of `commit`."""
        status, _ = await self._git("merge-base", "--is-ancestor", ancestor, commit)
        return status == 0

    async def move(self, ref: str, new: str, old: str | None) -> None:
        """Move `ref` from `old` (`None`: it must not exist) to `new`, or raise and move nothing."""
        expected = old or "0" * len(new)
        status, _ = await self._git("update-ref", "--end-of-options", ref, new, expected)
        if status != 0:
            raise ShipError(f"{ref} could not be moved to {new[:12]}")
        await self.point_head(ref)

    async def point_head(self, ref: str) -> None:
        """Let HEAD name a branch that exists, or soon will: a clone checks it out."""
        if await self.tip("HEAD") is None:
            await self._git("symbolic-ref", "HEAD", ref)

    async def is_whole(self, commit: str) -> bool:
        """Whether the history of `commit` is here to its beginning, or to a known shallow end."""
        status, _ = await self._git("rev-list", "--quiet", commit, "--not", "--all")
        return status == 0

    async def forget(self, ref: str) -> None:
        """Remove `ref` if it is there."""
        await self._git("update-ref", "-d", "--end-of-options", ref)

    async def files(self, commit: str, names: Sequence[str]) -> dict[str, str]:
        """Those of the top-level files `names` that `commit` has, as text.

        `Refused` when one is not a regular file, is over 256 KB, or is not UTF-8.
        """
        status, listing = await self._git("ls-tree", "-z", "--long", commit, "--", *names)
        if status != 0:
            raise ShipError(f"the tree of {commit[:12]} could not be read")
        found = {}
        for name, blob in _of_listing(listing).items():
            if not blob.regular:
                raise Refused(f"{name} is {_kind(blob.mode)}, it must be a regular file")
            if blob.size > _MOST:
                raise Refused(f"{name} is {blob.size // 1024} KB, at most {_MOST // 1024} are read")
            _, content = await self._git("cat-file", "blob", blob.oid)
            try:
                found[name] = content.decode("utf-8-sig")
            except UnicodeDecodeError:
                raise Refused(f"{name} is not UTF-8 text") from None
        return found

    async def listing(self, commit: str) -> dict[str, Blob]:
        """Every file of `commit` by its path: regular ones, links and submodules alike.

        Paths that are not UTF-8 are left out: nothing that the ship reads is named so.
        """
        status, out = await self._git("ls-tree", "-r", "-z", "--long", "--full-tree", commit)
        if status != 0:
            raise ShipError(f"the tree of {commit[:12]} could not be read")
        return _of_listing(out)

    async def contents(self, oids: Collection[str]) -> dict[str, bytes]:
        """The blobs `oids`, each by its id. `ShipError` where one is missing."""
        found = {oid: content for oid, (_, content) in (await self._objects(oids)).items()}
        if len(found) != len(set(oids)):
            raise ShipError(f"files of {self.path.name} could not be read")
        return found

    async def commits(self, ids: Collection[str]) -> dict[str, bytes]:
        """Those of the commits `ids` that are here, each as git keeps it."""
        found = await self._objects(ids)
        return {oid: content for oid, (kind, content) in found.items() if kind == "commit"}

    async def tree(self, commit: str) -> str | None:
        """The id of the tree of `commit`; `None` when that is no commit (but a tag, a file)."""
        asked = (f"{commit}^{{commit}}", f"{commit}^{{tree}}")
        status, out = await self._git("rev-parse", "--quiet", *asked)
        found, _, tree = out.decode().strip().partition("\n")
        return tree if status == 0 and found == commit else None

    async def clashing(self, ref: str) -> str | None:
        """A branch that keeps the new one `ref` from being: git has no `a/b` beside an `a`."""
        parts = ref.split("/")
        above = ["/".join(parts[:count]) for count in range(3, len(parts))]
        _, out = await self._git("for-each-ref", "--format=%(refname)", ref, *above)
        there = out.decode("utf-8", "surrogateescape").split("\n")
        return next((name for name in there if name in above or name.startswith(f"{ref}/")), None)

    async def lay(self, commit: str, into: Path, scratch: Path) -> None:
        """Write the files of `commit` into the directory `into`; `scratch` is for git's index."""
        index = scratch / f"index.{into.name}"
        env = {"GIT_INDEX_FILE": str(index), "GIT_WORK_TREE": str(into)}
        status, _ = await self._git("read-tree", "--reset", "-u", commit, env=env)
        index.unlink(missing_ok=True)
        if status != 0:
            raise ShipError(f"the files of {commit[:12]} could not be written")

    async def _objects(self, oids: Collection[str]) -> dict[str, tuple[str, bytes]]:
        """Kind and content of those that are here, by id."""
        asked = "".join(f"{oid}\n" for oid in oids).encode()
        status, out = await self._git("cat-file", "--batch", stdin=asked)
        return _of_batch(out) if status == 0 else {}

    async def _git(
        self, *args: str, env: Mapping[str, str] | None = None, stdin: bytes = b""
    ) -> tuple[int, bytes]:
        return await self.git(
            ["git", "--git-dir", str(self.path), "-c", "core.hooksPath=/dev/null", *args],
            env=BARE_ENVIRONMENT | dict(self.quarantine) | dict(env or {}),
            stdin=stdin,
        )


def _of_listing(out: bytes) -> dict[str, Blob]:
    """What `ls-tree -z --long` printed, by path; without those that are not UTF-8."""
    found = {}
    for entry in out.split(b"\0")[:-1]:
        meta, _, name = entry.partition(b"\t")
        mode, _, oid, size = meta.decode().split()
        with suppress(UnicodeDecodeError):
            found[name.decode()] = Blob(mode, oid, int(size) if size.isdigit() else 0)
    return found


def _kind(mode: str) -> str:
    return {"120000": "a symbolic link", "160000": "a submodule"}.get(mode, "a directory")


def _of_batch(out: bytes) -> dict[str, tuple[str, bytes]]:
    """What `cat-file --batch` printed: a line `ID KIND SIZE` and the content, or `ID missing`."""
    found, at = {}, 0
    while at < len(out):
        end = out.index(b"\n", at)
        oid, kind, *size = out[at:end].decode().split()
        at = end + 1
        if size:
            found[oid] = kind, out[at : at + int(size[0])]
            at += int(size[0]) + 1
    return found
