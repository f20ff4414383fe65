"""What a runtime writes down of a service so that a later ship process finds it again."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from containers.interface import Address, Exit
from containers.proc import Process, boot_id

RECORD = "service.json"
STATUS = "status"  # bubblewrap itself writes the exit status here: it outlives the ship


@frozen
class Record:
    """A service that was started: where it answers, and the process that leads it.

    Written without `leader` just before the spawn and with it just after, so that a ship killed
    in between leaves word that there may be something to look for.
    """

    address: Address
    mark: str  # in the environment of its processes, see `marks`
    leader: Process | None = None


def write(directory: Path, record: Record) -> None:
    text = {
        "host": record.address.host,
        "port": record.address.port,
        "mark": record.mark,
        "boot": boot_id(),
        "pid": record.leader.pid if record.leader else None,
        "ticks": record.leader.ticks if record.leader else None,
    }
    new = directory / f"{RECORD}.new"
    new.write_text(json.dumps(text) + "\n")
    new.rename(directory / RECORD)


def read(directory: Path) -> Record | None:
    """The record of a service started since this host booted, else None."""
    try:
        found = json.loads((directory / RECORD).read_text())
        if found["boot"] != boot_id():
            return None
        leader = None if found["pid"] is None else Process(int(found["pid"]), int(found["ticks"]))
        address = Address(str(found["host"]), int(found["port"]))
        return Record(address, str(found["mark"]), leader)
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None


def forget(directory: Path) -> None:
    with suppress(FileNotFoundError):
        (directory / RECORD).unlink()


def open_status(directory: Path) -> int:
    """An empty file for bubblewrap's `--json-status-fd`."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
    return os.open(directory / STATUS, flags, 0o600)


def recorded_exit(directory: Path) -> Exit:
    """How the sandboxed main command ended, as far as bubblewrap lived to tell."""
    try:
        lines = (directory / STATUS).read_text().splitlines()
    except FileNotFoundError:
        return Exit()
    for line in lines:
        with suppress(ValueError):
            found = json.loads(line)
            if "exit-code" in found:
                return sandboxed_exit(Exit(status=int(found["exit-code"])))
    return Exit()


def sandboxed_exit(exit: Exit) -> Exit:
    """bubblewrap, as a shell, reports a death by signal N as status 128 + N.

    So a command that itself exits with 137 looks as if it had been killed by signal 9.
    """
    if exit.status is not None and 128 < exit.status <= 128 + 64:
        return Exit(signal=exit.status - 128, reason=exit.reason)
    return exit
