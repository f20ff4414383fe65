"""What a headquarters would change on this ship: decided before anything is done."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from attrs import frozen

from hooks.ledger import Serving
from hooks.standing import StandingOrders


@frozen
class Plan:
    """Services by what happens to them. A held one keeps what serves: its orders are refused."""

    created: tuple[str, ...]
    replaced: tuple[str, ...]
    left: tuple[str, ...]
    orphaned: tuple[str, ...]
    held: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """For a person: a line for each kind that there is."""
        kinds = (
            ("created", self.created),
            ("replaced", self.replaced),
            ("left as it is", self.left),
            ("orphaned", self.orphaned),
            ("held back", self.held),
        )
        for kind, services in kinds:
            if services:
                yield f"{kind}: {_some(services)}"


def plan(
    orders: Mapping[str, StandingOrders],
    held_back: Collection[str],
    serving: Mapping[str, Serving],
) -> Plan:
    """`orders` by path, `held_back` paths, `serving` by service. Sources that moved are no part."""
    wanted = {one.service: one for one in orders.values()}
    held = {f"/{path}" for path in held_back}
    there = {name: one for name, one in serving.items() if one.place is not None}
    same = {name for name in wanted.keys() & there.keys() if _same(wanted[name], there[name])}
    return Plan(
        created=tuple(sorted(wanted.keys() - there.keys())),
        replaced=tuple(sorted((wanted.keys() & there.keys()) - same)),
        left=tuple(sorted(same)),
        orphaned=tuple(
            sorted(n for n in there.keys() - wanted.keys() - held if not there[n].orphaned)
        ),
        held=tuple(sorted(held)),
    )


def _same(wanted: StandingOrders, there: Serving) -> bool:
    return there.standing == wanted.identity and not there.orphaned


def _some(services: tuple[str, ...], most: int = 12) -> str:
    more = f" and {len(services) - most} more" if len(services) > most else ""
    return ", ".join(services[:most]) + more
