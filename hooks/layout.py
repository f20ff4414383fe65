"""Where everything is that a ship keeps: one directory, whose parts only this module names."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import quote

from attrs import Factory, frozen

from hooks.errors import ShipError


@frozen
class Layout:
    """The ship's root and its parts. `prepare` makes them, private to the user of the ship."""

    root: Path
    working: Path = Factory(lambda self: self.root / "dev", takes_self=True)
    """On a workstation, the working directories of services: the developer's."""

    @property
    def authorized_keys(self) -> Path:
        return self.root / "authorized_keys"

    @property
    def host_key(self) -> Path:
        return self.root / "ssh_host_ed25519_key"

    @property
    def settings(self) -> Path:
        return self.root / "settings"

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.sqlite"

    @property
    def lock(self) -> Path:
        return self.root / "ship.lock"

    @property
    def installed(self) -> Path:
        """What an installation made of this host."""
        return self.root / "installed.json"

    @property
    def log(self) -> Path:
        return self.root / "ship.log"

    @property
    def socket(self) -> Path:
        return self.root / "run" / "ship"

    @property
    def repositories(self) -> Path:
        return self.root / "repositories"

    @property
    def containers(self) -> Path:
        return self.root / "containers"

    @property
    def lxc(self) -> Path:
        """What all containers of the LXC runtime share, bases foremost."""
        return self.root / "lxc"

    @property
    def caches(self) -> Path:
        return self.root / "caches"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def buildpacks(self) -> Path:
        return self.root / "buildpacks"

    @property
    def nginx(self) -> Path:
        return self.root / "nginx"

    @property
    def tools(self) -> Path:
        return self.root / "tools"

    @property
    def scratch(self) -> Path:
        return self.root / "scratch"

    @property
    def demo(self) -> Path:
        return self.root / "demo"

    @property
    def private_keys(self) -> Path:
        """Deploy keys: what the ship shows to the git hosts that it follows."""
        return self.root / "private_keys"

    @property
    def known_hosts(self) -> Path:
        """Host keys of git hosts, recorded when first seen."""
        return self.root / "known_hosts"

    @property
    def connections(self) -> Path:
        """Sockets of the ssh connections that are kept."""
        return self.root / "run" / "ssh"

    @property
    def headquarters(self) -> Path:
        """One line: where the headquarters is."""
        return self.root / "headquarters"

    @property
    def standing(self) -> Path:
        """What was read from the headquarters: its tree, its keys and known hosts."""
        return self.root / "standing"

    @property
    def trees(self) -> Path:
        """The files of the headquarters, a directory for each commit of it that was read."""
        return self.standing / "trees"

    @property
    def admirals(self) -> Path:
        """The headquarters' `authorized_keys/`, beside the ship's own."""
        return self.standing / "authorized_keys"

    @property
    def commons(self) -> Path:
        """What all services share at the front door, as the headquarters said it last."""
        return self.standing / "commons.json"

    @property
    def certificates(self) -> Path:
        """TLS pairs: `standing` of the headquarters, `own` made here, `acme` given to this ship."""
        return self.root / "certificates"

    @property
    def nginx_files(self) -> Path:
        """The operator's own `*.conf`, for nginx's `http`."""
        return self.root / "nginx.d"

    @property
    def live(self) -> Path:
        """While it is there, this is no workstation, whatever else says so."""
        return self.root / "live"

    @property
    def sources(self) -> Path:
        """Bare repositories: what was fetched from the repositories that are followed."""
        return self.root / "sources"

    @property
    def closed(self) -> Path:
        """What the box for orders files needs."""
        return self.standing / "box"

    @property
    def versions(self) -> Path:
        """Versions of Starphleet that were installed beside the one that began here."""
        return self.root / "versions"

    @property
    def data(self) -> Path:
        """What ordered services share, and see as /var/data."""
        return self.root / "data"

    def repository(self, name: str) -> Path:
        return self.repositories / f"{name}.git"

    def cache(self, service: str) -> Path:
        """Of one service alone; no pushed one has a name with a % in it."""
        return self.caches / quote(service, safe="")

    def build_place(self, cache: Path, container: str) -> Path:
        """Where a container's app is while it is built: on one mount with its cache."""
        return cache / "build" / container

    def beside(self, container: str) -> Path:
        """The files beside the orders of the service in `container`."""
        return self.containers / container / "orders"

    def deploy_log(self, service: str) -> Path:
        """What the newest deploy of an ordered service said."""
        return self.logs / f"{quote(service, safe='')}.deploy"

    def looked(self, service: str) -> Path:
        """When the clock was last looked at for the jobs of a service, in epoch seconds."""
        return self.logs / f"{quote(service, safe='')}.looked"

    @property
    def audit(self) -> Path:
        """Who did what over SSH."""
        return self.logs / "audit.log"

    @property
    def vitals(self) -> Path:
        """How the host was in each minute of the last day."""
        return self.logs / "vitals"

    @property
    def journal(self) -> Path:
        """Every line of every service and of the ship, in segments."""
        return self.logs / "journal"

    def service_log(self, container: str) -> Path:
        return self.logs / f"{container}.log"

    def prepare(self) -> None:
        """Make what is missing; empty what only a running ship needs."""
        for directory in (
            self.root,
            self.authorized_keys,
            self.socket.parent,
            self.connections,
            self.repositories,
            self.containers,
            self.caches,
            self.logs,
            self.buildpacks,
            self.tools,
            self.nginx,
            self.private_keys,
            self.standing,
            self.sources,
            self.data,
            self.certificates,
            self.nginx_files,
            self.journal,
        ):
            directory.mkdir(parents=True, exist_ok=True)
        for private in (
            self.authorized_keys,
            self.socket.parent,
            self.repositories,
            self.logs,
            self.private_keys,
            self.standing,
            self.sources,
            self.certificates,
            self.journal,
        ):
            private.chmod(0o700)
        for passing in (self.scratch, self.trees):
            shutil.rmtree(passing, ignore_errors=True)
            passing.mkdir(mode=0o700)

    def free_bytes(self) -> int:
        """Bytes that an ordinary user may still write to the ship's disk."""
        return shutil.disk_usage(self.root).free

    def require_room(self, least: int) -> None:
        """`ShipError` when fewer than `least` bytes are free."""
        free = self.free_bytes()
        if free < least:
            raise ShipError(
                f"no room on the ship's disk: {free // 2**20} MB free, "
                f"{least // 2**20} MB needed; what serves goes on serving"
            )
