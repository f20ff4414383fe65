"""What the commands of a ship do, as far as it is seen without one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from hooks.ledger import Serving
from hooks.queue import Queue
from receiver.commands import Commands
from receiver.headquarters import ordered as phases
from receiver.headquarters.ordered import Ordered
from tests.hooks.test_ledger import serving
from tests.receiver.test_workplaces import standing


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


class Again(SynchronousTestCase):
    def test_what_was_stopped_is_looked_at_again(self) -> None:
        """Started or restarted, it is brought to what its orders want, and is not said to be
        stopped; a restart of one that ran changes nothing about that."""

        async def done(_: object) -> None: ...

        one = Ordered(standing("app"), commit="c" * 40)
        for name, stopped, brought in (
            ("start", True, [one]),
            ("restart", True, [one]),
            ("restart", False, []),
        ):
            with self.subTest(name=name, stopped=stopped):
                seen: list[Ordered] = []

                async def serving(stopped: bool = stopped) -> dict[str, Any]:
                    return {"/app": SimpleNamespace(service="/app", stopped=stopped)}

                ship: Any = SimpleNamespace(
                    ledger=SimpleNamespace(serving=serving),
                    queue=SimpleNamespace(running=()),
                    services=SimpleNamespace(rouse=done, restart=done),
                )
                bringing = SimpleNamespace(ordered={"app": one}, bring=seen.append)
                nothing: Any = None
                loop: Any = SimpleNamespace(bringing=bringing)
                one.phase = phases.STOPPED
                commands = Commands(ship, loop, nothing, nothing, nothing)
                doing = commands.do([name, "app"], lambda _: None)
                self.successResultOf(Deferred.fromCoroutine(doing))
                self.assertEqual(seen, brought)
