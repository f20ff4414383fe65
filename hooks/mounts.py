"""What a service sees of the ship's directory, and the scripts that start what runs there."""

from __future__ import annotations

from pathlib import Path

from containers.interface import Container, Mount, Runtime
from hooks.errors import Refused
from hooks.layout import Layout
from hooks.ledger import Launch
from hooks.linking import app_mount

DATA = "/var/data"
BESIDE = "/orders"
ANY = "any"  # the script that runs what its arguments say


def any_script(runtime: Runtime, container: Container) -> str:
    """The path in `container` of the script that runs what its arguments say, in the environment
    of the service; `Refused` where an older ship built it."""
    mount = start_mount(container)
    if not (mount.source / ANY).exists():
        raise Refused(f"{container.name} was built by an older ship: starphleet retry-deploy")
    return f"{runtime.seen_at(container, mount)}/{ANY}"


def job_script(name: str) -> str:
    """The name of the script that starts the job `name`, in the container's directory `start`."""
    return f"job {name}"


def start_mount(container: Container) -> Mount:
    """Where the launch script is, for the service alone."""
    return Mount(container.directory / "start", "/start")


def mounts(layout: Layout, container: Container, launch: Launch) -> list[Mount]:
    """What a service sees besides its app: the launch script; an ordered one also the data that
    it shares with the others, and the files beside its orders; and the app where it is linked.
    """
    ordered = [*shared(layout, container)] if launch.ordered else []
    app = [app_mount(Path(launch.working))] if launch.linked else []
    return [start_mount(container), *ordered, *app]


def shared(layout: Layout, container: Container) -> tuple[Mount, Mount]:
    """The shared data, and the files beside the orders of the service in `container`."""
    return (
        Mount(layout.data, DATA, writable=True),
        Mount(layout.beside(container.name), BESIDE),
    )
