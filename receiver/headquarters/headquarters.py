"""A headquarters as one commit of its repository says it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from attrs import frozen

from hooks.repository import Blob
from hooks.standing import Source, StandingOrders
from proxy.certificates import Certificate
from proxy.protection import Commons, LdapServer, Sign
from receiver.headquarters.following import PULSE

WITHHELD = frozenset({"STARPHLEET_HOOK_SECRET"})
"""Settings of the ship that are none of a service's business."""


@frozen
class Headquarters:
    """What one commit of the headquarters says. Paths are relative to its root.

    `environment` is what `.starphleet` and the ship's own files export, `said` what they print.
    `refused` maps files that are not acceptable to the reason, which begins with file and line.
    """

    source: Source
    commit: str
    tree: Path
    environment: Mapping[str, str]
    said: tuple[str, ...]
    orders: Mapping[str, StandingOrders]
    remotes: Mapping[str, Source]
    refused: Mapping[str, str]
    files: Mapping[str, Blob]
    keys: Mapping[str, bytes]
    known_hosts: bytes
    bases: Mapping[str, bytes]
    beta_groups: Mapping[str, tuple[str, ...]]
    ldap_servers: Mapping[str, LdapServer]
    signs: Mapping[str, Sign]
    certificates: Mapping[str, Certificate]

    @property
    def commons(self) -> Commons:
        """What all services share at the front door."""
        signs = tuple(self.signs[path] for path in sorted(self.signs))
        return Commons(self.beta_groups, self.ldap_servers, signs)

    @property
    def warnings(self) -> tuple[str, ...]:
        return (*self.said, *(text for one in self.orders.values() for text in one.warnings))

    @property
    def held(self) -> frozenset[str]:
        """The paths whose orders are refused: what serves there stays as it is."""
        files = (PurePosixPath(name) for name in self.refused)
        return frozenset("/".join(f.parts[:-1]) for f in files if f.name == "orders")

    @property
    def sources(self) -> set[Source]:
        """Everything that is to be followed besides the headquarters itself."""
        followed = {one.source for one in self.orders.values() if one.source is not None}
        return followed | set(self.remotes.values())

    @property
    def for_services(self) -> dict[str, str]:
        """What of the environment services may see."""
        return {name: value for name, value in self.environment.items() if name not in WITHHELD}

    @property
    def for_tests(self) -> dict[str, str]:
        """What of it a pushed service gets: all, or what STARPHLEET_TEST_ENV lists."""
        given = self.for_services
        listed = given.get("STARPHLEET_TEST_ENV")
        names = set(given) if listed is None else set(re.split(r"[\s,]+", listed))
        return {name: value for name, value in given.items() if name in names}


def pulse_of(environment: Mapping[str, str], own: float | None) -> float:
    """Seconds from one question to the next: the ship's own word, else `.starphleet`'s."""
    given = environment.get("STARPHLEET_PULSE", "")
    if own is None and re.fullmatch(r"[1-9][0-9]{0,4}", given):
        return float(given)
    return own or PULSE
