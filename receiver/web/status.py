"""`/starphleet/status`: what `starphleet status --json` says."""

from __future__ import annotations

import json

from twisted.web.server import Request

from receiver.commands import Commands
from receiver.web.site import Answer


def status(commands: Commands) -> Answer:
    """The page, as JSON."""

    async def answer(request: Request) -> bytes:
        request.setHeader("Content-Type", "application/json; charset=utf-8")
        return json.dumps(await commands.status(), indent=1).encode() + b"\n"

    return answer
