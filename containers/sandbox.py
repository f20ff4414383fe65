"""What a command of the `process` runtime sees, as argv: pure, nothing here acts.

A command is reached through a chain, each link of which executes the next:

    bwrap --args FD -- setpriv … unshare … prlimit … sh -s -- COMMAND

bubblewrap makes the view, `setpriv` gives up root (when the ship has it), `unshare` makes a user
namespace in which processes are counted, `prlimit` sets limits, and `sh` reads the environment
from its stdin and executes the command. The environment comes last for two reasons: nothing
secret is ever in an argv, and an `LD_PRELOAD` from somebody's `.env` never meets a link of the
chain that still has rights.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from attrs import frozen

from containers.interface import Container, ContainerError, Limits, Mount
from containers.spawn import limited

APP = "/app"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Read by programs from Debian at run time; nothing here is secret or particular to the ship.
# fmt: off
ETC = (
    "alternatives", "ca-certificates", "ca-certificates.conf", "debian_version", "fonts",
    "gai.conf", "host.conf", "hosts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime",
    "lsb-release", "magic", "mime.types", "networks", "nsswitch.conf", "os-release", "perl",
    "pki", "protocols", "python3", "python3.11", "python3.12", "python3.13", "resolv.conf",
    "rpc", "services", "ssl/certs", "ssl/openssl.cnf", "terminfo", "timezone", "xml",
)
# fmt: on

# The directories of / that are symlinks on a merged /usr.
TOPS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")

TMP = PurePosixPath("/tmp")  # noqa: S108 - inside, its own
TEMPORARY_MEMORY = 1 << 30  # bytes of /tmp where it cannot be the container's directory
SHARED_MEMORY = 64 << 20  # bytes of /dev/shm, as in Docker
NAME_OF_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
OWN_PLACES = ("/app", "/dev", "/proc", "/tmp", "/usr", "/etc", *(f"/{top}" for top in TOPS))  # noqa: S108


@frozen
class User:
    """Numeric ids under which services run when the ship itself is root."""

    uid: int
    gid: int


@frozen
class Box:
    """How commands are boxed on this host: decided once, when the runtime starts.

    `bwrap` is None for the bare process group. `user` is given only if the ship is root.
    `counted` says that each command gets a user namespace of its own to count processes in.
    `tops` are (name, target) of `/bin` and its like: target is "" for a real directory.
    """

    bwrap: str | None
    user: User | None
    counted: bool
    accounts: Path  # holds the `passwd` and `group` that are seen inside
    tops: tuple[tuple[str, str], ...] = ()
    readable: tuple[Path, ...] = ()

    @property
    def sandboxed(self) -> bool:
        return self.bwrap is not None


def chain(box: Box, limits: Limits) -> list[str]:
    """The links between bubblewrap and the command."""
    return [*links(box, limits), "/bin/sh", "-s", "--"]


def links(box: Box, limits: Limits) -> list[str]:
    """Those of the chain that take rights away; what follows them has them no more."""
    links: list[str] = []
    if box.user is not None:
        ids = [f"--reuid={box.user.uid}", f"--regid={box.user.gid}", "--clear-groups"]
        links += ["/usr/bin/setpriv", *ids, "--inh-caps=-all", "--no-new-privs"]
        if box.counted and box.sandboxed:
            maps = [f"--map-user={box.user.uid}", f"--map-group={box.user.gid}"]
            links += ["/usr/bin/unshare", "--user", *maps, "--"]
    return [*links, *limited(limits)]


def outer(box: Box, options_fd: int | None) -> list[str]:
    """The first link: bubblewrap with its options (`view`) to be read from a descriptor."""
    if box.bwrap is None:
        return []
    return [box.bwrap, "--args", str(options_fd), "--"]


def view(
    box: Box, container: Container, mounts: Sequence[Mount], status_fd: int | None = None
) -> list[str]:
    """bubblewrap's options: the host's system read-only, the container's own files writable."""
    binds = [
        *_system(box),
        ("--bind", str(container.app), APP),
        *(("--ro-bind", str(path), str(path)) for path in box.readable),
        *(_bind(mount) for mount in mounts),
    ]
    destinations = [PurePosixPath(destination) for _, _, destination in binds]
    return [
        *_namespaces(box, container),
        *_parents(destinations),
        *_tmp(container, destinations),
        *(word for bind in binds for word in bind),
        *_links(destinations),
        *("--dev", "/dev", "--proc", "/proc"),
        *("--perms", "1777", "--size", str(SHARED_MEMORY), "--tmpfs", "/dev/shm"),  # noqa: S108
        *("--remount-ro", "/", "--chdir", "/"),
        *(("--json-status-fd", str(status_fd)) if status_fd is not None else ()),
    ]


def as_arguments(options: Iterable[str]) -> bytes:
    """Options in the form that `--args` reads."""
    return b"".join(os.fsencode(option) + b"\0" for option in options)


def environment(
    env: Mapping[str, str], *, home: str, tmp: str, path: Sequence[str]
) -> dict[str, str]:
    """The whole environment of a command: the runtime's own few, and `env` over them.

    Raises `ContainerError` for a name that is no identifier, or a NUL in a value.
    """
    for name, value in env.items():
        if not NAME_OF_VARIABLE.match(name):
            raise ContainerError(f"environment: {name!r} is not a name for a variable")
        if "\0" in value:
            raise ContainerError(f"environment: the value of {name} has a NUL in it")
    own = {
        "PATH": ":".join([*path, SYSTEM_PATH]),
        "HOME": home,
        "LANG": "C.UTF-8",
        "TMPDIR": tmp,
    }
    return own | dict(env)


def script(env: Mapping[str, str], *, cwd: str, without: Iterable[str] = ()) -> bytes:
    """What `sh -s` reads: sets exactly `env`, then becomes the command, with an empty stdin."""
    # Here, where it is done by the user whose directory it is: nobody else may be let in.
    lines = [f"cd {shlex.quote(cwd)} || exit"]
    lines += [f"unset {name}" for name in ("PWD", "OLDPWD", "SHLVL", *without)]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in env.items()]
    # In braces, so that the shell has read all of it before it runs any of it.
    return os.fsencode("{\n" + "\n".join(lines) + '\nexec "$@" </dev/null\n}\n')


def exported(env: Mapping[str, str], without: Iterable[str] = ()) -> bytes:
    """What a shell reads that is to have `env`, and none of the others."""
    lines = [f"unset {name}\n" for name in without]
    lines += [f"export {name}={shlex.quote(value)}\n" for name, value in env.items()]
    return os.fsencode("".join(lines))


def _namespaces(box: Box, container: Container) -> list[str]:
    """Own pids, ipc, host name, cgroup view; not the network: services answer on the host's."""
    hostname = container.name[:63].rstrip(".-")
    options = ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    options += ["--hostname", hostname, "--cap-drop", "ALL"]
    if box.user is not None:
        return [*options, "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    return [*options, "--unshare-user"]


def _system(box: Box) -> list[tuple[str, str, str]]:
    return [
        ("--ro-bind", "/usr", "/usr"),
        *(
            ("--symlink", target, f"/{name}") if target else ("--ro-bind", f"/{name}", f"/{name}")
            for name, target in box.tops
        ),
        *(("--ro-bind-try", f"/etc/{name}", f"/etc/{name}") for name in ETC),
        ("--ro-bind", str(box.accounts / "passwd"), "/etc/passwd"),
        ("--ro-bind", str(box.accounts / "group"), "/etc/group"),
    ]


def _bind(mount: Mount) -> tuple[str, str, str]:
    # A mount below what the command itself can write would go wherever its symlinks point.
    if not can_be(mount):
        raise ContainerError(f"mount: nothing can be mounted at {mount.at!r}")
    return ("--bind" if mount.writable else "--ro-bind", str(mount.source), mount.at)


def can_be(mount: Mount) -> bool:
    """Whether it has a place where something can be mounted, or is what the app is."""
    return is_place(mount.at) or (mount.theirs and mount.at == APP)


def is_place(at: str) -> bool:
    """Whether something can be mounted there: it is an absolute path, plain, and not taken."""
    path = PurePosixPath(at)
    plain = path.is_absolute() and ".." not in path.parts and str(path) == at and path.name != ""
    return plain and not any(path.is_relative_to(place) for place in OWN_PLACES)


def _parents(destinations: Sequence[PurePosixPath]) -> list[str]:
    """Make the directories above the mount points, which bubblewrap makes for root alone."""
    needed = {PurePosixPath("/run"), PurePosixPath("/var")}
    for destination in destinations:
        above = [parent for parent in destination.parents if parent.name]
        if not set(destinations).intersection(above):
            needed.update(above)
    needed.discard(TMP)
    return [word for path in sorted(needed) for word in ("--perms", "0755", "--dir", str(path))]


def _tmp(container: Container, destinations: Sequence[PurePosixPath]) -> list[str]:
    """The container's own directory; an empty one in memory if something is mounted below.

    Mount points would be made in the former through whatever symlinks the command left there.
    """
    if any(destination.is_relative_to(TMP) for destination in destinations):
        return ["--perms", "1777", "--size", str(TEMPORARY_MEMORY), "--tmpfs", str(TMP)]
    return ["--bind", str(container.directory / "tmp"), str(TMP)]


def _links(destinations: Sequence[PurePosixPath]) -> list[str]:
    links = (("../tmp", PurePosixPath("/var/tmp")), ("../run", PurePosixPath("/var/run")))  # noqa: S108
    return [
        word
        for target, link in links
        if not any(destination.is_relative_to(link) for destination in destinations)
        for word in ("--symlink", target, str(link))
    ]
