"""What the guard has to know, as it is now: kept here, and written whole for it to read."""

from __future__ import annotations

from pathlib import Path

from proxy.grammar import ProxyError
from proxy.guard import store
from proxy.guard.store import Guards
from proxy.protection import Commons, Protection


class Guarding:
    """The protection of each service that has one, and what they share, under nginx's prefix.

    Raises `ProxyError` where it cannot be written.
    """

    def __init__(self, prefix: Path) -> None:
        self._prefix = prefix
        self._services: dict[str, Protection] = {}
        self._commons = Commons()

    def begin(self, services: dict[str, Protection], commons: Commons) -> None:
        """Guard just these services."""
        self._services = {name: each for name, each in services.items() if each.asks}
        self._commons = commons
        self._write()

    @property
    def needed(self) -> bool:
        """Whether there is anything to guard."""
        return bool(self._services)

    def protect(self, service: str, protection: Protection | None) -> bool:
        """Guard a service as `protection` says, or no more; whether that is something new."""
        wanted = protection if protection is not None and protection.asks else None
        if self._services.get(service) == wanted:
            return False
        if wanted is None:
            del self._services[service]
        else:
            self._services[service] = wanted
        self._write()
        return True

    def share(self, commons: Commons) -> bool:
        """What they share from now on; whether that is something new."""
        if commons == self._commons:
            return False
        self._commons = commons
        self._write()
        return True

    def _write(self) -> None:
        commons = self._commons
        guards = Guards(self._services, commons.groups, commons.ldap_servers)
        try:
            store.write(self._prefix, guards)
        except OSError as error:
            raise ProxyError(f"cannot write who may use what: {error}") from error
