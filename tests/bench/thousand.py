"""A change with a thousand services against the same with ten; and re-deploys among the thousand.

`python -m tests.bench.thousand HOME`: one JSON object of lists of samples.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from typing import Any

from attrs import define, field

from proxy.engine import Patience
from proxy.nginx import Proxy
from proxy.protection import Protection
from proxy.routes import Backend, Route
from tests.bench.front import HELLO, alone, apart, ms, nginx, ship
from tests.bench.measure import Bound, Figure, Line
from tests.bench.scene import Scene
from tests.bench.serving import Samples
from tests.ports import free_port
from tests.proxy.load import Load
from tests.proxy.reactor import run, until

MANY, FEW = 1000, 10  # services
ROUNDS = 9
DEPLOYS, CLIENTS = 200, 20
DRAIN = 10.0  # seconds
# So that what is measured is work: no pauses between reloads, nor before them.
AT_ONCE = Patience(verify=30.0, parting=0.0, apart=0.0)
PARTS = {
    "a new service": "change",
    "  of that nginx -t": "test",
    "  of that rendering and switching": "rest",
    "a re-deploy": "deploy",
}


def none() -> Bound:
    return Bound("0", lambda ours, _: ours == 0)


def thousand(scene: Scene) -> Iterator[Line]:
    """Each part of a change until it serves; then what clients see of re-deploys."""
    found = apart(__name__, scene)
    for name, part in PARTS.items():
        ours, few = (ms(found[f"{part}, {services}"]) for services in (MANY, FEW))
        yield Line(f"{name}, {MANY} services : {FEW}", ours, few)
    lost, answered = (Figure(tuple(found[name]), "") for name in ("lost", "answered"))
    yield Line(f"requests lost in {DEPLOYS} re-deploys, {CLIENTS} clients", lost, None, none())
    yield Line("  requests answered meanwhile", answered)


@define
class Ship:
    """An nginx with so many services, all of which lead to the same app."""

    reactor: Any
    services: int
    app: int
    port: int = field(factory=free_port)
    tested: float = 0.0  # seconds that the last `nginx -t` took
    numbers: count[int] = field(factory=count)
    proxy: Proxy = field(init=False)

    async def started(self, prefix: Path) -> Ship:
        options = {"run": self.run, "patience": AT_ONCE}
        self.proxy = ship(self.reactor, prefix, self.port, **options)
        numbers = range(self.services)
        table = {route(f"s{n}"): (self.backend(f"c{n}"), Protection()) for n in numbers}
        refused = await self.proxy.start(table)
        if refused:
            raise AssertionError(refused)
        return self

    def backend(self, container: str) -> Backend:
        return Backend(container, "127.0.0.1", self.app)

    async def run(self, argv: Sequence[str], seconds: float) -> tuple[int, str]:
        began = self.reactor.seconds()
        told = await run(argv, seconds)
        if "-t" in argv:
            self.tested = self.reactor.seconds() - began
        return told

    async def changed(self) -> Mapping[str, float]:
        """Seconds that one more service takes, and one re-deploy; then that service goes."""
        name = f"new{next(self.numbers)}"
        began = self.reactor.seconds()
        await self.proxy.publish(route(name), self.backend("before"))
        change = self.reactor.seconds() - began
        test = self.tested
        began = self.reactor.seconds()
        await self.proxy.publish(route(name), self.backend("after"))
        deploy = self.reactor.seconds() - began
        await self.proxy.withdraw(name)
        return {"change": change, "test": test, "rest": change - test, "deploy": deploy}


def route(name: str) -> Route:
    return Route(name, (f"{name}.example",), f"/~{name}/")


async def measure(reactor: Any, home: Path) -> Samples:
    port = free_port()
    found: Samples = {}
    with nginx(home / "app", HELLO.format(port=port), port):
        many = await Ship(reactor, MANY, port).started(home / "many")
        few = await Ship(reactor, FEW, port).started(home / "few")
        for number in range(ROUNDS + 1):
            for of in (many, few)[:: -1 if number % 2 else 1]:
                for part, seconds in (await of.changed()).items():
                    if number:  # the first is to warm them
                        found.setdefault(f"{part}, {of.services}", []).append(seconds)
        answered, lost = await deployed(many)
    return {**found, "answered": [answered], "lost": [lost]}


async def deployed(of: Ship) -> tuple[int, int]:
    """How many requests are answered, and lost, while one service is deployed again and again."""
    load = Load()
    await load.begin(of.port, "/~s0/", CLIENTS)
    containers = ["c0", *(f"again{n}" for n in range(DEPLOYS))]
    for old, new in pairwise(containers):
        await of.proxy.publish(route("s0"), of.backend(new))
        if await of.proxy.traffic.drain(old, DRAIN):
            raise AssertionError(f"requests are still at {old}")
        await until(partial(asked, of.proxy, new), f"somebody asks {new}")
    answers, failures = await load.end()
    return len(answers), len(failures)


async def asked(proxy: Proxy, container: str) -> bool:
    return await proxy.traffic.last_used(container) > 0


if __name__ == "__main__":
    alone(measure, sys.argv[1:])
