"""What all services share at the front door."""

from __future__ import annotations

import errno
import time

from twisted.internet import reactor

from hooks.frontdoor import FrontDoor
from hooks.layout import Layout
from hooks.ledger import Ledger
from hooks.settings import Settings
from proxy.certificates import self_made
from proxy.files import Generations
from proxy.protection import Commons
from tests.hooks.scene import scratch
from tests.ports import free_port
from tests.proxy.world import ProxyCase


def full(*_: object) -> None:
    """A disk on which there is no room."""
    raise OSError(errno.ENOSPC, "No space left on device")


class FrontDoors(ProxyCase):
    async def test_what_nginx_could_not_have_it_gets_later(self) -> None:
        """A certificate that came while the disk was full is shown once there is room, though
        nothing is new then."""
        layout = Layout(scratch(self))
        layout.prepare()
        ledger = Ledger(reactor, layout.ledger)  # type: ignore[arg-type]
        self.addCleanup(ledger.close)
        https = free_port()
        proxy = self.proxy(https_port=https)
        door = FrontDoor(reactor, layout, Settings(https_port=https), ledger, proxy)
        self.assertEqual(await door.open({}), {})
        generation = self.generation()
        patch = self.patch(Generations, "write", full)
        await door.adopt(Commons(), {"a.example": self_made(["a.example"], time.time())}, ())
        await door.renew()
        self.assertEqual(self.generation(), generation)
        patch.restore()
        await door.renew()
        self.assertEqual(self.generation(), generation + 1)
        await door.renew()
        self.assertEqual(self.generation(), generation + 1)
