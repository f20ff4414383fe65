"""Whether a port of the host is there to be listened on."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from proxy.grammar import ProxyError


def check_free(bind: str, port: int) -> None:
    """Raises `ProxyError` that names the port and why; nothing stays bound."""
    family = socket.AF_INET6 if ip_address(bind).version == 6 else socket.AF_INET
    with socket.socket(family) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((bind, port))
        except OSError as error:
            raise ProxyError(f"port {port} cannot be had: {error.strerror}") from error
