"""What a runtime gives: the one interface behind which `process`, LXC and others stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from attrs import Factory, field, frozen

Output = Callable[[bytes], None]
"""Takes raw output of a command as it comes, in chunks that may end anywhere."""

Say = Callable[[str], None]
"""Takes one line of progress."""


class ContainerError(Exception):
    """A container could not be made, started or stopped; the text is one line for a person."""


@frozen
class Container:
    """A place for one release: its name and the directory that holds everything of it.

    `app` is where the pipeline lays the source, seen inside as `/app` where the runtime can.
    """

    name: str
    directory: Path
    app: Path = Factory(lambda self: self.directory / "app", takes_self=True)


@frozen
class Address:
    """Where a container's service is to answer; given out by the runtime and by nobody else."""

    host: str
    port: int


@frozen
class Mount:
    """A host directory or file that a command shall see at `at`, besides the container's own.

    What is `theirs` keeps its owner where it is writable, and may stand for the app itself.
    """

    source: Path
    at: str
    writable: bool = False
    theirs: bool = False


@frozen
class Limits:
    """Bounds on a command. Bytes, counts, seconds; `None` is unbounded."""

    memory: int | None = None  # bytes: of all its processes, or of each, as the runtime can
    processes: int | None = None
    cpus: float | None = None  # how many CPUs' time; only where the runtime has cgroups
    disk: int | None = None  # bytes it may write to its own files; only where the runtime can
    files: int | None = None  # open files per process
    seconds: float | None = None  # wall clock; only for `run`
    output: int | None = None  # bytes of output; only for `run`


@frozen
class Wish:
    """What a container is to be made of.

    `base` is an operator's STARPHLEET_BASE: "" for the runtime's own, else a name, of which
    `scripts` may have the script that makes it, or a URL. `ordered` tells containers of standing
    orders from those of pushes, which may be kept apart. `cpus` and `disk` (bytes) are limits that
    not every runtime can keep: one that cannot refuses the wish.
    """

    base: str = ""
    scripts: Mapping[str, bytes] = field(factory=dict)
    ordered: bool = False
    cpus: float | None = None
    disk: int | None = None


@frozen
class Exit:
    """How a command ended: exactly one of `status` (0-255) and `signal` is set.

    `reason` says in words when a limit ended it ("ran longer than 900 s"), else it is empty.
    An adopted container's exit is known, its status may not be: then both are `None`.
    """

    status: int | None = None
    signal: int | None = None
    reason: str = ""

    @property
    def ok(self) -> bool:
        return self.status == 0 and not self.reason

    @property
    def how(self) -> str:
        """The reason, `exit status 3`, `signal 9`, or that nobody knows."""
        if self.reason:
            return self.reason
        if self.status is not None:
            return f"exit status {self.status}"
        return f"signal {self.signal}" if self.signal is not None else "nobody saw how"


@frozen
class Beside:
    """A place for one more command beside a service. Its caller executes `argv`, with the command
    after it, in the environment `marks` and nothing else; the command is to begin with `script`,
    which gives a shell the environment of the service.

    `terminal` says that it makes a terminal of its own where its caller has one.
    """

    argv: Sequence[str]
    marks: Mapping[str, str]
    script: bytes = field(repr=False)
    terminal: bool


WISH = Wish()


def unsaid(line: str) -> None:
    """For progress that nobody asked for."""


class Runtime(Protocol):
    """Every method may be called again after a crash at any point: each finds what is there.

    `containerize` and `destroy` are idempotent. `stop` of what does not run does nothing.
    All raise `ContainerError` with one line for a person.
    """

    name: str
    freezes: bool  # whether `freeze` is to be had
    dropped: Sequence[str]  # what the host's own firewall keeps from containers, in lines

    async def containerize(self, name: str, wish: Wish = WISH, say: Say = unsaid) -> Container:
        """Make the container `name` as `wish` says, or find it. `name` matches
        `[a-z0-9.-]{1,200}` (no leading dot or dash). Making its base may take minutes: `say`.
        """
        ...

    def find(self, name: str) -> Container | None:
        """The container `name` if it exists whole (not a half-made one)."""
        ...

    def names(self) -> set[str]:
        """Names of all containers that exist, half-made ones included."""
        ...

    def seen_at(self, container: Container, mount: Mount) -> str:
        """The path under which a command in `container` sees `mount` (`mount.at` if sandboxed)."""
        ...

    def app_at(self, container: Container) -> str:
        """The path under which a command in `container` sees its app directory."""
        ...

    def own(self, container: Container, also: Sequence[Path] = ()) -> None:
        """Hand the container's files, and the directories `also`, to the user that runs in it.

        Takes as long as there are files: call it in a thread.
        """
        ...

    def share(self, directory: Path) -> bool:
        """Let the user that runs in containers, and whose `directory` is, write in it, and leave
        all in it to its owners. False where its file system cannot. Blocks.
        """
        ...

    async def run(
        self,
        container: Container,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        output: Output,
        limits: Limits,
        mounts: Sequence[Mount] = (),
        root: bool = False,
        online: bool = True,
    ) -> Exit:
        """Run one command to its end, cwd the app directory, stdout and stderr merged.

        One that is not to be `online` may have no network: making one takes its time.

        As the container's `root` where the runtime has one, and only before it was started; else
        as the user of its service.

        The environment is `env` and the runtime's own PATH, HOME, LANG, TMPDIR; nothing of the
        ship's. A limit, or cancellation of the awaiting coroutine, kills everything it started.
        """
        ...

    async def start(
        self,
        container: Container,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        log: Path,
        limits: Limits,
        mounts: Sequence[Mount] = (),
        address: Address | None = None,
    ) -> Address:
        """Start the service; it finds its port in `PORT`. `address` asks for the one it had.

        stdout and stderr are appended to `log`. Outlives the ship: see `adopt`.
        """
        ...

    def adopt(self, container: Container) -> Address | None:
        """Take over a service that an earlier ship process started, if it still runs."""
        ...

    async def exited(self, container: Container) -> Exit:
        """Wait until the started service's main command ends (at once if it does not run)."""
        ...

    def listening(self, container: Container) -> list[int]:
        """TCP ports on which processes of this container listen, ascending."""
        ...

    async def stop(self, container: Container, *, grace: float) -> None:
        """TERM to the service's processes, KILL to what is left after `grace` seconds."""
        ...

    async def freeze(self, container: Container, frozen: bool) -> None:
        """Let the service stand still, or go on. `stop`, `run` and `adopt` let it go on too."""
        ...

    async def destroy(self, container: Container) -> None:
        """Stop at once and remove every trace of it."""
        ...

    async def sweep(self, keep: set[str]) -> None:
        """At boot: remove all containers but those in `keep`, with every process of theirs.

        Of those in `keep` the service lives on; what else an earlier ship process was running in
        them is killed.
        """
        ...

    async def expose(self, ports: Mapping[int, Address]) -> None:
        """Lead exactly these TCP and UDP ports of the host's addresses to those of containers."""
        ...

    async def beside(
        self,
        container: Container,
        *,
        env: Mapping[str, str],
        limits: Limits,
        mounts: Sequence[Mount] = (),
    ) -> Beside:
        """Where somebody else than the ship runs a command as `run` does, on pipes or a terminal.

        It goes on without the ship, `sweep` leaves it alone, but no longer than its container.
        """
        ...

    async def backup(self, container: Container, file: Path) -> None:
        """Write all files that `container` sees into `file`, a tar with gzip, which `restore`
        takes and a base can be made of."""
        ...

    async def restore(self, name: str, source: str, say: Say) -> None:
        """Make a base that is called `name` of a backup, a path or a URL; nothing if it exists."""
        ...

    async def uphold(self) -> None:
        """Make anew what containers share on the host, if somebody took it away."""
        ...

    async def tidy(self) -> list[str]:
        """Remove what nobody has used for long; answers what it was, for people."""
        ...

    def let_go(self) -> None:
        """Look after nothing that runs any more: from now on another ship process does."""
        ...

    async def leave(self) -> None:
        """Take away what was set up on the host for all containers; none runs any more."""
        ...
