"""Who stands between clients and the ship, and is believed what it says of them."""

from __future__ import annotations

import re
from ipaddress import ip_network

from proxy.grammar import InvalidRoute

_PLAIN = re.compile(r"[0-9a-fA-F.:]{2,45}(/[0-9]{1,3})?")


def networks(text: str) -> tuple[str, ...]:
    """The addresses and networks in `text`, apart by spaces or commas, as nginx reads them.

    `InvalidRoute` names the one that is none, or is everybody.
    """
    return tuple(dict.fromkeys(network(word) for word in re.split(r"[\s,]+", text) if word))


def network(word: str) -> str:
    """One address or network, in its shortest form. Raises `InvalidRoute`."""
    shown = ascii(word)[:60]
    try:
        found = ip_network(word) if _PLAIN.fullmatch(word) else None
    except ValueError:
        found = None
    if found is None:
        raise InvalidRoute(f"{shown} is not an address, nor a network such as 10.0.0.0/8")
    if found.prefixlen == 0:
        raise InvalidRoute(f"{shown} is everybody: anyone could say who they are")
    return str(found)
