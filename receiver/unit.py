"""The unit of systemd by which an installed ship runs."""

from __future__ import annotations

from pathlib import Path

from hooks.layout import Layout

NAME = "starphleet.service"
PLACE = Path("/etc/systemd/system") / NAME
ROOT = Path("/var/starphleet")
BOOTED = Path("/run/systemd/system")


def starting(layout: Layout) -> tuple[str, ...]:
    """The argv that starts the ship of `layout` where it is systemd's to start; else nothing.

    It waits for one that is ending: what only starts finds that one still there, and does nothing.
    """
    if layout.root == ROOT and PLACE.is_file() and BOOTED.is_dir():
        return ("systemctl", "restart", NAME)
    return ()
