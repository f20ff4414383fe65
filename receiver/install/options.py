"""The options of `starphleet install` and `uninstall`."""

from __future__ import annotations

import argparse
from pathlib import Path


def of_install(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--dry-run", action="store_true", help="say what would be done, and do nothing")
    add("--host", help="the name people reach the ship by (the name of this host)")
    add(
        "--ssh",
        choices=["first", "shared"],
        help="shared: sshd stays where it is, and the ship has port 2222 (first: it has 22)",
    )
    add("--ssh-port", type=int, help="the ship's own (22)")
    add("--sshd-port", type=int, help="where sshd goes if it has that (2022)")
    add("--http-port", type=int, help="80")
    add("--https-port", type=int, help="443; 0 for none")
    add("--headquarters", metavar="URL", help="what to follow")
    add("--private-key", type=Path, metavar="FILE", help="the key that its git host knows")
    add("--remote", metavar="URL", help="where updates come from (the origin of this clone)")
    add(
        "--key",
        type=Path,
        action="append",
        default=[],
        metavar="FILE.pub",
        help="an admiral's key; the file is named for its owner, or give NAME=FILE.pub",
    )
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="any setting")


def of_uninstall(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--dry-run", action="store_true", help="say what would be undone, and do nothing")
    add("--purge", action="store_true", help="remove its data too, and the admirals' home")
