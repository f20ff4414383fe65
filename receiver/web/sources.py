"""What the ship's pages are made of."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from hooks.ship import Ship
from hooks.underway import Deploys
from receiver.headquarters.loop import Loop
from receiver.ssh.server import ShipSSHFactory


@frozen(eq=False)
class Sources:
    """The parts of a ship that pages ask; made once, by the daemon."""

    reactor: Any
    ship: Ship
    deploys: Deploys
    loop: Loop
    ssh: ShipSSHFactory
