"""The dashboard as resources of a site: the pages, and the files that they need."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.web.resource import IResource, Resource
from twisted.web.server import Request

from receiver.web.commits import Commits
from receiver.web.pages import Dashboard, Query, read_query
from receiver.web.rendering import STATIC, TYPES, digest
from receiver.web.site import Page
from receiver.web.sources import Sources
from receiver.web.survey import Survey


class _File(Resource):
    """A file of `STATIC`. Pages name it with its digest: then it may be kept for ever."""

    isLeaf = True

    def __init__(self, name: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._data = (STATIC / name).read_bytes()
        self._type = TYPES[f".{name.rpartition('.')[2]}"]
        self._digest = digest(name)

    def render(self, request: Any) -> bytes:
        request.setHeader("Content-Type", self._type)
        if request.uri.endswith(f"?{self._digest}".encode()):
            request.setHeader("Cache-Control", "private, max-age=31536000, immutable")
        return b"" if request.method == b"HEAD" else self._data


Answer = Callable[[Request, Query], Awaitable[bytes]]


def _page(answer: Answer) -> Resource:
    async def whole(request: Request) -> bytes:
        return await answer(request, read_query(request))

    return Page(whole)


class _Root(Resource):
    """`/starphleet/dashboard`, with a slash or without."""

    def __init__(self, page: Resource) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._overview = page
        self.putChild(b"", page)

    def render(self, request: Any) -> Any:
        return self._overview.render(request)


def resource(sources: Sources) -> IResource:
    """What is at `/starphleet/dashboard`, and everything below it."""
    ship = sources.ship
    survey = Survey(ship, sources.deploys, sources.loop, Commits(sources.reactor))
    pages = Dashboard(survey, ship.journal, ship.vitals)
    root = _Root(_page(pages.overview))
    for answer in (pages.service, pages.deploys, pages.deploy, pages.logs):
        root.putChild(answer.__name__.encode(), _page(answer))
    static = Resource()
    root.putChild(b"static", static)
    for path in STATIC.iterdir():
        static.putChild(path.name.encode(), _File(path.name))
    return root
