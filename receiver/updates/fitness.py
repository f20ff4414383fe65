"""Whether this version of Starphleet could be the ship here, asked before it is."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from containers.interface import ContainerError
from containers.spawn import run_at_start
from hooks.errors import ShipError
from hooks.ledger import readable
from proxy.routes import ProxyError
from proxy.trial import tried
from receiver.config import Config

ROOMS = ("containers", "buildpacks", "proxy", "hooks", "receiver")


def check(config: Config) -> None:
    """`ShipError` when it could not: a module cannot be imported, the ledger cannot be read, nginx
    does not take its configuration. Nothing is changed."""
    for room in ROOMS:
        import_all(room)
    readable(config.layout.ledger)
    with tempfile.TemporaryDirectory() as prefix:
        _try_nginx(config, Path(prefix).resolve())


def import_all(room: str) -> None:
    """Import every module of a package; `ShipError` names the one that cannot be."""
    name = room
    try:
        for found in walk_packages(import_module(room).__path__, f"{room}."):
            name = found.name
            if not name.endswith("__main__"):
                import_module(name)
    except Exception as error:
        raise ShipError(f"{name} cannot be imported: {error!r}") from error


def _try_nginx(config: Config, prefix: Path) -> None:
    async def run(argv: Sequence[str], seconds: float) -> tuple[int, str]:
        done = run_at_start(argv, env={"PATH": config.path}, seconds=seconds)
        return done.exit.status or 0, done.output.decode("utf-8", "replace")

    failed: list[Failure] = []
    trying = Deferred.fromCoroutine(tried(prefix, run, config.path, config.settings.http_port))
    trying.addErrback(failed.append)  # nothing in it waits, so it is over by now
    for failure in failed:
        if failure.check(ProxyError, ContainerError):
            raise ShipError(str(failure.value)) from failure.value
        failure.raiseException()
