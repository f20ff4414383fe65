"""Tests that share a ship which is nothing but its SSH server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from twisted.trial.unittest import SynchronousTestCase

from tests.receiver.ssh_ship import Ship


class ShipCase(SynchronousTestCase):
    """One ship for all tests of a class, with these `settings`."""

    settings: ClassVar[Mapping[str, Any]] = {}
    ship: ClassVar[Ship]

    @classmethod
    def setUpClass(cls) -> None:
        cls.ship = Ship(**cls.settings)

    @classmethod
    def tearDownClass(cls) -> None:
        cls.ship.close()
