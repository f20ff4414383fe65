"""What all services of a ship share at its front door, kept so that it holds without anybody
telling it again: groups, directories of users, signs, certificates."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from attrs import define, evolve, field
from cattrs.preconf.json import make_converter
from twisted.logger import Logger

from containers.watching import in_thread
from hooks.layout import Layout
from hooks.ledger import Ledger
from hooks.settings import Settings, is_address, own_host
from proxy.certificates import Certificate, kept, load, offered, save, write_private
from proxy.changes import CERTIFICATES, SIGNS
from proxy.nginx import Proxy
from proxy.protection import Commons, Protection
from proxy.routes import Backend, ProxyError, Route

if TYPE_CHECKING:  # it takes long to load, and few ships want it
    from proxy.acme import Acme

_values = make_converter()


@define(eq=False)
class FrontDoor:
    """`open` comes first; `adopt` whenever the headquarters changed, `renew` now and then."""

    reactor: Any
    layout: Layout
    settings: Settings
    ledger: Ledger
    proxy: Proxy
    acme: Acme | None = None
    commons: Commons = Commons()
    _standing: Mapping[str, Certificate] = field(factory=dict)
    _given: dict[str, Certificate] = field(factory=dict)
    _own: Certificate | None = None
    _behind: bool = False
    """Whether nginx could not be given what there is."""
    _log: Logger = Logger()

    @property
    def certificates(self) -> dict[str, Certificate]:
        """By name, "" for the default. Those of the headquarters count most."""
        own = {"": self._own} if self._own is not None else {}
        return {**own, **self._given, **self._standing}

    async def open(
        self, table: Mapping[Route, tuple[Backend, Protection]]
    ) -> dict[str, ProxyError]:
        """Serve `table`, with what was shared last; why not for each service that has no route."""
        self.commons, self._standing = await in_thread(self.reactor, self._load)
        self._own = await in_thread(self.reactor, self._make_own)
        if self.acme is not None:
            self._given = await self.acme.certificates(await self._names())
        return await self.proxy.start(table, self.commons, offered(self.certificates))

    async def adopt(
        self, commons: Commons, certificates: Mapping[str, Certificate], refused: Collection[str]
    ) -> None:
        """From now on, and when the ship comes back, the headquarters says so.

        What a file of it says that is `refused` stays as it was.
        """
        servers = self.commons.ldap_servers
        held = {name: servers[name] for name in servers if f"ldap_servers/{name}" in refused}
        commons = evolve(commons, ldap_servers={**held, **commons.ldap_servers})
        certificates = {
            **{name: self._standing[name] for name in self._standing if _in(refused, name)},
            **certificates,
        }
        if (commons, certificates) == (self.commons, self._standing):
            return
        await in_thread(self.reactor, self._keep, commons, certificates)
        self.commons, self._standing = commons, certificates
        await self.refit()

    async def renew(self) -> None:
        """Replace certificates whose end is near, and get those that are missing."""
        before = self.certificates
        self._own = await in_thread(self.reactor, self._make_own)
        if self.acme is not None:
            names = await self._names()
            refused = await self.acme.renew(names, time.time(), self._given.__setitem__)
            for why in refused.values():
                self._log.error("{why}", why=why)
        if self.certificates != before or self._behind:
            await self.refit()

    def vouched(self, host: str) -> bool:
        """Whether browsers need not be told to trust the certificate for `host`: it is not the
        ship's own work."""
        pairs = (*self._standing.values(), *self._given.values())
        return any(pair.covers(host) for pair in pairs)

    async def _names(self) -> list[str]:
        """The hosts that lead here for good, and have no certificate of the headquarters."""
        serving = (await self.ledger.serving()).values()
        ordered = [one for one in serving if one.place is not None and not one.orphaned]
        hosts = {host for one in ordered if one.place for host in one.place.hosts}
        hosts |= {host for one in ordered for host, _ in one.front.redirects}
        hosts |= {own_host(self.settings)} if self.settings.test_domain else set()
        return sorted(
            host
            for host in {self.settings.host, *hosts}
            if not any(pair.covers(host) for pair in self._standing.values())
        )

    async def refit(self) -> None:
        """Let nginx have what all share; what it cannot have is logged, and stays as it was until
        the next look at certificates."""
        self._behind = True
        try:
            refused = await self.proxy.refit(self.commons, offered(self.certificates))
            self._behind = not refused.keys().isdisjoint((SIGNS, CERTIFICATES))
        except ProxyError as error:
            self._log.error("the front door stays as it was: {error}", error=error)

    def _load(self) -> tuple[Commons, dict[str, Certificate]]:
        if not self.layout.commons.exists():
            return Commons(), {}
        found = self._pairs.glob("*.pem")
        pairs = {unquote(file.name[1:-4]): load(file) for file in found}
        return (
            _values.loads(self.layout.commons.read_bytes(), Commons),
            {name: pair for name, pair in pairs.items() if pair is not None},
        )

    def _keep(self, commons: Commons, certificates: Mapping[str, Certificate]) -> None:
        files = {self._pairs / f"_{quote(name)}.pem": pair for name, pair in certificates.items()}
        for file, pair in files.items():
            save(file, pair)
        for file in self._pairs.glob("*.pem"):
            if file not in files:
                file.unlink()
        write_private(self.layout.commons, _values.dumps(commons).encode())

    @property
    def _pairs(self) -> Path:
        return self.layout.certificates / "standing"

    def _make_own(self) -> Certificate | None:
        """The one for who has none of the headquarters; `None` when the ship does not speak TLS."""
        if self.settings.https_port is None:
            return None
        host, domain = self.settings.host, self.settings.test_domain
        names = [host, *([] if is_address(host) else [f"*.{host}"])]
        names += [domain, f"*.{domain}"] if domain else []
        return kept(self.layout.certificates / "own", names, time.time())


def _in(refused: Collection[str], certificate: str) -> bool:
    """Whether one of the files of the headquarters' pair of that name is refused."""
    stem = certificate.replace("*.", "_.")
    dot = "." if stem else ""
    return any(f"ssl/{stem}{dot}{kind}" in refused for kind in ("crt", "key"))
