"""Steps that are the program itself: one version of it, with an interpreter's environment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from attrs import field, frozen
from uv import find_uv_bin

from hooks.errors import Refused, ShipError
from receiver.install.host import Host, remove

VERSIONS = "/opt/starphleet/versions"
CACHE = f"{VERSIONS}/.cache"  # what an update does not have to fetch again
CURRENT = "/opt/starphleet/current"
GROWING = ".growing"  # follows the name of one in that of a file beside it, until it is whole
SHORT = 12  # digits of a commit that name its version


@frozen
class Version:
    """The `commit` of the repository `clone`, in a directory of its own.

    `origin` is where later ones come from, "" if nobody knows; `interpreter` Python's path; `env`
    the environment of uv, which brings its packages, `None` for the one of this process.
    """

    clone: Path
    commit: str
    origin: str
    interpreter: str
    env: Mapping[str, str] | None = field(default=None, repr=False)
    data: bool = False
    name: str = "version"

    @property
    def path(self) -> str:
        return f"{VERSIONS}/{self.commit[:SHORT]}"

    def lacking(self, host: Host) -> str:
        whole = host.at(self.path).is_dir() and not host.at(self.path + GROWING).exists()
        return "" if whole else f"make {self.path} of what is committed in {self.clone}"

    def do(self, host: Host) -> None:
        fetched = host.at(CACHE).exists()
        try:
            self._make(host, host.at(self.path))
        except BaseException:
            if not fetched:
                remove(host.at(CACHE))
            remove(host.at(self.path))
            host.at(self.path + GROWING).unlink(missing_ok=True)
            raise

    def _make(self, host: Host, place: Path) -> None:
        host.at(self.path + GROWING).touch()
        shutil.rmtree(place, ignore_errors=True)  # what was interrupted
        place.mkdir(parents=True)
        place.chmod(0o755)
        source, venv = place / "source", place / "venv"
        git = ("git", "-c", "safe.directory=*")
        # By a bundle: git asks the owner's leave of each program that reads a repository directly.
        bundle = str(place / "bundle")
        host.run(*git, "-C", str(self.clone), "bundle", "create", "--quiet", bundle, "HEAD")
        host.run(*git, "clone", "--quiet", "--no-checkout", bundle, str(source))
        host.run(*git, "-C", str(source), "checkout", "--quiet", "--detach", self.commit)
        Path(bundle).unlink()
        if self.origin:
            host.run(*git, "-C", str(source), "remote", "set-url", "origin", self.origin)
        uv = (find_uv_bin(), "--quiet", "--cache-dir", str(host.at(CACHE)))
        host.run(*uv, "venv", "--python", self.interpreter, str(venv), env=self.env)
        install = (
            *uv,
            "pip",
            "install",
            "--compile-bytecode",
            "--python",
            str(venv / "bin/python"),
        )
        constraints = ("--constraint", str(source / "constraints.txt"))
        host.run(*install, *constraints, "--editable", str(source), env=self.env)
        rooms = [str(room) for room in source.iterdir() if (room / "__init__.py").is_file()]
        host.run(str(venv / "bin/python"), "-m", "compileall", "-q", *rooms)
        os.sync()
        host.at(self.path + GROWING).unlink()

    def undo(self, host: Host) -> None:
        """All versions: an update may have made others."""
        remove(host.at(VERSIONS))


def of_clone(host: Host, clone: Path, interpreter: str, env: Mapping[str, str]) -> Version:
    """What is committed in `clone`. `Refused` where it is no repository."""
    git = ("git", "-c", "safe.directory=*", "-C", str(clone))
    try:
        commit = host.run(*git, "rev-parse", "--verify", "HEAD").strip()
    except ShipError:
        raise Refused(f"{clone} is not a git repository: install from a clone of one") from None
    origin = host.call([*git, "remote", "get-url", "origin"])
    url = origin.text.strip() if origin.status == 0 else ""
    return Version(clone, commit, url, interpreter, env)


def has_changes(host: Host, clone: Path) -> bool:
    """Whether there is something in `clone` that is not committed, and so is not installed."""
    git = ("git", "-c", "safe.directory=*", "-C", str(clone))
    return bool(host.call([*git, "status", "--porcelain", "--untracked-files=no"]).text.strip())
