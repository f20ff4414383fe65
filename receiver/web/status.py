"""`/starphleet/status`: what `starphleet status --json` says."""

from __future__ import annotations

import json

from twisted.web.server import Request

from receiver import answers
from receiver.web.site import Answer
from receiver.web.sources import Sources


def status(sources: Sources) -> Answer:
    """The page, as JSON."""

    async def answer(request: Request) -> bytes:
        request.setHeader("Content-Type", "application/json; charset=utf-8")
        said = await answers.status(sources.ship, sources.loop, sources.deploys)
        return json.dumps(said, indent=1).encode() + b"\n"

    return answer
