"""All that a container is begun with, put together from what the ship has."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from attrs import frozen

from containers import files
from containers.boxing import DEFAULT_USER
from containers.interface import ContainerError, Limits, Mount
from containers.lxc import cgroups, network
from containers.lxc.cgroups import BUILD_WEIGHT, SERVICE_WEIGHT, Cgroups
from containers.lxc.config import ROOT, Cage, Files, Stack
from containers.lxc.ground import Ground, closed_to_others, unreachable
from containers.lxc.idmap import INSIDE
from containers.lxc.network import Plan


@frozen
class Cages:
    """What all containers of a ship have in common."""

    plan: Plan
    cgroups: Cgroups
    ground: Ground

    def cage(
        self,
        name: str,
        place: Files,
        stack: Stack,
        limits: Limits,
        mounts: Sequence[Mount],
        address: IPv4Address,
        *,
        root: bool = False,
        online: bool = True,
        port: int | None = None,
    ) -> Cage:
        """The cage of a service; without a `port`, of a command, which counts less on the CPUs.

        Hands what is mounted to be written to, to the service's user. Raises `ContainerError`.
        """
        for mount in mounts:
            if mount.writable and not mount.theirs:
                files.own_top(mount.source, DEFAULT_USER)
        weight = SERVICE_WEIGHT if port else BUILD_WEIGHT
        return Cage(
            name=name,
            stack=stack,
            files=place,
            user=ROOT if root else INSIDE,
            settings=tuple(self.cgroups.settings(name, limits, weight=weight)),
            limits=limits,
            below=self.plan.tag,
            plan=self.plan,
            address=address,
            online=online,
            port=port,
            mounts=tuple(map(self.ground.seen, mounts)),
            resolv=self.ground.resolv,
            seccomp=self.ground.seccomp(root=root),
            oom=self.cgroups.oom_file(name),
        )


def of_this_host(
    root: Path,
    home: Path,
    *,
    front: tuple[IPv4Address, int],
    wanted: IPv4Network | None,
    tests_reach_ship: bool,
) -> Cages:
    """The cages of a ship whose containers are below `root`, and share what is in `home`.

    Blocks. Raises `ContainerError` for what this host lacks.
    """
    ground = Ground(home)
    ground.prepare()
    for place in (root, ground.directory):
        if closed := closed_to_others(place):
            raise ContainerError(unreachable(closed))
    tag = network.tag_of(root)
    plan = network.plan(
        tag,
        ground.network(wanted, tag),
        front=front,
        tests_reach_ship=tests_reach_ship,
        ipv6=network.has_ipv6(),
        mtu=network.uplink_mtu(),
    )
    return Cages(plan, cgroups.of_this_host(tag), ground)
