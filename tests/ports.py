"""Ports for tests that run beside each other."""

from __future__ import annotations

import os
import random
import socket

WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
OURS = range(10000 + 1200 * WORKER, 11200 + 1200 * WORKER)
"""Of this worker alone, and none that the kernel gives to those who connect."""

_given: set[int] = set()


def free_port() -> int:
    """A port of the loopback that nobody has, and that was not given out before."""
    while True:
        port = random.choice(OURS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in _given:
            _given.add(port)
            return port
