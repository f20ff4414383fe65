"""nft's own library, for rules in a container's network: a process for each would be most of what a
start takes."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from threading import Lock

LIBRARY = "libnftables.so.1"
_NEW_NETWORK = 0x40000000  # of linux/sched.h
_one_at_a_time = Lock()  # the library keeps some of what it knows for all
_libc = ctypes.CDLL(None, use_errno=True)


class NftError(Exception):
    """What nft has against the rules."""


def load(pid: int, rules: str) -> None:
    """Load `rules` in the network of a process, in one transaction. Only in a thread that ends
    then: it stays in that network. Raises `NftError`, or `OSError` when the process has gone."""
    network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(network, _NEW_NETWORK) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(network)
    with _one_at_a_time:
        _run(library(), rules.encode())


@cache
def library() -> ctypes.CDLL:
    """Raises `OSError` if this host has none."""
    found = ctypes.CDLL(LIBRARY)
    found.nft_ctx_new.restype = ctypes.c_void_p
    found.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    return found


def _run(library: ctypes.CDLL, rules: bytes) -> None:
    context = ctypes.c_void_p(library.nft_ctx_new(0))
    try:
        library.nft_ctx_buffer_error(context)
        if library.nft_run_cmd_from_buffer(context, rules) != 0:
            said: bytes = library.nft_ctx_get_error_buffer(context)
            raise NftError(" ".join(said.decode("utf-8", "replace").split()))
    finally:
        library.nft_ctx_free(context)
