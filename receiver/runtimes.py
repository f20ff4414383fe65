"""Which runtime a ship has: the one that is asked for, or the best that its host can give."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Any

from containers import files
from containers.interface import ContainerError, Runtime
from containers.lxc import made
from containers.lxc.needs import missing
from containers.lxc.network import read_network
from containers.lxc.runtime import LxcRuntime
from containers.process import ProcessRuntime
from hooks.errors import Refused
from receiver.config import Config

SCRIPT = Path(__file__).parents[1] / "overlay/usr/share/starphleet/starphleet-base"
LOOPBACK = IPv4Address("127.0.0.1")


def choose(reactor: Any, config: Config) -> Runtime:
    """The runtime that `config` asks for. Asked for none: the one whose containers are there, else
    LXC where the host has all it takes. `Refused` names what is missing."""
    lacking = missing()
    wanted = config.runtime or _there(config.layout.containers)
    if wanted == "process" or (not wanted and lacking):
        return ProcessRuntime(reactor, config.layout.containers, ports=config.service_ports)
    if lacking:
        raise Refused(f"STARPHLEET_RUNTIME=lxc: this host lacks {', '.join(lacking)}")
    try:
        return _lxc(reactor, config)
    except ContainerError as error:
        raise Refused(f"STARPHLEET_RUNTIME=lxc: {error}") from error


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
    )


def _front(bind: str) -> IPv4Address:
    """Where on this host the front door is, for `localship`."""
    address = ip_address(bind.strip("[]"))
    return address if isinstance(address, IPv4Address) and int(address) else LOOPBACK
