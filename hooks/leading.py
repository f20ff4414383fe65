"""Where the traffic of services goes, and the ports that they expose."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define, evolve

from containers.interface import Address, Runtime
from hooks.holding import Holding
from hooks.ledger import Ledger, Serving
from hooks.settings import Settings, route
from proxy.nginx import Proxy
from proxy.routes import Backend


@define(eq=False)
class Leading:
    """Leads what is asked for to what serves; requests wait where they are held."""

    settings: Settings
    ledger: Ledger
    runtime: Runtime
    proxy: Proxy
    holding: Holding

    async def publish(self, serving: Serving) -> None:
        """Send the traffic of the service to `serving`; none, if it is unpublished."""
        leading = route(self.settings, serving.service, serving.place, serving.front)
        if leading is not None and not serving.orphaned:
            starting = self.holding.holds(serving.container)
            leads = evolve(backend(serving), starting=starting)
            await self.proxy.publish(leading, leads, serving.front.protection)
        else:
            await self.proxy.withdraw(serving.service)
        await self.open_ports({serving.service: serving})

    async def open_ports(self, instead: Mapping[str, Serving | None]) -> None:
        """Lead the ports that orders expose to what serves: by the ledger, or `instead`."""
        now = {**(await self.ledger.serving()), **instead}
        await self.runtime.expose(
            {
                port: Address(one.host, port)
                for one in now.values()
                if one is not None and not one.orphaned and not one.stopped
                for port in one.front.exposed
            }
        )


def backend(serving: Serving) -> Backend:
    """Where the traffic of `serving` goes, and whether each request has to be looked at before."""
    asks, stopped = serving.front.protection.asks, serving.stopped
    return Backend(serving.container, serving.host, serving.port, guarded=asks, stopped=stopped)
