"""What a ship tells systemd, where that started it."""

from __future__ import annotations

import socket
from contextlib import suppress


def notify(address: str, text: str) -> None:
    """Send `text`, such as `READY=1`, to the socket that NOTIFY_SOCKET names (sd_notify(3));
    nothing when `address` is ""."""
    if not address:
        return
    name = f"\0{address[1:]}" if address.startswith("@") else address
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.sendto(text.encode(), name)
