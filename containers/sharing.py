"""Access lists (POSIX ACLs): several users write in one tree, and each file stays whose it is.

Set by descriptor and not by `setfacl`: what runs in a container could put a link in the place of a
file between the look at it and the change of it.

Services are named in them, whose the tree is has what they make by its group: nobody is named who
is unknown in a container, where `cp -a` could not copy such a list.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Collection
from pathlib import Path

_ACCESS, _DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
_OWNER, _USER, _GROUP, _MASK, _OTHERS = 0x01, 0x02, 0x04, 0x10, 0x20
_HEAD, _ENTRY = struct.Struct("<I"), struct.Struct("<HHI")  # as the kernel has them in an xattr
_VERSION, _NOBODY = 2, 0xFFFFFFFF
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NONE_HERE = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EACCES)


def share(directory: Path, users: Collection[int]) -> bool:
    """Let `users`, which run in containers, and whose `directory` is write all that is in it, and
    what either will make there; git's own files are left alone. False where the file system has no
    access lists.

    Follows no link; leaves out files of several names, which may be in other trees too. Blocks.
    """
    try:
        group = directory.stat().st_gid
        for _, directories, files, fd in os.fwalk(directory):
            directories[:] = [name for name in directories if name != ".git"]
            _grant(fd, users, group)
            for name in files:
                _share_file(fd, name, users, group)
    except OSError as error:
        if error.errno not in _NONE_HERE:
            raise
        return False
    return True


def granted(present: bytes | None, mode: int, users: Collection[int], *, grouped: bool) -> bytes:
    """The access list `present` (`None`: there is none) of a file of this `mode`, with `users` in
    it, and with the file's group if it is to be `grouped`."""
    whole = 7 if stat.S_ISDIR(mode) or mode & 0o100 else 6
    entries = _entries(present) if present else {(_GROUP, _NOBODY): mode >> 3 & 7}
    entries |= {(_OWNER, _NOBODY): mode >> 6 & 7, (_OTHERS, _NOBODY): mode & 7}
    entries |= {(_USER, user): whole for user in users}
    entries |= {(_GROUP, _NOBODY): whole} if grouped else {}
    entries[_MASK, _NOBODY] = whole | entries[_GROUP, _NOBODY]
    packed = (_ENTRY.pack(tag, rights, who) for (tag, who), rights in sorted(entries.items()))
    return _HEAD.pack(_VERSION) + b"".join(packed)


def _entries(packed: bytes) -> dict[tuple[int, int], int]:
    return {(tag, who): rights for tag, rights, who in _ENTRY.iter_unpack(packed[_HEAD.size :])}


def _share_file(directory: int, name: str, users: Collection[int], group: int) -> None:
    try:
        fd = os.open(name, _FILE, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOENT, errno.ENXIO):  # a link, gone, a socket
            return
        raise
    try:
        about = os.fstat(fd)
        if stat.S_ISREG(about.st_mode) and about.st_nlink == 1:
            _grant(fd, users, group)
    finally:
        os.close(fd)


def _grant(fd: int, users: Collection[int], group: int) -> None:
    about = os.fstat(fd)
    made = about.st_uid in users  # by a service: whose the directory is has it by its group
    if made and about.st_gid != group:
        os.fchown(fd, -1, group)
    if not stat.S_ISDIR(about.st_mode):
        return _set(fd, _ACCESS, about.st_mode, users, grouped=made)
    if not about.st_mode & stat.S_ISGID:  # what is made in it has its group
        os.fchmod(fd, stat.S_IMODE(about.st_mode) | stat.S_ISGID)
    _set(fd, _ACCESS, about.st_mode, users, grouped=made)
    return _set(fd, _DEFAULT, about.st_mode, users, grouped=True)


def _set(fd: int, kind: str, mode: int, users: Collection[int], *, grouped: bool) -> None:
    present = _present(fd, kind)
    wanted = granted(present, mode, users, grouped=grouped)
    if wanted != present:
        os.setxattr(fd, kind, wanted)


def _present(fd: int, kind: str) -> bytes | None:
    try:
        return os.getxattr(fd, kind)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        return None
