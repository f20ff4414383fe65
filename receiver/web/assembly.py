"""Puts the ship's own pages together."""

from __future__ import annotations

from collections.abc import Sequence

from receiver.web.dashboard import resource
from receiver.web.metrics import metrics
from receiver.web.peers import Peers
from receiver.web.site import PATH, Access, Page, Pages
from receiver.web.sources import Sources
from receiver.web.status import status
from receiver.web.stream import Logstream


def pages(sources: Sources, *, peers: Sequence[str], peers_token: str, metrics_token: str) -> Pages:
    """All of them. `peers` are the URLs of other ships; the tokens let programs in, each to one
    page."""
    ship = sources.ship
    name, roots = ship.settings.ship_name, ship.settings.roots
    others = Peers(sources.reactor, peers, peers_token, roots) if peers else None
    stream = Logstream(sources.reactor, ship.journal, name, others)
    access = Access(name, {f"{PATH}logstream": peers_token, f"{PATH}metrics": metrics_token})
    return Pages(
        access,
        {
            "logstream": stream,
            "metrics": Page(metrics(sources, lambda: stream.readers)),
            "dashboard": resource(sources),
            "status": Page(status(sources)),
        },
    )
