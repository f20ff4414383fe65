"""What people are told while what they asked for has to wait."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from hooks.ledger import Serving
from hooks.queue import Queue
from receiver.commands import Commands
from tests.hooks.test_ledger import serving


class Waiting(SynchronousTestCase):
    def test_a_deploy_of_the_service_is_on(self) -> None:
        """`stop`, `start` and `restart` say that they wait for it; without one they say nothing."""
        queue = Queue(1, lambda: 0)

        async def known() -> dict[str, Serving]:
            return {"app": serving()}

        async def wait(service: str) -> None:
            async with queue.berth(service, lambda _: None, light=True):
                pass

        services = SimpleNamespace(put_to_rest=wait, rouse=wait, restart=wait)
        ship: Any = SimpleNamespace(
            queue=queue, services=services, ledger=SimpleNamespace(serving=known)
        )
        loop: Any = SimpleNamespace(bringing=SimpleNamespace(ordered={}))
        unused: Any = None
        commands = Commands(ship, loop, unused, unused, unused)
        for word in ("stop", "start", "restart"):
            said: list[str] = []
            deploy = queue.berth("app", lambda _: None)
            self.successResultOf(deploy.__aenter__())
            asked = Deferred.fromCoroutine(commands.do([word, "app"], said.append))
            self.assertEqual(said, ["Waiting for what is under way: app"])
            self.successResultOf(deploy.__aexit__(None, None, None))
            self.successResultOf(asked)
            self.assertEqual(len(said), 2)
            self.successResultOf(commands.do([word, "app"], said.append))
            self.assertEqual(len(said), 3)
