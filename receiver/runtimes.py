"""Which runtime a ship has: the one that is asked for, or the best that its host can give."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path
from typing import Any

from containers import files
from containers.interface import ContainerError, Runtime
from containers.lxc import made
from containers.lxc.needs import missing
from containers.lxc.network import Plan, read_network
from containers.lxc.runtime import LxcRuntime
from containers.process import ProcessRuntime
from hooks.errors import Refused
from receiver.config import Config

SCRIPT = Path(__file__).parents[1] / "overlay/usr/share/starphleet/starphleet-base"
LOOPBACK = IPv4Address("127.0.0.1")


def choose(reactor: Any, config: Config) -> Runtime:
    """The runtime that `config` asks for. Asked for none: the one whose containers are there, else
    LXC where the host has all it takes. `Refused` names what is missing, or that containers of the
    other one are there, which nobody would look after."""
    lacking, there = missing(), _there(config.layout.containers)
    if config.runtime and there not in ("", config.runtime):
        raise Refused(
            f"STARPHLEET_RUNTIME={config.runtime}: this ship has containers of {there} in "
            f"{config.layout.containers}. To change over: starphleet down, remove them, and "
            "push again; what is ordered is built anew by itself"
        )
    wanted = config.runtime or there
    if wanted == "process" or (not wanted and lacking):
        return ProcessRuntime(reactor, config.layout.containers, ports=config.service_ports)
    if lacking:
        raise Refused(f"STARPHLEET_RUNTIME=lxc: this host lacks {', '.join(lacking)}")
    try:
        runtime = _lxc(reactor, config)
    except ContainerError as error:
        raise Refused(f"STARPHLEET_RUNTIME=lxc: {error}") from error
    not_believed(config.settings.proxies, runtime.plan)
    return runtime


def _there(containers: Path) -> str:
    """The runtime of the containers that an earlier ship left, "" if it left none."""
    kinds = {made.is_made(one) for one in containers.iterdir() if files.NAME.match(one.name)}
    return "" if not kinds else "lxc" if kinds == {True} else "process"


def _lxc(reactor: Any, config: Config) -> LxcRuntime:
    roots = config.settings.roots
    return LxcRuntime(
        reactor,
        config.layout.containers,
        home=config.layout.lxc,
        script=SCRIPT,
        env={
            "PATH": config.path,
            **({"SSL_CERT_FILE": str(roots)} if roots else {}),
            **config.git_env,
        },
        front=(_front(config.bind), config.settings.http_port),
        wanted=read_network(config.network) if config.network else None,
        tests_reach_ship=config.tests_reach_ship,
        main=config.base,
        build_disk=config.settings.build_limits.disk,
        free_disk=config.settings.free_disk,
    )


def not_believed(proxies: Iterable[str], plan: Plan) -> None:
    """`Refused` where services could say who asks: where their containers are in `proxies`."""
    zones = (plan.ordered, plan.tests)
    own = [network for zone in zones for network in (zone.network, zone.network6) if network]
    for proxy in map(ip_network, proxies):
        for network in own:
            if proxy.version == network.version and proxy.overlaps(network):
                raise Refused(f"STARPHLEET_PROXIES: {proxy} has containers in it: {network}")


def _front(bind: str) -> IPv4Address:
    """Where on this host the front door is, for `localship`."""
    address = ip_address(bind.strip("[]"))
    return address if isinstance(address, IPv4Address) and int(address) else LOOPBACK
